"""A term's loss on one pair of taps: what student, teacher and labels say, brought to one form."""
from torch import Tensor
from torch.nn import functional as F

from mmseg_kd.functional import Upsampled
from mmseg_kd.functional.upsampled import at_full_size
from mmseg_kd.losses import DistillationLoss

from .terms import DistillTerm

__all__ = ['compare_maps', 'compare_vectors']


def compare_maps(term: DistillTerm, student: Tensor | Upsampled, teacher: Tensor | Upsampled, target: Tensor,
                 size: tuple[int, int], classes: int, align_corners: bool) -> Tensor:
    """Compare maps of logits or features, position by position.

    Args:
        term: The term.
        student: (N, C, h, w) with gradient.
        teacher: (N, C, h', w').
        target: (N, H, W) int64 labels.
        size: Where the two are compared, in rows and columns; maps of another size are resized bilinearly, labels by
            nearest neighbour.
        classes: Number of the student's classes; of maps with another number of channels a label only says whether its
            position counts.
        align_corners: How maps are resized.

    Returns:
        A scalar.
    """
    target = _nearest(target, size)
    student, teacher = _at(student, size, align_corners), _at(teacher, size, align_corners)
    if not isinstance(term.loss, DistillationLoss):
        # A loss from elsewhere knows only tensors.
        return term.loss(at_full_size(student), at_full_size(teacher), target)
    if student.shape[1] != classes and not term.loss.needs_target:
        # No label is below 0, where every one counts.
        ignored = -1 if term.loss.ignore_index is None else term.loss.ignore_index
        target = target.where(target == ignored, 0)
    return term.loss(student, teacher, target)


def compare_vectors(term: DistillTerm, student: Tensor, teacher: Tensor, target: Tensor | None) -> Tensor:
    """Compare one vector of logits or features for each image, or maps of features without labels.

    Args:
        term: The term.
        student: (N, C), or (N, C, h, w), with gradient.
        teacher: The same of the teacher; a map is resized to the student's.
        target: (N,) int64 class of each image, for losses that need one.

    Returns:
        A scalar.
    """
    if teacher.dim() == 4 and teacher.shape[2:] != student.shape[2:]:
        teacher = Upsampled(teacher, tuple(student.shape[2:])).computed()
    return term.loss(student, teacher) if target is None else term.loss(student, teacher, target)


def _at(maps: Tensor | Upsampled, size: tuple[int, int], align_corners: bool) -> Tensor | Upsampled:
    if isinstance(maps, Upsampled):
        return maps._replace(size=size)
    return maps if maps.shape[2:] == size else Upsampled(maps, size, align_corners)


def _nearest(target: Tensor, size: tuple[int, int]) -> Tensor:
    if target.shape[1:] == size:
        return target
    # Through float64, which holds every label exactly; mmseg resizes label maps the same way.
    return F.interpolate(target[:, None].double(), size=size, mode='nearest')[:, 0].long()

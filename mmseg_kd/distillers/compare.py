"""A term's loss on one pair of taps: what student, teacher and labels say, brought to one form."""
from torch import Tensor

from mmseg_kd.functional import Upsampled
from mmseg_kd.functional.upsampled import at_full_size
from mmseg_kd.losses import DistillationLoss

from .positions import NO_GAPS, Gaps, select
from .terms import DistillTerm

__all__ = ['compare_maps', 'compare_vectors']


def compare_maps(term: DistillTerm, student: Tensor | Upsampled, teacher: Tensor | Upsampled, target: Tensor | None,
                 size: tuple[int, ...], classes: int | None, align_corners: bool, gaps: Gaps = NO_GAPS) -> Tensor:
    """Compare maps of logits or features, position by position; or vectors (N, C), of which each is one position.

    Args:
        term: The term.
        student: (N, C, h, w) with gradient.
        teacher: (N, C, h', w').
        target: (N, H, W) int64 labels; None: there are none, and a term sees all positions.
        size: Where the two are compared, in rows and columns; maps of another size are resized bilinearly, labels by
            nearest neighbour. Of vectors ().
        classes: Number of the student's classes, if it is known; of maps with another number of channels a label only
            says whether its position counts.
        align_corners: How maps are resized.
        gaps: Where the labels mean nothing. Which positions count is the term's choice, see :func:`~.positions.select`.

    Returns:
        A scalar.
    """
    student, teacher = _at(student, size, align_corners), _at(teacher, size, align_corners)
    target, weight = select(term, target, teacher, size, gaps)
    if not isinstance(term.loss, DistillationLoss):
        # A loss from elsewhere knows only tensors.
        if weight is not None:
            target = target.where(weight != 0, -100 if term.void is None else term.void)
        return term.loss(at_full_size(student), at_full_size(teacher), target)
    if student.shape[1] != classes and not term.loss.needs_target and target is not None:
        # No label is below 0, where every one counts.
        ignored = -1 if term.ignore_index is None else term.ignore_index
        target = target.where(target == ignored, 0)
    return term.loss(student, teacher, target, weight)


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
        return maps.logits if maps.logits.shape[2:] == size else maps._replace(size=size)
    return maps if maps.shape[2:] == size else Upsampled(maps, size, align_corners)

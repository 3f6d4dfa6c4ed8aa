"""A term's loss on one pair of taps: what student, teacher and labels say, brought to one form."""
import torch
from torch import Tensor

from mmseg_kd.functional import Upsampled
from mmseg_kd.functional.merged_classes import MergedClasses, select_classes
from mmseg_kd.functional.upsampled import at_full_size
from mmseg_kd.losses import DistillationLoss

from .positions import NO_GAPS, Gaps, nearest, select
from .terms import DistillTerm

__all__ = ['compare_maps', 'compare_vectors', 'two_classes']


def compare_maps(term: DistillTerm, student: Tensor | Upsampled, teacher: Tensor | Upsampled | MergedClasses,
                 target: Tensor | None, size: tuple[int, ...], classes: int | None, align_corners: bool,
                 gaps: Gaps = NO_GAPS) -> Tensor:
    """Compare maps of logits or features, position by position; or vectors (N, C), of which each is one position.

    Args:
        term: The term.
        student: (N, C, h, w) with gradient.
        teacher: (N, C, h', w'), or merged classes, of which the student has perhaps more.
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
    heard = None
    if isinstance(teacher, MergedClasses):
        student = two_classes(student)
        number = student.shape[1]
        heard = _heard(term, teacher, target, number, size, align_corners)
        target = _renumbered(term, teacher, target, number)
        student, teacher = select_classes(student, teacher.classes), teacher.logits
        classes = student.shape[1]
    elif term.reads_logits:
        student, teacher = _one_form_of_two_classes(term, student, teacher)
        # Yes and no are two classes for the labels.
        classes = 2 if classes == 1 else classes
    student, teacher = _at(student, size, align_corners), _at(teacher, size, align_corners)
    target, weight = select(term, target, teacher, size, gaps, heard)
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


def compare_vectors(term: DistillTerm, student: Tensor, teacher: Tensor | MergedClasses,
                    target: Tensor | None) -> Tensor:
    """Compare one vector of logits or features for each image, or maps of features without labels.

    Args:
        term: The term.
        student: (N, C), or (N, C, h, w), with gradient.
        teacher: The same of the teacher; a map is resized to the student's.
        target: (N,) int64 class of each image, for losses that need one and for merged classes.

    Returns:
        A scalar.
    """
    if isinstance(teacher, MergedClasses):
        heard = _heard(term, teacher, target, student.shape[1], (), False)
        target = _renumbered(term, teacher, target, student.shape[1])
        student = select_classes(student, teacher.classes)
        return term.loss(student, teacher.logits, target if term.loss.needs_target else None,
                         None if heard is None else heard.to(torch.float32))
    if teacher.dim() == 4 and teacher.shape[2:] != student.shape[2:]:
        teacher = Upsampled(teacher, tuple(student.shape[2:])).computed()
    return term.loss(student, teacher) if target is None else term.loss(student, teacher, target)


def two_classes(logits: Tensor | Upsampled) -> Tensor | Upsampled:
    """(N, C, *) logits; a single sigmoid channel z becomes the two channels (0, z), whose softmax is its sigmoid."""
    if logits.shape[1] != 1:
        return logits
    if isinstance(logits, Upsampled):
        return logits._replace(logits=two_classes(logits.logits))
    return torch.cat([torch.zeros_like(logits), logits], 1)


def _one_channel(logits: Tensor | Upsampled) -> Tensor | Upsampled:
    """The single sigmoid channel that means what one or two channels of logits mean."""
    if logits.shape[1] == 1:
        return logits
    if isinstance(logits, Upsampled):
        return logits._replace(logits=_one_channel(logits.logits))
    return logits[:, 1:] - logits[:, :1]


def _one_form_of_two_classes(term: DistillTerm, student, teacher) -> tuple:
    """Where one of them is a single sigmoid channel: both as one for losses that look at each class by itself, both as
    two classes for the others."""
    if 1 not in (student.shape[1], teacher.shape[1]) or max(student.shape[1], teacher.shape[1]) > 2:
        return student, teacher
    form = _one_channel if getattr(term.loss, 'takes_one_channel', False) else two_classes
    return form(student), form(teacher)


def _heard(term: DistillTerm, teacher: MergedClasses, labels: Tensor | None, number: int, size: tuple[int, ...],
           align_corners: bool) -> Tensor | None:
    """(N, *size) bool, where the teacher says something, by the rule of :class:`mmseg_kd.teachers.class_map.ClassMap`;
    None: everywhere. The student has ``number`` classes."""
    heard = None
    if teacher.lead is not None:
        heard = at_full_size(_at(teacher.lead, size, align_corners)).squeeze(1) >= 0
    if labels is not None:
        labels = nearest(labels, size)
        known = (labels[..., None] == labels.new_tensor(teacher.classes)).any(-1)
        # What is no class of the student is for the term to judge.
        lacked = ~known & (labels >= 0) & (labels < number)
        if term.void is not None:
            lacked &= labels != term.void
        heard = ~lacked if heard is None else heard & ~lacked
    return heard


def _renumbered(term: DistillTerm, teacher: MergedClasses, labels: Tensor | None, number: int) -> Tensor | None:
    """The student's labels as places among the classes that the teacher knows; a label that is not one stays as it is.

    Raises:
        ValueError: the label that is ignored is one of these places.
    """
    if labels is None:
        return None
    if term.void is not None and 0 <= term.void < len(teacher.classes):
        raise ValueError(f'`distill.{term.name}.loss.ignore_index`: {term.void} is one of the classes, which '
                         '`teacher.class_map` gives other numbers; take a number that is no class, like 255.')
    place = labels.new_zeros(number)
    place[list(teacher.classes)] = torch.arange(len(teacher.classes), device=labels.device)
    inside = (labels >= 0) & (labels < number)
    if term.void is not None:
        inside &= labels != term.void
    return place[labels.where(inside, 0)].where(inside, labels)


def _at(maps: Tensor | Upsampled, size: tuple[int, int], align_corners: bool) -> Tensor | Upsampled:
    if isinstance(maps, Upsampled):
        return maps.logits if maps.logits.shape[2:] == size else maps._replace(size=size)
    return maps if maps.shape[2:] == size else Upsampled(maps, size, align_corners)

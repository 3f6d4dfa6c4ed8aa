"""A term's loss on one pair of taps: student, teacher and labels in one form; which positions the term sees, with what
target, and how much each of them counts."""
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mmseg_kd.functional import Upsampled
from mmseg_kd.functional.evaluate import over_batch
from mmseg_kd.functional.merged_classes import MergedClasses, select_classes
from mmseg_kd.functional.upsampled import at_full_size
from mmseg_kd.losses import DistillationLoss

from .terms import DistillTerm

__all__ = ['NO_GAPS', 'WEIGHTS', 'Gaps', 'compare_maps', 'compare_vectors', 'nearest', 'select', 'two_classes']

#: What a term's ``weight`` may be, beside None and a threshold.
WEIGHTS = ('confidence', 'entropy')

# What is written into a copy of the labels where there is none.
_VOID, _UNLABELLED, _PADDING = -1, -2, -3


class Gaps(NamedTuple):
    """Where the label maps of a batch mean nothing, beside the label that is ignored."""

    pictures: tuple[int, ...] = ()  #: places in the batch of pictures without labels
    padding: tuple[tuple[int, int, int], ...] = ()  #: (place in the batch, columns at the right, rows at the bottom)


NO_GAPS = Gaps()


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
        gaps: Where the labels mean nothing. Which positions count is the term's choice, see :func:`select`.

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
        if {student.shape[1], teacher.shape[1]} in ({1}, {1, 2}):
            # A single sigmoid channel is as good as two classes for losses that look at each class by itself.
            form = _one_channel if getattr(term.loss, 'takes_one_channel', False) else two_classes
            student, teacher = form(student), form(teacher)
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
        # What is not a class of the student is for the term to judge.
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
                         '`teacher.class_map` gives other numbers; take a number that is not a class, like 255.')
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


class Selected(NamedTuple):
    """What a loss is told about the positions, for all or none of its maps."""

    target: Tensor | None  #: (N, H, W) int64 classes, or the label that is ignored
    weight: Tensor | None  #: (N, H, W); 0: the position does not count. None: each counts 1


def select(term: DistillTerm, labels: Tensor | None, teacher: Tensor | Upsampled, size: tuple[int, ...],
           gaps: Gaps = NO_GAPS, heard: Tensor | None = None) -> Selected:
    """Target and weight of each position for one term.

    Args:
        term: The term, with its ``positions``, ``target`` and ``weight``.
        labels: (N, H', W') int64, whatever stands in the gaps; (N,) of vectors. None: nobody gave any for this batch,
            and the term sees all positions, whatever its ``positions``.
        teacher: What the term reads of the teacher, (N, C, *size); class logits where the term asks for more than
            labels can say.
        size: (H, W) of the positions; labels are brought there by nearest neighbour.
        gaps: Where there are no labels.
        heard: (N, *size) bool, where the teacher says something about these classes; None: everywhere.

    Returns:
        Positions that do not count have the ignored label of the loss where ``positions='labelled'``; with other
        positions every target is a class and the weight says which count.
    """
    needs_target = getattr(term.loss, 'needs_target', True)
    if labels is None:
        first = _first_class(teacher) if needs_target or term.weight is not None else None
        if term.weight is None:
            return Selected(first if needs_target else None, None if heard is None else heard.to(torch.float32))
        counts = torch.ones_like(first, dtype=torch.bool) if heard is None else heard
        return Selected(first if needs_target else None, _weight(term, teacher, counts))
    if term.positions == 'labelled' and (
            term.ignore_index is not None or needs_target and not gaps.pictures and heard is None):
        target = _ignored_without_labels(labels, gaps, term.ignore_index) if gaps.pictures else labels
        if target.shape[1:] != size:
            target = nearest(target, size)
        if heard is not None:
            target = target.where(heard, term.ignore_index)
        counts = torch.ones_like(target, dtype=torch.bool) if term.ignore_index is None else (
            target != term.ignore_index)
        if term.target == 'teacher':
            target = _first_class(teacher).where(counts, target)
        return Selected(target, None if term.weight is None else _weight(term, teacher, counts))
    known = nearest(_what_is_known(labels, gaps, term.void), size)
    target = _classes(term, known, teacher) if needs_target else None
    if term.positions == 'all' and term.weight is None and not gaps.padding and heard is None:
        return Selected(target, None)
    counts = _counting(known, term)
    if heard is not None:
        counts = counts & heard
    return Selected(target, counts.to(torch.float32) if term.weight is None else _weight(term, teacher, counts))


def _ignored_without_labels(labels: Tensor, gaps: Gaps, ignore_index: int | None) -> Tensor:
    """Labels (N, H, W) that are ``ignore_index`` all over the pictures without labels."""
    labels = labels.clone()
    for row in gaps.pictures:
        labels[row] = ignore_index
    return labels


def _what_is_known(labels: Tensor, gaps: Gaps, void: int | None) -> Tensor:
    """The labels, with the reason where there is none."""
    known = labels.clone() if void is None else labels.masked_fill(labels == void, _VOID)
    # Row by row: a list as an index would make a GPU wait.
    for row in gaps.pictures:
        known[row] = _UNLABELLED
    for row, right, bottom in gaps.padding:
        known[row, :, known.shape[2] - right:] = _PADDING
        known[row, known.shape[1] - bottom:] = _PADDING
    return known


def _counting(known: Tensor, term: DistillTerm) -> Tensor:
    if term.positions == 'all':
        return known != _PADDING
    if term.positions == 'unlabelled':
        return known == _UNLABELLED
    # A loss that is told to ignore nothing.
    return known >= _VOID


def _classes(term: DistillTerm, known: Tensor, teacher: Tensor | Upsampled) -> Tensor:
    """A class for every position: the label's, or the teacher's first one."""
    first = _first_class(teacher)
    return first if term.target == 'teacher' else known.where(known >= 0, first)


def _first_class(teacher: Tensor | Upsampled) -> Tensor:
    # On a CPU a quarter of the time of `argmax`.
    return _image_by_image(teacher, lambda logits: logits.max(1).indices)


@torch.no_grad()
def _weight(term: DistillTerm, teacher: Tensor | Upsampled, counts: Tensor) -> Tensor:
    """The teacher's certainty where positions count, 0 elsewhere; for a mean they average 1 over what counts.

    So the mean divides by the sum of the weights, and a loss whose unit is not a position keeps its scale.
    """
    if not isinstance(term.weight, str):
        return (counts & (_image_by_image(teacher, _confidence) >= term.weight)).to(torch.float32)
    certainty = _image_by_image(teacher, _confidence if term.weight == 'confidence' else _one_minus_entropy)
    weight = certainty.where(counts, 0.)
    if term.loss.reduction != 'mean':
        return weight
    total = over_batch(torch.stack([(weight != 0).sum().to(weight.dtype), weight.sum()]))
    return weight * (total[0] / total[1].clamp(min=torch.finfo(weight.dtype).tiny))


def _confidence(logits: Tensor) -> Tensor:
    """The highest probability of a class."""
    return (logits.amax(1) - logits.logsumexp(1)).exp()


def _one_minus_entropy(logits: Tensor) -> Tensor:
    """1 minus the entropy's share of the largest one, log C: 1 for a single class, 0 for all alike."""
    log_p = logits.log_softmax(1)
    entropy = -(log_p.exp() * log_p).sum(1)
    return (1 - entropy / math.log(logits.shape[1])).clamp(min=0)


@torch.no_grad()
def _image_by_image(teacher: Tensor | Upsampled, function) -> Tensor:
    """A map of each picture's logits, so that there is never more than one picture of them at full size."""
    leaf = teacher.logits if isinstance(teacher, Upsampled) else teacher
    pictures = [teacher._replace(logits=each) if isinstance(teacher, Upsampled) else each for each in leaf.split(1)]
    return torch.cat([function(at_full_size(each).float()) for each in pictures])


def nearest(labels: Tensor, size: Sequence[int]) -> Tensor:
    """Labels (N, H, W) at another size."""
    if labels.shape[1:] == tuple(size):
        return labels
    height, width = labels.shape[1:]
    if height % size[0] == width % size[1] == 0:
        return labels[:, ::height // size[0], ::width // size[1]].contiguous()
    # Through float64, which holds every label exactly; mmseg resizes label maps the same way.
    return F.interpolate(labels[:, None].double(), size=tuple(size), mode='nearest')[:, 0].long()

"""Which pixels a distillation term sees, with what target, and how much each counts."""
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mmseg_kd.functional import Upsampled
from mmseg_kd.functional.evaluate import over_batch
from mmseg_kd.functional.upsampled import at_full_size

from .terms import DistillTerm

__all__ = ['NO_GAPS', 'WEIGHTS', 'Gaps', 'Selected', 'nearest', 'select']

#: What a term's ``weight`` may be, beside None and a threshold.
WEIGHTS = ('confidence', 'entropy')

# What is written into a copy of the labels where there is none.
_VOID, _UNLABELLED, _PADDING = -1, -2, -3


class Gaps(NamedTuple):
    """Where the label maps of a batch mean nothing, beside the label that is ignored."""

    pictures: tuple[int, ...] = ()  #: places in the batch of pictures without labels
    padding: tuple[tuple[int, int, int], ...] = ()  #: (place in the batch, columns at the right, rows at the bottom)


NO_GAPS = Gaps()


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

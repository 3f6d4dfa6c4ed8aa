"""Logits over one set of classes as logits over another, coarser or smaller one."""
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .upsampled import Logits, Upsampled

__all__ = ['MergedClasses', 'merge_classes', 'select_classes']


class MergedClasses(NamedTuple):
    """What a teacher says about a student's classes; see :func:`merge_classes`.

    Args:
        logits: (N, K, *), or Upsampled, over the K classes of the student that the teacher knows.
        classes: which of the student's classes these are, ascending.
        lead: (N, 1, *), or Upsampled: log of the teacher's probability of these K over that of its other classes; None
            where it has no others.
    """

    logits: Logits
    classes: tuple[int, ...]
    lead: Logits | None

    @property
    def shape(self) -> torch.Size:
        """(N, K, *)."""
        return self.logits.shape


def merge_classes(logits: Logits, groups: Sequence[Sequence[int]]) -> MergedClasses:
    r"""Sum a teacher's probabilities over groups of its classes, in the log domain.

    The logit of student class s is :math:`\log \sum_{t \in G_s} e^{v_t}`, so that its softmax is the teacher's
    probability of :math:`G_s`, given that one of the groups holds. A student class without a group is left out. Of
    logits that are yet to be upsampled the small map is merged: exact for groups of one class, which is a selection;
    for others it is what a network with merged outputs would compute, whose small map is upsampled.

    Args:
        logits: (N, T, *) or Upsampled, of the teacher.
        groups: for each of the student's classes the teacher's classes that it is made of, perhaps none.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[.2, .3, .4, .1]]).log()
        >>> merged = merge_classes(logits, [[0], [1, 2], []])
        >>> merged.classes, merged.logits.exp(), merged.lead.sigmoid()
        ((0, 1), tensor([[0.2000, 0.7000]]), tensor([[0.9000]]))
    """
    if isinstance(logits, Upsampled):
        merged = merge_classes(logits.logits, groups)
        lead = None if merged.lead is None else logits._replace(logits=merged.lead)
        return merged._replace(logits=logits._replace(logits=merged.logits), lead=lead)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    known = tuple(index for index, group in enumerate(groups) if group)
    parts = [_sum_of(logits, groups[index]) for index in known]
    merged = torch.cat(parts, 1)
    wanted = {number for group in groups for number in group}
    others = [number for number in range(logits.shape[1]) if number not in wanted]
    lead = _sum_of(merged, range(len(known))) - _sum_of(logits, others) if others else None
    return MergedClasses(merged, known, lead)


def select_classes(logits: Logits, classes: Sequence[int]) -> Logits:
    """Some of the channels of (N, C, *) logits, in this order; the same tensor where they are all."""
    if list(classes) == list(range(logits.shape[1])):
        return logits
    if isinstance(logits, Upsampled):
        return logits._replace(logits=select_classes(logits.logits, classes))
    return logits[:, list(classes)]


def _sum_of(logits: Tensor, numbers: Sequence[int]) -> Tensor:
    """(N, 1, *): log of the sum of the exponentials of some channels."""
    if len(numbers) == 1:
        return logits[:, numbers[0]:numbers[0] + 1]
    return logits[:, list(numbers)].logsumexp(1, keepdim=True)

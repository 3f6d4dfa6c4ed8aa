"""Which group each class of a block of positions is in; the arrays are scratch of shape (C, B), B positions wide."""
import numpy as np

from ...topk import NEARLY_NOTHING
from .arithmetic import exp, jit

__all__ = ['RANDOM', 'RANK', 'TARGET', 'assign_groups']

#: How groups are formed; 0 is one group of all classes.
TARGET, RANK, RANDOM = 1, 2, 3

_NEARLY_NOTHING = np.float32(NEARLY_NOTHING)
_ONE, _LOWEST = np.float32(1), np.float32(-np.inf)


@jit
def assign_groups(group, teacher, kind, target, boundaries, largest, leading, ratio, temperature, draws, keep):
    """Fill ``group`` as :mod:`mmseg_kd.functional.grouping` defines it.

    Args:
        group: (C, B) int32, filled with 0, 1, 2.
        teacher: (C, B) float32 logits.
        kind: 0, TARGET, RANK or RANDOM.
        target: (B,) int64 labels, for TARGET and RANDOM.
        boundaries: (1 or 2, B) int32 ranks at which the next group begins, for RANK.
        largest: the largest of them.
        leading: True where rank 0 is the highest logit, False where it is the lowest.
        ratio: above 0, the boundary is found by ``k_by_ratio`` with this ratio and ``largest``.
        temperature: T, for ``ratio``.
        draws: (C, B) float32 uniform numbers, for RANDOM.
        keep: the share of draws that count, for RANDOM.
    """
    num_classes, width = group.shape
    if kind == 0:
        group[:] = 0
    elif kind == TARGET:
        for c in range(num_classes):
            for b in range(width):
                group[c, b] = 0 if target[b] == c else 1
    elif kind == RANDOM:
        for c in range(num_classes):
            for b in range(width):
                group[c, b] = 0 if target[b] == c else (2 if draws[c, b] < keep else 1)
    else:
        _by_rank(group, teacher, boundaries, largest, leading, ratio, temperature)


@jit
def _by_rank(group, teacher, boundaries, largest, leading, ratio, temperature):
    num_classes, width = group.shape
    sign = _ONE if leading else -_ONE
    top = _top_values(teacher, num_classes if ratio > 0 else largest, sign)
    if ratio > 0:
        _k_by_ratio(boundaries[0], top, largest, ratio, temperature)
    group[:] = 0
    threshold = np.empty(width, np.float32)
    left = np.empty(width, np.int32)
    for boundary in boundaries:
        # Rank below the boundary: above the threshold, or among the first of those equal to it.
        for j in range(largest):
            for b in range(width):
                threshold[b] = top[j, b] if boundary[b] == j + 1 else threshold[b]
        left[:] = boundary
        for c in range(num_classes):
            for b in range(width):
                left[b] -= 1 if sign * teacher[c, b] > threshold[b] else 0
        for c in range(num_classes):
            for b in range(width):
                value = sign * teacher[c, b]
                tied = value == threshold[b]
                inside = value > threshold[b] or (tied and left[b] > 0)
                left[b] -= 1 if tied else 0
                group[c, b] += 0 if inside else 1


@jit
def _top_values(teacher, count, sign):
    """The ``count`` largest of sign * teacher, in descending order, (count, B)."""
    num_classes, width = teacher.shape
    top = np.full((count, width), _LOWEST, np.float32)
    falling = np.empty(width, np.float32)
    for c in range(num_classes):
        for b in range(width):
            falling[b] = sign * teacher[c, b]
        for j in range(count):
            for b in range(width):
                held, value = top[j, b], falling[b]
                top[j, b] = value if value > held else held
                falling[b] = held if value > held else value
    return top


@jit
def _k_by_ratio(boundary, sorted_logits, largest, ratio, temperature):
    """As ``k_by_ratio``: from the last rank upwards, the sum of a class and all smaller ones relative to that class."""
    num_classes, width = sorted_logits.shape
    smaller = np.zeros(width, np.float32)
    boundary[:] = 0
    for rank in range(num_classes, 0, -1):
        if rank < num_classes:
            for b in range(width):
                smaller[b] += _ONE
            for b in range(width):
                smaller[b] *= exp((sorted_logits[rank, b] - sorted_logits[rank - 1, b]) / temperature)
            for b in range(width):
                smaller[b] = max(smaller[b], _NEARLY_NOTHING)
        # count >= ratio * (1 + smaller), without the sum that would swallow a small one
        beyond = np.float32(num_classes + 1 - rank) - ratio
        for b in range(width):
            boundary[b] = rank if boundary[b] == 0 and beyond >= ratio * smaller[b] else boundary[b]
    for b in range(width):
        boundary[b] = min(max(boundary[b], 1), largest)

"""Which classes of a tile of positions are in set A: the teacher's leading ones. Parts and names as in :mod:`.grouped`.
"""
import triton
import triton.language as tl

from ...topk import NEARLY_NOTHING
from .arithmetic import LOG2_E, exp2

__all__ = ['first_of_largest', 'k_by_ratio', 'leading']

_NEARLY_NOTHING = tl.constexpr(NEARLY_NOTHING)
_NO_CLASS = tl.constexpr(2**30)


@triton.jit
def _first(found0, found1, c0, c1):
    """The first class of those that are found, (P,)."""
    return tl.minimum(tl.min(tl.where(found0, c0, _NO_CLASS), 0), tl.min(tl.where(found1, c1, _NO_CLASS), 0))


@triton.jit
def _count(found0, found1):
    return tl.sum(found0.to(tl.int32), 0) + tl.sum(found1.to(tl.int32), 0)


@triton.jit
def first_of_largest(u0, u1, c0, c1):
    """The class of rank 0, (P,): the first of the largest logits."""
    largest = tl.maximum(tl.max(u0, 0), tl.max(u1, 0))
    return _first(u0 == largest[None, :], u1 == largest[None, :], c0, c1)


@triton.jit
def leading(u0, u1, c0, c1, boundary):
    """Whether a class ranks below ``boundary``, in two parts; equal logits rank in the order of the classes.

    Args:
        u0, u1: (C, P) logits, or their negatives where the lowest shall lead; -inf where there is no class.
        c0, c1: (C, 1) their classes.
        boundary: (P,) int32, 1 .. C - 1.
    """
    threshold = tl.full(boundary.shape, float('inf'), tl.float32)
    # How many classes are above the threshold, and how many at or above it.
    above, reached = tl.zeros_like(boundary), tl.zeros_like(boundary)
    for _ in range(tl.max(boundary, 0)):
        u = tl.maximum(
            tl.max(tl.where(u0 < threshold[None, :], u0, float('-inf')), 0),
            tl.max(tl.where(u1 < threshold[None, :], u1, float('-inf')), 0))
        equal = _count(u0 == u[None, :], u1 == u[None, :])
        more = reached < boundary
        threshold, above = tl.where(more, u, threshold), tl.where(more, reached, above)
        reached += tl.where(more, equal, 0)
    # Of those at the threshold the first ``left`` are inside, up to class ``last``.
    left = tl.where(reached > boundary, boundary - above, 0)
    last = tl.where(reached > boundary, -1, _NO_CLASS)
    for index in range(tl.max(left, 0)):
        after = _first((u0 == threshold[None, :]) & (c0 > last[None, :]), (u1 == threshold[None, :]) &
                       (c1 > last[None, :]), c0, c1)
        last = tl.where(index < left, after, last)
    return ((u0 > threshold[None, :]) | ((u0 == threshold[None, :]) & (c0 <= last[None, :])),
            (u1 > threshold[None, :]) | ((u1 == threshold[None, :]) & (c1 <= last[None, :])))


@triton.jit
def k_by_ratio(v0, v1, c0, c1, ratio, k_max, temperature, NUM_CLASSES: tl.constexpr):
    """As :func:`mmseg_kd.functional.topk.k_by_ratio`, (P,) int32: class by class, the smallest logit first.

    Args:
        v0, v1: (C, P) logits; +inf where there is no class.
    """
    previous = tl.minimum(tl.min(v0, 0), tl.min(v1, 0))
    smaller, boundary = tl.zeros_like(previous), tl.zeros(previous.shape, tl.int32)
    for below in range(NUM_CLASSES):
        u = tl.minimum(tl.min(v0, 0), tl.min(v1, 0))
        # The sum of all smaller probabilities relative to this one; never 0 unless there is none.
        relative = (smaller + 1.0) * exp2((previous - u) * LOG2_E / temperature)
        smaller = tl.where(below > 0, tl.maximum(relative, _NEARLY_NOTHING), 0.0)
        # count >= ratio * (1 + smaller), without the sum that would swallow a small one
        leads = (boundary == 0) & (below + 1 - ratio >= ratio * smaller)
        boundary = tl.where(leads, NUM_CLASSES - below, boundary)
        taken = _first(v0 == u[None, :], v1 == u[None, :], c0, c1)
        v0 = tl.where(c0 == taken[None, :], float('inf'), v0)
        v1 = tl.where(c1 == taken[None, :], float('inf'), v1)
        previous = u
    return tl.minimum(tl.maximum(boundary, 1), k_max)

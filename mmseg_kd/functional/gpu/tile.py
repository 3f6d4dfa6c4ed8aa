"""The loss of one tile of positions, whichever loss it is, and the shapes of tiles.

Parts and names as in :mod:`.grouped`.
"""
import functools
from typing import Any, NamedTuple

import triton
import triton.language as tl

from .. import kinds
from ..grouped import ByLabel, ByRank, GroupedLoss
from .grouped import first_of_largest, given_tile, grouped_tile, k_by_ratio, leading
from .ungrouped import binary_kl, binary_kl_norm, cross_entropy_tile

__all__ = ['MOST_CLASSES', 'Settings', 'Tiling', 'at_class', 'classes_of', 'same_resolution_tiling', 'settings_of',
           'tile_loss', 'upsampling_tiling']

_RANK, _RANDOM, _GIVEN = tl.constexpr(kinds.RANK), tl.constexpr(kinds.RANDOM), tl.constexpr(kinds.GIVEN)
_BINARY_KL, _BINARY_KL_NORM = tl.constexpr(kinds.BINARY_KL), tl.constexpr(kinds.BINARY_KL_NORM)
_CROSS_ENTROPY = tl.constexpr(kinds.CROSS_ENTROPY)


class Settings(NamedTuple):
    """What a kernel is compiled for, and what it is called with."""

    constants: dict[str, Any]  #: one kernel is compiled for each of these
    numbers: tuple[float, ...]  #: temperature, w_between, w_a, w_b, ratio, keep
    boundary: int  #: the rank at which the second set begins at every position
    w_within: tuple[float, ...]  #: weights of given groups
    needs_target: bool
    needs_draws: bool


@functools.lru_cache(maxsize=64)
def settings_of(loss: kinds.Loss, num_classes: int) -> Settings:
    """A loss in the words of the kernels."""
    kind = kinds.kind_of(loss)
    grouped = loss if isinstance(loss, GroupedLoss) else GroupedLoss(ByRank((1, )))
    ranks = grouped.groups if isinstance(grouped.groups, ByRank) else ByRank((1, ))
    within, given = grouped.w_within, kind == kinds.GIVEN
    # At most one group is a class by itself, and only the others have a weight within.
    has_one = kind in (kinds.TARGET, kinds.RANDOM) or kind == kinds.RANK and len(ranks.boundaries) == 2
    if kind == kinds.RANDOM:
        _, w_b, w_a = within
    else:
        w_a, w_b = (*within[int(has_one):], 0., 0.)[:2]
    constants = dict(
        NUM_CLASSES=num_classes, KIND=kind, SETS=1 if given else len(within) - has_one, HAS_ONE=has_one,
        DIVERGENCE=dict(forward=0, both=1, reverse=2)[grouped.divergence], LEADING=ranks.strategy == 'best',
        BY_RATIO=bool(ranks.ratio), GROUPS=len(within) if given else 0)
    numbers = (loss.temperature, grouped.w_between, w_a, w_b, ranks.ratio or 0., getattr(grouped.groups, 'keep', 1.))
    needs_target = (kind in (kinds.TARGET, kinds.RANDOM, kinds.CROSS_ENTROPY)
                    or given and isinstance(grouped.groups, ByLabel))
    return Settings(constants, tuple(map(float, numbers)), min(ranks.boundaries[-1], num_classes), within, needs_target,
                    kind == kinds.RANDOM)


@triton.jit
def classes_of(HEAD: tl.constexpr, TAIL: tl.constexpr):
    """The classes of both parts, (C, 1)."""
    return tl.arange(0, HEAD)[:, None], HEAD + tl.arange(0, TAIL)[:, None]


@triton.jit
def at_class(x0, x1, c0, c1, chosen):
    """The entry of one class of each position, (P,); 0 where it is not a class."""
    return tl.sum(tl.where(c0 == chosen[None, :], x0, 0.0), 0) + tl.sum(tl.where(c1 == chosen[None, :], x1, 0.0), 0)


@triton.jit
def tile_loss(z0, z1, v0, v1, c0, c1, target, z_target, v_target, boundary, draw0, draw1, group0, group1, w_within,
              factor, temperature, w_between, w_a, w_b, ratio, keep, largest, NUM_CLASSES: tl.constexpr,
              KIND: tl.constexpr, SETS: tl.constexpr, HAS_ONE: tl.constexpr, DIVERGENCE: tl.constexpr,
              LEADING: tl.constexpr, BY_RATIO: tl.constexpr, GROUPS: tl.constexpr):
    """factor * loss, (P,), its gradient in two parts, and for cross-entropy whether the target leads, (P,).

    Args:
        z0, z1, v0, v1: (C, P) float32 logits, 0 where there is no class and where nothing counts.
        c0, c1: (C, 1) classes.
        target, z_target, v_target: (P,) int32 labels and the logits there, for the kinds that need them.
        boundary: (P,) int32, the rank at which set B begins, unless BY_RATIO.
        draw0, draw1: (C, P) uniform numbers, for random groups.
        group0, group1, w_within: groups that are given, and their weights; see :func:`.grouped.given_tile`.
        factor: (P,) what each position counts.
        ratio, keep: see :class:`...grouped.ByRank` and :class:`...grouped.RandomPart`.
        largest: the largest boundary that ``ratio`` may give.
        LEADING: whether rank 0 is the highest logit or the lowest.
        the others: see :func:`.grouped.grouped_tile` and :class:`Settings`.
    """
    member0, member1 = c0 < NUM_CLASSES, c1 < NUM_CLASSES
    right = factor != 0
    if KIND == _CROSS_ENTROPY:
        loss, g0, g1, right = cross_entropy_tile(z0, z1, c0, c1, member0, member1, target, factor)
    elif KIND == _GIVEN:
        loss, g0, g1 = given_tile(z0, z1, v0, v1, c0, c1, group0, group1, w_within, factor, temperature, w_between,
                                  NUM_CLASSES, GROUPS, DIVERGENCE)
    elif KIND == _BINARY_KL or KIND == _BINARY_KL_NORM:
        if KIND == _BINARY_KL:
            term0, g0 = binary_kl(z0, v0, temperature)
            term1, g1 = binary_kl(z1, v1, temperature)
        else:
            term0, g0 = binary_kl_norm(z0, v0, temperature)
            term1, g1 = binary_kl_norm(z1, v1, temperature)
        loss = factor * (tl.sum(term0, 0) + tl.sum(term1, 0))
        # A loss that is not a number has a gradient that is none.
        scale = factor + 0.0 * loss
        g0, g1 = g0 * scale[None, :], g1 * scale[None, :]
    else:
        in_a0, in_a1, one, z_one, v_one = member0, member1, target, z_target, v_target
        if KIND == _RANDOM:
            in_a0, in_a1 = draw0 < keep, draw1 < keep
        if KIND == _RANK:
            if BY_RATIO:
                boundary = k_by_ratio(v0, tl.where(member1, v1, float('inf')), c0, c1, ratio, largest, temperature,
                                      NUM_CLASSES)
            if LEADING:
                u0, u1 = v0, tl.where(member1, v1, float('-inf'))
            else:
                u0, u1 = -v0, tl.where(member1, -v1, float('-inf'))
            in_a0, in_a1 = leading(u0, u1, c0, c1, boundary)
            if HAS_ONE:
                one = first_of_largest(u0, u1, c0, c1)
                z_one, v_one = at_class(z0, z1, c0, c1, one), at_class(v0, v1, c0, c1, one)
        loss, g0, g1 = grouped_tile(z0, z1, v0, v1, c0, c1, in_a0, in_a1, one, z_one, v_one, factor, temperature,
                                    w_between, w_a, w_b, NUM_CLASSES, SETS, HAS_ONE, DIVERGENCE)
    return loss, g0, g1, right


MOST_CLASSES = 256


class Tiling(NamedTuple):
    """See :mod:`.grouped` for the two parts of the classes."""

    head: int  #: rows of the first part, a power of two below the number of classes
    tail: int  #: rows of the second part, a power of two
    width: int  #: positions
    warps: int


def _tiling(num_classes: int, most_rows: int, narrowest: int) -> Tiling:
    """A thread has up to ``most_rows`` classes of one position; other threads have the rest."""
    head = 1 << max((num_classes - 1).bit_length() - 1, 0)
    tail = 1 << max(num_classes - head - 1, 0).bit_length()
    sharing = 1
    while head + tail > most_rows * sharing:
        sharing *= 2
    width = max(narrowest, 128 // sharing)
    return Tiling(head, tail, width, sharing * width // 32)


def same_resolution_tiling(num_classes: int, given: bool = False) -> Tiling:
    """Tiles whose classes stay in registers.

    The lanes of a warp are neighbouring positions, so that a warp reads and writes whole lines of memory (half a line
    beyond 192 classes, or where many classes are in groups that are ``given``, which need registers of their own). Up
    to about 24 classes a thread holds one position, so that sums over its classes need nobody else; more are shared by
    warps. A thread holds about eight numbers per class at a time and may have 255.
    """
    if given and num_classes > 64:
        return _tiling(num_classes, 16, 16)
    return _tiling(num_classes, 24, 32 if num_classes <= 192 else 16)


def upsampling_tiling(num_classes: int, given: bool = False) -> Tiling:
    """As :func:`same_resolution_tiling`, for a thread that holds six numbers more per class.

    These are two rows of the student, the teacher and the gradient. The small maps are read from caches, where a part
    of a warp's lanes as neighbours does as well as all; more than 256 threads would have too few registers each.
    """
    if given and num_classes > 64:
        return _tiling(num_classes, 5 if num_classes <= 160 else 6, 8)
    return _tiling(num_classes, 10, 16 if num_classes <= 160 else 8)

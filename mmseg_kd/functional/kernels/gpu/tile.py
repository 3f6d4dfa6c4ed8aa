"""The loss of one tile of positions, whichever loss it is. Parts and names as in :mod:`.grouped`."""
import triton
import triton.language as tl

from .binary import binary_kl, binary_kl_norm
from .cross_entropy import cross_entropy_tile
from .grouped import grouped_tile
from .groups import first_of_largest, k_by_ratio, leading

__all__ = ['at_class', 'classes_of', 'tile_loss']

_TARGET, _RANK, _RANDOM = tl.constexpr(1), tl.constexpr(2), tl.constexpr(3)
_BINARY_KL, _BINARY_KL_NORM, _CROSS_ENTROPY = tl.constexpr(4), tl.constexpr(5), tl.constexpr(6)


@triton.jit
def classes_of(HEAD: tl.constexpr, TAIL: tl.constexpr):
    """The classes of both parts, (C, 1)."""
    return tl.arange(0, HEAD)[:, None], HEAD + tl.arange(0, TAIL)[:, None]


@triton.jit
def at_class(x0, x1, c0, c1, chosen):
    """The entry of one class of each position, (P,); 0 where it is no class."""
    return tl.sum(tl.where(c0 == chosen[None, :], x0, 0.0), 0) + tl.sum(tl.where(c1 == chosen[None, :], x1, 0.0), 0)


@triton.jit
def tile_loss(z0, z1, v0, v1, c0, c1, target, z_target, v_target, boundary, draw0, draw1, factor, temperature,
              w_between, w_a, w_b, ratio, keep, largest, NUM_CLASSES: tl.constexpr, KIND: tl.constexpr,
              SETS: tl.constexpr, HAS_ONE: tl.constexpr, DIVERGENCE: tl.constexpr, LEADING: tl.constexpr,
              BY_RATIO: tl.constexpr):
    """factor * loss, (P,), its gradient in two parts, and for cross-entropy whether the target leads, (P,).

    Args:
        z0, z1, v0, v1: (C, P) float32 logits, 0 where there is no class and where nothing counts.
        c0, c1: (C, 1) classes.
        target, z_target, v_target: (P,) int32 labels and the logits there, for the kinds that need them.
        boundary: (P,) int32, the rank at which set B begins, unless BY_RATIO.
        draw0, draw1: (C, P) uniform numbers, for random groups.
        factor: (P,) what each position counts.
        ratio, keep: see :class:`..spec.LossSpec`.
        largest: the largest boundary that ``ratio`` may give.
        LEADING: whether rank 0 is the highest logit or the lowest.
        the others: see :func:`.grouped.grouped_tile` and :class:`.settings.Settings`.
    """
    member0, member1 = c0 < NUM_CLASSES, c1 < NUM_CLASSES
    right = factor != 0
    if KIND == _CROSS_ENTROPY:
        loss, g0, g1, right = cross_entropy_tile(z0, z1, c0, c1, member0, member1, target, factor)
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

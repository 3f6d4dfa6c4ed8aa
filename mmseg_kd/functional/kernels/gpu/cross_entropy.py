"""Cross-entropy of a tile of positions. Parts and names as in :mod:`.grouped`."""
import triton
import triton.language as tl

from .groups import first_of_largest

__all__ = ['cross_entropy_tile']


@triton.jit
def cross_entropy_tile(z0, z1, c0, c1, member0, member1, target, factor):
    """factor * -log softmax(z)[target], (P,), its gradient in two parts, and whether the target leads, (P,)."""
    low = float('-inf')
    z0, z1 = tl.where(member0, z0, low), tl.where(member1, z1, low)
    best = first_of_largest(z0, z1, c0, c1)
    lead = tl.maximum(tl.max(z0, 0), tl.max(z1, 0))
    z0, z1 = z0 - lead[None, :], z1 - lead[None, :]
    at0, at1 = c0 == target[None, :], c1 == target[None, :]
    of_target = tl.sum(tl.where(at0, z0, 0.0), 0) + tl.sum(tl.where(at1, z1, 0.0), 0)
    z0, z1 = tl.exp(z0), tl.exp(z1)
    total = tl.sum(z0, 0) + tl.sum(z1, 0)
    loss = factor * (tl.log(total) - of_target)
    scale = factor / total + 0.0 * loss
    g0 = z0 * scale[None, :] - tl.where(at0, factor[None, :], 0.0)
    g1 = z1 * scale[None, :] - tl.where(at1, factor[None, :], 0.0)
    return loss, g0, g1, best == target

"""The losses without groups, of a tile of positions: value and gradient from one visit to the logits.

Parts and names as in :mod:`.grouped`.
"""
import triton
import triton.language as tl

from .arithmetic import LN_2, LOG2_E, exp2, log1p_of_exp, logistic
from .grouped import first_of_largest

__all__ = ['binary_kl', 'binary_kl_norm', 'cross_entropy_tile']


@triton.jit
def binary_kl(z, v, temperature):
    """T^2 times each class's divergence, and its derivative; of one part of a tile."""
    z, v = z / temperature, v / temperature
    # Both signs turned so that the teacher says no: its own probability keeps its digits.
    turned = tl.where(v > 0, -1.0, 1.0)
    z, v = turned * z, -tl.abs(v)
    no, d = logistic(v), z - v
    far = (log1p_of_exp(-tl.abs(z)) - log1p_of_exp(v)) + tl.maximum(z, 0.0) - no * d
    # Where the three cancel: the cumulants of the teacher's distribution, d^n / n! times each.
    k, s = no * (1.0 - no), 1.0 - 2.0 * no
    near = 1.0 / 40320 * (1.0 - k * (126.0 - k * (1680.0 - 5040.0 * k)))
    near = 1.0 / 5040 * s * (1.0 - k * (60.0 - 360.0 * k)) + d * near
    near = 1.0 / 720 * (1.0 - k * (30.0 - 120.0 * k)) + d * near
    near = 1.0 / 120 * s * (1.0 - 12.0 * k) + d * near
    near = 1.0 / 6 * s + d * (1.0 / 24 * (1.0 - 6.0 * k) + d * near)
    near = k * (d * d) * (0.5 + d * near)
    term = tl.where(tl.abs(d) < 0.5, near, far)
    # Torch's kernels let the maximum of NaN and 0 be 0.
    term += 0.0 * z
    return temperature * temperature * term, temperature * turned * (logistic(z) - no)


@triton.jit
def binary_kl_norm(z, v, temperature):
    """As :func:`binary_kl`: T^2 log cosh((z - v) / 2T), and T/2 tanh of it."""
    x = (z - v) * (0.5 / temperature)
    s, size = x * x, tl.abs(x)
    # Taylor series in x^2 of log(cosh x) / x^2 and of tanh(x) / x
    near = s * (1.0 / 2 + s * (-1.0 / 12 + s * (1.0 / 45 + s * (-17.0 / 2520 + s * (31.0 / 14175)))))
    far = size + (log1p_of_exp(-2.0 * size) - LN_2)
    term = tl.where(size < 0.4, near, far)
    near = x * (1.0 + s * (-1.0 / 3 + s * (2.0 / 15 + s * (-17.0 / 315 + s * (62.0 / 2835 + s * (-1382.0 / 155925))))))
    e = exp2(size * (-2.0 * LOG2_E))
    far = (1.0 - e) / (1.0 + e)
    slope = tl.where(size < 0.4, near, tl.where(x < 0, -far, far))
    return temperature * temperature * term, 0.5 * temperature * slope


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

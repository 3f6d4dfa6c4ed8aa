"""CWD, of a tile of any shape whose channels' sums are known: value and gradient."""
import triton
import triton.language as tl

from .arithmetic import LOG2_E, exp2, kl_term

__all__ = ['SUMS', 'channel_wise_tile', 'statistics_of']

#: Of a channel, in each of its parts: leading logit, sum of e^((logit - lead) / T), and that sum weighted, of student
#: and teacher.
SUMS = 6
_SUMS = tl.constexpr(SUMS)


@triton.jit
def statistics_of(parts, n, c, exists, channels, temperature, SPLITS: tl.constexpr):
    """Join the parts of channels ``c``, of any shape: lead and 1 / sum of student and teacher, log of the sums' ratio,
    and what the weights pull.

    Args:
        parts: (N, SUMS, SPLITS, C) float32.
        n: the image, int64.
        exists: whether there is such a channel.
    """
    bits = LOG2_E / temperature
    step = SPLITS * channels
    parts += n * _SUMS * step + c
    lead_z, lead_v = tl.load(parts, exists, 0), tl.load(parts + 3 * step, exists, 0)
    for split in range(1, SPLITS):
        lead_z = tl.maximum(lead_z, tl.load(parts + split * channels, exists, 0))
        lead_v = tl.maximum(lead_v, tl.load(parts + (3 * step + split * channels), exists, 0))
    # Where nothing counts any finite number will do.
    away = -1e30 * tl.minimum(temperature, 1.0)
    exists = exists & (lead_z > away)
    lead_z, lead_v = tl.where(exists, lead_z, 0.0), tl.where(exists, lead_v, 0.0)
    sum_z, weighted_z, sum_v, weighted_v = lead_z * 0.0, lead_z * 0.0, lead_z * 0.0, lead_z * 0.0
    for split in range(SPLITS):
        fall_z = exp2((tl.load(parts + split * channels, exists, 0) - lead_z) * bits)
        fall_v = exp2((tl.load(parts + (3 * step + split * channels), exists, 0) - lead_v) * bits)
        sum_z += fall_z * tl.load(parts + (step + split * channels), exists, 0)
        weighted_z += fall_z * tl.load(parts + (2 * step + split * channels), exists, 0)
        sum_v += fall_v * tl.load(parts + (4 * step + split * channels), exists, 0)
        weighted_v += fall_v * tl.load(parts + (5 * step + split * channels), exists, 0)
    sum_z, sum_v = tl.where(exists, sum_z, 1.0), tl.where(exists, sum_v, 1.0)
    return (lead_z, 1.0 / sum_z, lead_v, 1.0 / sum_v, tl.log(sum_v / sum_z),
            weighted_v / sum_v - weighted_z / sum_z)


@triton.jit
def channel_wise_tile(z, v, counts, factor, pull, lead_z, per_z, lead_v, per_v, shift, temperature):
    """factor T (p d - p + q), and factor (q - p) + q pull, where a position counts, else 0.

    With q and p the distributions of student and teacher over the positions and d = log(p / q); the other arguments
    are those of :func:`statistics_of`, in shapes that fit.

    Args:
        factor: weight of the position, and what all are multiplied with.
        pull: what the weights pull, times what all are multiplied with.
    """
    per_t = 1.0 / temperature
    z, v = z - lead_z, v - lead_v
    q, p = exp2(z * (per_t * LOG2_E)) * per_z, exp2(v * (per_t * LOG2_E)) * per_v
    term = kl_term(p, q, (v - z) * per_t - shift)
    return (tl.where(counts, factor * (temperature * term), 0.0), tl.where(counts, factor * (q - p) + q * pull, 0.0))

"""CWD: each channel's distribution over the positions of an image.

Two kernels. The first one takes the sums that a channel's distributions are divided by, in SPLITS parts, each by a
program that sees its positions once; where logits are upsampled it does that as it goes. The second one joins the
parts, and has value and gradient of each position: :func:`_slopes_kernel` at one resolution, for upsampled logits that
of :mod:`.upsampling`, which calls :func:`channel_wise_tile`.
"""
import torch
import triton
import triton.language as tl
from torch import Tensor

from ..upsampled import Upsampled
from . import upsampling
from .arithmetic import LOG2_E, exp2, total_loss
from .channel_tile import SUMS, channel_wise_tile, statistics_of
from .tile import Settings

__all__ = ['loss_and_gradient']

_SUMS = tl.constexpr(SUMS)
#: Positions that a program works on at a time, and the most programs of a channel.
_WIDTH, _MOST_SPLITS = 1024, 32


@triton.jit
def _interpolated(small, x, y, upper_row, lower_row, row_share, left, right, share, stride_row, stride_column, read):
    """Logits at outputs (y, x) of an (h, w) map."""
    upper, lower = tl.load(upper_row + y, read, 0) * stride_row, tl.load(lower_row + y, read, 0) * stride_row
    left, right = tl.load(left + x, read, 0) * stride_column, tl.load(right + x, read, 0) * stride_column
    below, aside = tl.load(row_share + y, read, 0), tl.load(share + x, read, 0)
    a = tl.load(small + (upper + left), read, 0).to(tl.float32)
    b = tl.load(small + (upper + right), read, 0).to(tl.float32)
    c = tl.load(small + (lower + left), read, 0).to(tl.float32)
    d = tl.load(small + (lower + right), read, 0).to(tl.float32)
    rest = 1.0 - aside
    return (1.0 - below) * (rest * a + aside * b) + below * (rest * c + aside * d)


@triton.jit
def _sums_kernel(student, teacher, valid, weight, parts, z_upper, z_lower, z_row_share, z_left, z_right, z_share,
                 v_upper, v_lower, v_row_share, v_left, v_right, v_share, positions, out_width, channels, tiles,
                 z_image, z_channel, z_row, z_column, v_image, v_channel, v_row, v_column, temperature,
                 WITH_WEIGHT: tl.constexpr, UPSAMPLES: tl.constexpr, SPLITS: tl.constexpr, WIDTH: tl.constexpr):
    """One part of one channel: leading logit, sum of e^((logit - lead) / T) and that sum weighted, of both."""
    channel, split = tl.program_id(0) // SPLITS, tl.program_id(0) % SPLITS
    n, c = (channel // channels).to(tl.int64), channel % channels
    student += n * z_image + c * z_channel.to(tl.int64)
    teacher += n * v_image + c * v_channel.to(tl.int64)
    bits = LOG2_E / temperature
    # What does not count goes so far below that its probability is 0, and its quotient in units of T is still finite.
    away = -1e30 * tl.minimum(temperature, 1.0)
    lead_z, lead_v = tl.full((WIDTH, ), 0, tl.float32) + away, tl.full((WIDTH, ), 0, tl.float32) + away
    sum_z, sum_v = tl.zeros((WIDTH, ), tl.float32), tl.zeros((WIDTH, ), tl.float32)
    weighted_z, weighted_v = tl.zeros((WIDTH, ), tl.float32), tl.zeros((WIDTH, ), tl.float32)
    for tile in range(split * tiles, split * tiles + tiles):
        p = tile * WIDTH + tl.arange(0, WIDTH)
        counts = tl.load(valid + n * positions + p, mask=p < positions, other=0) != 0
        if UPSAMPLES:
            x, y = p % out_width, p // out_width
            z = _interpolated(student, x, y, z_upper, z_lower, z_row_share, z_left, z_right, z_share, z_row,
                              z_column, counts)
            v = _interpolated(teacher, x, y, v_upper, v_lower, v_row_share, v_left, v_right, v_share, v_row,
                              v_column, counts)
        else:
            z = tl.load(student + p * z_column, mask=counts, other=0).to(tl.float32)
            v = tl.load(teacher + p * v_column, mask=counts, other=0).to(tl.float32)
        z, v = tl.where(counts, z, away), tl.where(counts, v, away)
        new_z, new_v = tl.maximum(lead_z, z), tl.maximum(lead_v, v)
        fall_z, fall_v = exp2((lead_z - new_z) * bits), exp2((lead_v - new_v) * bits)
        q, p_v = exp2((z - new_z) * bits), exp2((v - new_v) * bits)
        sum_z, sum_v = sum_z * fall_z + q, sum_v * fall_v + p_v
        if WITH_WEIGHT:
            factor = tl.load(weight + n * positions + p, mask=counts, other=0)
            weighted_z, weighted_v = weighted_z * fall_z + factor * q, weighted_v * fall_v + factor * p_v
        lead_z, lead_v = new_z, new_v
    top_z, top_v = tl.max(lead_z, 0), tl.max(lead_v, 0)
    fall_z, fall_v = exp2((lead_z - top_z) * bits), exp2((lead_v - top_v) * bits)
    parts += (n * _SUMS * SPLITS + split) * channels + c
    step = SPLITS * channels
    tl.store(parts, top_z)
    tl.store(parts + step, tl.sum(sum_z * fall_z, 0))
    tl.store(parts + 2 * step, tl.sum(weighted_z * fall_z, 0))
    tl.store(parts + 3 * step, top_v)
    tl.store(parts + 4 * step, tl.sum(sum_v * fall_v, 0))
    tl.store(parts + 5 * step, tl.sum(weighted_v * fall_v, 0))


@triton.jit
def _slopes_kernel(student, teacher, gradient, valid, weight, parts, scale, sums, positions, channels, tiles, z_image,
                   z_channel, z_position, v_image, v_channel, v_position, temperature, WITH_WEIGHT: tl.constexpr,
                   WITH_GRADIENT: tl.constexpr, SPLITS: tl.constexpr, WIDTH: tl.constexpr):
    """One part of one channel: its sum of losses, and its gradient."""
    channel, split = tl.program_id(0) // SPLITS, tl.program_id(0) % SPLITS
    n, c = (channel // channels).to(tl.int64), channel % channels
    student += n * z_image + c * z_channel.to(tl.int64)
    teacher += n * v_image + c * v_channel.to(tl.int64)
    gradient += channel.to(tl.int64) * positions
    lead_z, per_z, lead_v, per_v, shift, pull = statistics_of(parts, n, c, c < channels, channels, temperature, SPLITS)
    of_all = tl.load(scale)
    total = tl.zeros((WIDTH, ), tl.float64)
    for tile in range(split * tiles, split * tiles + tiles):
        p = tile * WIDTH + tl.arange(0, WIDTH)
        exists = p < positions
        counts = tl.load(valid + n * positions + p, mask=exists, other=0) != 0
        factor = tl.where(counts, of_all, 0.0)
        if WITH_WEIGHT:
            factor *= tl.load(weight + n * positions + p, mask=counts, other=0)
        z = tl.load(student + p * z_position, mask=counts, other=0).to(tl.float32)
        v = tl.load(teacher + p * v_position, mask=counts, other=0).to(tl.float32)
        loss, g = channel_wise_tile(z, v, counts, factor, of_all * pull, lead_z, per_z, lead_v, per_v, shift,
                                    temperature)
        total += loss.to(tl.float64)
        if WITH_GRADIENT:
            tl.store(gradient + p, g.to(gradient.dtype.element_ty), mask=exists)
    tl.store(sums + tl.program_id(0), total_loss(total))


def _positions_fastest(logits: Tensor) -> Tensor:
    return logits if logits.stride(-1) == 1 else logits.contiguous()


def loss_and_gradient(student: Tensor | Upsampled, teacher: Tensor | Upsampled, *, valid: Tensor,
                      weight: Tensor | None, scale: Tensor, settings: Settings,
                      with_gradient: bool) -> tuple[Tensor, Tensor | None]:
    """T * scale * the divergences of all channels, weighted and summed; and the gradient.

    Args:
        student: (N, C, P) float32, bfloat16 or float16 logits; or upsampled from (N, C, h, w).
        teacher: likewise, of the same kind.
        valid: (N, P) contiguous bool.
        weight: (N, P) contiguous float32, or None.
        scale: float32 scalar, factor of T times the gradient of the divergences.
        settings: see :class:`.tile.Settings`.
        with_gradient: whether the gradient is wanted.

    Returns:
        A float64 scalar, and the gradient as the kernels of the other losses return it.
    """
    number, channels, positions = *student.shape[:2], valid.shape[1]
    splits = min(_MOST_SPLITS, triton.next_power_of_2(triton.cdiv(positions, 2 * _WIDTH)))
    tiles = triton.cdiv(triton.cdiv(positions, _WIDTH), splits)
    parts = torch.empty(number, SUMS, splits, channels, dtype=torch.float32, device=valid.device)
    temperature, upsamples = settings.numbers[0], isinstance(student, Upsampled)
    tables, maps = 12 * (scale, ), []
    if upsamples:
        tables = [table for each in (student, teacher) for axis in (0, 1)
                  for table in upsampling.places_of(each.logits.shape[2 + axis], each.size[axis], each.align_corners,
                                                    valid.device)]
        maps, strides = [student.logits, teacher.logits], [each.logits.stride() for each in (student, teacher)]
    else:
        maps = [_positions_fastest(each) for each in (student, teacher)]
        strides = [(*each.stride()[:2], 0, each.stride(2)) for each in maps]
    common = dict(WITH_WEIGHT=weight is not None, SPLITS=splits, WIDTH=_WIDTH, num_warps=4)
    flags, factors = valid.view(torch.uint8), scale if weight is None else weight
    _sums_kernel[(number * channels * splits, )](
        *maps, flags, factors, parts, *tables, positions, student.shape[-1], channels, tiles, *strides[0], *strides[1],
        temperature, UPSAMPLES=upsamples, **common)
    if upsamples:
        shape = number, *student.size
        value, gradient, _ = upsampling.loss_and_gradient(
            *maps, tuple(student.size), (student.align_corners, teacher.align_corners), valid=valid.view(shape),
            weight=None if weight is None else weight.view(shape), class_weight=None, scale=scale, target=None,
            rank=None, given=None, w_within=parts, settings=settings, with_gradient=with_gradient)
        return value, gradient
    kind = torch.float32 if student.dtype == torch.float16 else student.dtype
    gradient = torch.empty(number, channels, positions, dtype=kind, device=valid.device) if with_gradient else None
    sums = torch.empty(number * channels * splits, dtype=torch.float64, device=valid.device)
    _slopes_kernel[(number * channels * splits, )](
        *maps, parts if gradient is None else gradient, flags, factors, parts, scale, sums, positions, channels, tiles,
        *strides[0][:2], strides[0][3], *strides[1][:2], strides[1][3], temperature, WITH_GRADIENT=with_gradient,
        **common)
    return sums.sum(), gradient

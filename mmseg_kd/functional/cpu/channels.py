"""CWD: each channel's distribution over the positions of an image.

A channel is visited twice: for the sums that its distributions are divided by, and for the value and the gradient. It
needs no other channel, so a thread does both while the channel is in the caches. It goes piece by piece, a *chunk* of
(rows, lanes) positions at a time: a stretch of the map, or, where logits are upsampled, one row of the outputs, whose
rows are the phases of :mod:`.upsampling`. Sums are kept lane by lane, so that their order is the same for any number of
threads.
"""
import math

import numpy as np
import torch
from torch import Tensor

from ..upsampled import Upsampled, leaf_of
from .arithmetic import exp, jit, kl_term
from .block import in_parallel
from .upsampling import Geometry, add_transposed_row, geometry, small_row

__all__ = ['loss_and_gradient']

_f = np.float32
_ZERO, _ONE = _f(0), _f(1)
#: Positions of a chunk at full size: (rows, lanes).
_ROWS, _LANES = 16, 256
#: Where a position is that does not count, in units of T or of 1.
_AWAY = -1e30
_NO_WEIGHT = np.zeros((1, 1), np.float32)


@jit
def _largest(x, lanes):
    """The largest of (R, L) values; ``lanes`` (L,) is scratch."""
    lanes[:] = x[0]
    for r in range(1, x.shape[0]):
        for b in range(lanes.shape[0]):
            lanes[b] = x[r, b] if x[r, b] > lanes[b] else lanes[b]
    largest = lanes[0]
    for b in range(1, lanes.shape[0]):
        largest = lanes[b] if lanes[b] > largest else largest
    return largest


@jit
def _rises(x, lead):
    """Whether any of (R, L) values is above ``lead``."""
    above = 0
    for r in range(x.shape[0]):
        for b in range(x.shape[1]):
            above += 1 if x[r, b] > lead else 0
    return above > 0


@jit
def _add_exponentials(x, factor, with_weight, lead, per_t, part, sums):
    """Add e^((x - lead) / T) of a chunk to ``sums[0]`` (L,), and with the factors to ``sums[1]``, both float64.

    Args:
        x: (R, L) logits, far below where they do not count.
        factor: (R, L) weights.
        lead: no logit is above it.
        part: (2, L) float32 scratch.
    """
    part[:] = 0
    for r in range(x.shape[0]):
        for b in range(x.shape[1]):
            # The untouched logit joins, so that one that is not a number is not lost in exp.
            part[0, b] += exp((x[r, b] - lead) * per_t) + _ZERO * x[r, b]
        if with_weight:
            for b in range(x.shape[1]):
                part[1, b] += factor[r, b] * exp((x[r, b] - lead) * per_t)
    for b in range(x.shape[1]):
        sums[0, b] += part[0, b]
    if with_weight:
        for b in range(x.shape[1]):
            sums[1, b] += part[1, b]


@jit
def _add_chunk(x, factor, with_weight, lead, per_t, lanes, part, sums):
    """:func:`_add_exponentials` with a lead that rises where it must, and the sums with it; returns the lead."""
    if _rises(x, lead):
        risen = _largest(x, lanes)
        sums *= math.exp((float(lead) - float(risen)) * per_t)
        lead = risen
    _add_exponentials(x, factor, with_weight, lead, per_t, part, sums)
    return lead


@jit
def _slopes_of_chunk(z, v, factor, with_weight, lead_z, lead_v, per_t, per_z, per_v, shift, pull, scale, total):
    """(R, L) ``z`` becomes scale * (w (q - p) + q pull), and w (p d - p + q) is added to ``total`` (L,); v is scratch.

    With q and p the distributions of student and teacher, d = log(p / q), w the factors.

    Args:
        lead_z, lead_v, per_z, per_v: of each logit, q = e^((z - lead) / T) * per.
        shift: d = (v - lead_v - z + lead_z) / T - shift.
        pull: sum of w (p - q) over the channel, 0 without weights.
    """
    d = np.empty(z.shape[1], np.float32)
    for r in range(z.shape[0]):
        for b in range(z.shape[1]):
            z[r, b] -= lead_z
        for b in range(z.shape[1]):
            v[r, b] -= lead_v
        for b in range(z.shape[1]):
            d[b] = (v[r, b] - z[r, b]) * per_t - shift
        for b in range(z.shape[1]):
            z[r, b] = exp(z[r, b] * per_t) * per_z
        for b in range(z.shape[1]):
            v[r, b] = exp(v[r, b] * per_t) * per_v
        if with_weight:
            for b in range(z.shape[1]):
                total[b] += factor[r, b] * kl_term(v[r, b], z[r, b], d[b])
            for b in range(z.shape[1]):
                z[r, b] = scale * ((z[r, b] - v[r, b]) * factor[r, b] + z[r, b] * pull)
        else:
            for b in range(z.shape[1]):
                total[b] += kl_term(v[r, b], z[r, b], d[b])
            for b in range(z.shape[1]):
                z[r, b] = scale * (z[r, b] - v[r, b])
        for b in range(z.shape[1]):
            z[r, b] = z[r, b] if factor[r, b] != _ZERO else _ZERO


@jit
def _put_away(x, factor, away):
    """Put the logits that do not count where their probability is 0, and finite."""
    for r in range(x.shape[0]):
        for b in range(x.shape[1]):
            x[r, b] = x[r, b] if factor[r, b] != _ZERO else away


@jit
def _factors(factor, valid, weight, with_weight):
    """Weights of positions that count, 0 for the others, whose weights may be anything; whether any counts."""
    counts = 0
    for b in range(valid.shape[0]):
        factor[b] = _ONE if valid[b] else _ZERO
    for b in range(valid.shape[0]):
        counts += 1 if valid[b] else 0
    if with_weight:
        for b in range(valid.shape[0]):
            factor[b] = weight[b] if valid[b] else _ZERO
    factor[valid.shape[0]:] = 0
    return counts > 0


@jit
def _of_sums(sums_z, sums_v):
    """1 / sum of student and teacher, log(sum_v / sum_z), and the pull; from (2, L) sums."""
    sum_z, sum_v = sums_z[0].sum(), sums_v[0].sum()
    return (_f(1 / sum_z), _f(1 / sum_v), _f(math.log(sum_v / sum_z)),
            _f(sums_v[1].sum() / sum_v - sums_z[1].sum() / sum_z))


@jit
def _channels(student, teacher, gradient, valid, weight, with_weight, temperature, scale, values, first, last):
    """Channels first .. last - 1 of (N, C, P) logits of one resolution."""
    _, channels, positions = student.shape
    per_t, away = _ONE / temperature, _f(_AWAY) * min(temperature, _ONE)
    size = _ROWS * _LANES
    flat_z, flat_v, flat_factor = np.zeros(size, np.float32), np.zeros(size, np.float32), np.zeros(size, np.float32)
    all_z, all_v, all_factor = (flat_z.reshape(_ROWS, _LANES), flat_v.reshape(_ROWS, _LANES),
                                flat_factor.reshape(_ROWS, _LANES))
    lanes, part = np.zeros(_LANES, np.float32), np.zeros((2, _LANES), np.float32)
    sums_z, sums_v, total = np.zeros((2, _LANES)), np.zeros((2, _LANES)), np.zeros(_LANES)
    for index in range(first, last):
        n, c = index // channels, index % channels
        sums_z[:] = 0
        sums_v[:] = 0
        total[:] = 0
        lead_z, lead_v = away, away
        per_z, per_v, shift, pull = _ZERO, _ZERO, _ZERO, _ZERO
        for visit in range(2):
            if visit == 1:
                per_z, per_v, shift, pull = _of_sums(sums_z, sums_v)
            for start in range(0, positions, size):
                stop = min(start + size, positions)
                number = stop - start
                rows = (number + _LANES - 1) // _LANES
                if not _factors(flat_factor, valid[n, start:stop], weight[n, start:stop] if with_weight else weight[0],
                                with_weight):
                    gradient[n, c, start:stop] = 0
                    continue
                flat_z[:number] = student[n, c, start:stop]
                flat_v[:number] = teacher[n, c, start:stop]
                z, v, factor = all_z[:rows], all_v[:rows], all_factor[:rows]
                _put_away(z, factor, away)
                _put_away(v, factor, away)
                if visit == 0:
                    lead_z = _add_chunk(z, factor, with_weight, lead_z, per_t, lanes, part, sums_z)
                    lead_v = _add_chunk(v, factor, with_weight, lead_v, per_t, lanes, part, sums_v)
                else:
                    _slopes_of_chunk(z, v, factor, with_weight, lead_z, lead_v, per_t, per_z, per_v, shift, pull, scale,
                                     total)
                    gradient[n, c, start:stop] = flat_z[:number]
        values[index] = total.sum()


@jit
def _spread(out, row, share):
    """A row of outputs (phases, w + 1) from a row of the small map (w + 2,)."""
    for r in range(out.shape[0]):
        for lane in range(out.shape[1]):
            out[r, lane] = row[lane] + share[r, lane] * (row[lane + 1] - row[lane])


@jit
def _spread_other(out, row, output, columns):
    """As :func:`_spread` from a row of another map, with the outputs at the student's places."""
    for r in range(out.shape[0]):
        for lane in range(out.shape[1]):
            x = max(output[r, lane], 0)
            j = columns.cell[x] + 1
            out[r, lane] = row[j] + columns.share[x] * (row[j + 1] - row[j])


@jit
def _gather(row, slopes, share):
    """Transpose of :func:`_spread`: add (phases, w + 1) to ``row`` (w + 2,)."""
    for r in range(slopes.shape[0]):
        for lane in range(slopes.shape[1]):
            row[lane] += slopes[r, lane] * (_ONE - share[r, lane])
        for lane in range(slopes.shape[1]):
            row[lane + 1] += slopes[r, lane] * share[r, lane]


@jit
def _in_phases(valid, weight, with_weight, output, counts, weights):
    """Which outputs count, and their weights, in the order of the chunks: (N, H W) to (N, H, phases (w + 1))."""
    number, height, _ = counts.shape
    phases, lanes = output.shape
    width = valid.shape[1] // height
    for n in range(number):
        for y in range(height):
            for r in range(phases):
                for lane in range(lanes):
                    x = output[r, lane]
                    counts[n, y, r * lanes + lane] = x >= 0 and valid[n, y * width + max(x, 0)]
                    if with_weight:
                        weights[n, y, r * lanes + lane] = weight[n, y * width + max(x, 0)]


@jit
def _upsampled_channels(student, teacher, gradient, counts, weights, with_weight, temperature, scale, values, place,
                        first, last):
    """Channels first .. last - 1 of (N, C, h, w) logits that are upsampled; outputs are in the order of the chunks."""
    _, channels, height, width = student.shape
    phases, lanes = place.columns.output.shape
    per_t, away = _ONE / temperature, _f(_AWAY) * min(temperature, _ONE)
    row_z, row_v = np.zeros((1, width + 2), np.float32), np.zeros((1, teacher.shape[3] + 2), np.float32)
    row_gradient = np.zeros((1, width + 2), np.float32)
    rows = np.zeros((1, height + 2, width), np.float32)
    z, v = np.zeros((phases, lanes), np.float32), np.zeros((phases, lanes), np.float32)
    flat_factor = np.zeros(phases * lanes, np.float32)
    factor = flat_factor.reshape(phases, lanes)
    top, part = np.zeros(lanes, np.float32), np.zeros((2, lanes), np.float32)
    sums_z, sums_v, total = np.zeros((2, lanes)), np.zeros((2, lanes)), np.zeros(lanes)
    for index in range(first, last):
        n, c = index // channels, index % channels
        sums_z[:] = 0
        sums_v[:] = 0
        total[:] = 0
        rows[:] = 0
        lead_z, lead_v = away, away
        per_z, per_v, shift, pull = _ZERO, _ZERO, _ZERO, _ZERO
        for visit in range(2):
            if visit == 1:
                per_z, per_v, shift, pull = _of_sums(sums_z, sums_v)
            for y in range(counts.shape[1]):
                if not _factors(flat_factor, counts[n, y], weights[n, y] if with_weight else weights[0, 0],
                                with_weight):
                    continue
                small_row(row_z, student[n, c:c + 1], place.rows.cell[y], place.rows.share[y])
                small_row(row_v, teacher[n, c:c + 1], place.teacher_rows.cell[y], place.teacher_rows.share[y])
                _spread(z, row_z[0], place.columns.share)
                if place.alike:
                    _spread(v, row_v[0], place.columns.share)
                else:
                    _spread_other(v, row_v[0], place.columns.output, place.teacher_columns)
                _put_away(z, factor, away)
                _put_away(v, factor, away)
                if visit == 0:
                    lead_z = _add_chunk(z, factor, with_weight, lead_z, per_t, top, part, sums_z)
                    lead_v = _add_chunk(v, factor, with_weight, lead_v, per_t, top, part, sums_v)
                else:
                    _slopes_of_chunk(z, v, factor, with_weight, lead_z, lead_v, per_t, per_z, per_v, shift, pull, scale,
                                     total)
                    _gather(row_gradient[0], z, place.columns.share)
                    add_transposed_row(rows, row_gradient, place.rows.cell[y] + 1, place.rows.share[y])
        # Rows beyond the border are repetitions of it.
        gradient[n, c] = rows[0, 1:height + 1]
        for j in range(width):
            gradient[n, c, 0, j] += rows[0, 0, j]
        for j in range(width):
            gradient[n, c, height - 1, j] += rows[0, height + 1, j]
        values[index] = total.sum()


def loss_and_gradient(student: Tensor | Upsampled, teacher: Tensor | Upsampled, *, valid: Tensor,
                      weight: Tensor | None, temperature: float, scale: float) -> tuple[Tensor, Tensor]:
    """T * scale * the divergences of all channels, weighted and summed; and the gradient.

    Args:
        student: (N, C, P) contiguous float32 logits; or upsampled from contiguous (N, C, h, w).
        teacher: likewise, of the same kind.
        valid: (N, P) bool.
        weight: (N, P) float32, or None.
        temperature: T.
        scale: factor of T times the gradient of the divergences.

    Returns:
        A float64 scalar, and float32 of the shape of the student's own logits.
    """
    leaf = leaf_of(student)
    gradient = torch.empty_like(leaf)
    number, channels = leaf.shape[:2]
    values = np.zeros(number * channels)
    arrays = [leaf.numpy(), leaf_of(teacher).numpy(), gradient.numpy()]
    counts, weights = valid.numpy(), _NO_WEIGHT if weight is None else weight.numpy()
    settings = weight is not None, np.float32(temperature), np.float32(scale)
    if isinstance(student, Upsampled):
        place = geometry(tuple(leaf.shape[2:]), tuple(teacher.logits.shape[2:]), tuple(student.size),
                         student.align_corners, teacher.align_corners)
        counts, weights = _maps_in_phases(counts, weights, weight is not None, student.size[0], place)

        def work(first: int, last: int) -> None:
            _upsampled_channels(*arrays, counts, weights, *settings, values, place, first, last)
    else:

        def work(first: int, last: int) -> None:
            _channels(*arrays, counts, weights, *settings, values, first, last)

    in_parallel(work, number * channels)
    return torch.tensor(values.sum() * temperature * scale), gradient


def _maps_in_phases(valid: np.ndarray, weight: np.ndarray, with_weight: bool, height: int,
                    place: Geometry) -> tuple[np.ndarray, np.ndarray]:
    shape = len(valid), height, place.columns.output.size
    counts = np.empty(shape, np.bool_)
    weights = np.empty(shape if with_weight else (1, 1, 1), np.float32)

    def work(first: int, last: int) -> None:
        some = slice(first, last)
        _in_phases(valid[some], weight[some] if with_weight else weight, with_weight, place.columns.output,
                   counts[some], weights[some] if with_weight else weights)

    in_parallel(work, len(valid))
    return counts, weights

"""A loss of small logits against full-resolution labels: bilinear upsampling happens inside, row by row.

It is arranged for vector instructions. Along a row, output x lies in the cell between columns j and j + 1 of the small
map, j = -1 .. w - 1 (the border columns are repeated outside). The r-th outputs of all cells, for one r, form a
*phase*: its lanes read neighbouring columns, so that interpolation and its transpose are plain vector loads and sums,
whatever the ratio of the sizes.
"""
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..kinds import COUPLED, CROSS_ENTROPY, GIVEN, RANK
from ..upsampled import Axis, axis
from .arithmetic import jit
from .block import Settings, block_loss, in_parallel
from .grouped import fill_groups

__all__ = ['Geometry', 'add_transposed_row', 'geometry', 'loss_and_gradient', 'small_row']

#: Rows of cells that one thread does in one go; the gradient of the row where two bands meet is kept twice.
BAND = 8
_NO_MAP, _NO_LABELS, _NO_RANK = (np.zeros((1, 1), dtype) for dtype in (np.float32, np.int64, np.int32))
_NO_GROUPS = np.zeros((1, 1, 1, 1), np.int8)


class _Phases(NamedTuple):
    """The outputs of a row by phase; lane l of a phase is cell l - 1."""

    output: np.ndarray  #: (phases, small + 1) int32, the output x, or -1
    share: np.ndarray  #: (phases, small + 1) float32


def _phases(row: Axis, small: int) -> _Phases:
    """Sort the outputs of a row into phases."""
    order = np.arange(len(row.cell)) - np.searchsorted(row.cell, row.cell)
    shape = (order.max() + 1, small + 1)
    output, share = np.full(shape, -1, np.int32), np.zeros(shape, np.float32)
    output[order, row.cell + 1] = np.arange(len(row.cell))
    share[order, row.cell + 1] = row.share
    return _Phases(output, share)


@jit
def small_row(row, logits, cell, share):
    """Row of the small map between rows ``cell`` and ``cell + 1``, (C, w + 2) with its borders repeated."""
    num_classes, height, width = logits.shape
    upper, lower = max(cell, 0), min(cell + 1, height - 1)
    rest = np.float32(1) - share
    for c in range(num_classes):
        for j in range(width):
            row[c, j + 1] = rest * logits[c, upper, j] + share * logits[c, lower, j]
        row[c, 0] = row[c, 1]
        row[c, width + 1] = row[c, width]


@jit
def _phase_of_row(out, start, row, share):
    """Lanes ``start`` and following of ``out`` (C, B) from ``row`` (C, w + 2), at ``share`` (w + 1,) of their cells."""
    rest = np.float32(1) - share
    for c in range(out.shape[0]):
        for lane in range(share.shape[0]):
            out[c, start + lane] = row[c, lane] * rest[lane]
        for lane in range(share.shape[0]):
            out[c, start + lane] += row[c, lane + 1] * share[lane]


@jit
def _add_transposed_phase(row, gradient, start, share):
    """Transpose of :func:`_phase_of_row`: add lanes of ``gradient`` (C, B) to ``row`` (C, w + 2)."""
    rest = np.float32(1) - share
    for c in range(row.shape[0]):
        for lane in range(share.shape[0]):
            row[c, lane] += gradient[c, start + lane] * rest[lane]
        for lane in range(share.shape[0]):
            row[c, lane + 1] += gradient[c, start + lane] * share[lane]


@jit
def _phase_of_other_row(out, start, row, output, columns):
    """As :func:`_phase_of_row` from a row of another map: lane l is ``output[l]``, in ``columns`` of that map."""
    for c in range(out.shape[0]):
        for lane in range(output.shape[0]):
            x = max(output[lane], 0)
            j = columns.cell[x] + 1
            out[c, start + lane] = row[c, j] + columns.share[x] * (row[c, j + 1] - row[c, j])


@jit
def add_transposed_row(rows, row, upper, share):
    """Transpose of :func:`small_row`: add ``row`` (C, w + 2) to two rows of (C, R, w), ``upper`` and the next."""
    # The row is left empty for the next one.
    rest = np.float32(1) - share
    num_classes, _, width = rows.shape
    for c in range(num_classes):
        row[c, 1] += row[c, 0]
        row[c, width] += row[c, width + 1]
        for j in range(width):
            rows[c, upper, j] += rest * row[c, j + 1]
        for j in range(width):
            rows[c, upper + 1, j] += share * row[c, j + 1]
    row[:] = 0


class Geometry(NamedTuple):
    """How the outputs lie in the small maps of student and teacher."""

    rows: Axis
    columns: _Phases
    first_row: np.ndarray  #: (bands + 1,) int32, the output row at which each band begins
    teacher_rows: Axis
    teacher_columns: Axis
    alike: bool  #: the teacher's map lies as the student's
    lanes: int  #: lanes of a phase in a block
    together: int  #: phases in a block


@lru_cache(maxsize=32)
def geometry(student: tuple[int, int], teacher: tuple[int, int], size: tuple[int, int], align_corners: bool,
             teacher_align_corners: bool) -> Geometry:
    """For (h, w) of both small maps and (H, W) of the labels."""
    rows, columns = axis(student[0], size[0], align_corners), axis(student[1], size[1], align_corners)
    bands = -(-(student[0] + 1) // BAND)
    lanes = -(-(student[1] + 1) // 16) * 16
    return Geometry(
        rows=rows,
        columns=_phases(columns, student[1]),
        first_row=np.searchsorted(rows.cell, BAND * np.arange(bands + 1) - 1).astype(np.int32),
        teacher_rows=axis(teacher[0], size[0], teacher_align_corners),
        teacher_columns=axis(teacher[1], size[1], teacher_align_corners),
        alike=student == teacher and align_corners == teacher_align_corners,
        lanes=lanes,
        together=max(1, 96 // lanes))


@jit
def _bands(student, teacher, shared, gradient, valid, weight, class_weight, scale, target, rank, given, sums,
           figures, first, last, settings, place, out_width, with_weight, with_target, with_rank):
    """Bands first .. last - 1 of all images: their loss, and how many positions are classified rightly."""
    _, num_classes, height, width = student.shape
    bands, num_phases = place.first_row.shape[0] - 1, place.columns.output.shape[0]
    block = place.lanes * place.together
    with_teacher = settings.kind != CROSS_ENTROPY
    row_z = np.zeros((num_classes, width + 2), np.float32)
    row_v = np.zeros((num_classes, teacher.shape[3] + 2), np.float32)
    row_gradient = np.zeros((num_classes, width + 2), np.float32)
    z, v = np.zeros((num_classes, block), np.float32), np.zeros((num_classes, block), np.float32)
    group, no_draws = np.zeros((num_classes, block), np.int32), np.zeros((1, 1), np.float32)
    labels, places = np.zeros(block, np.int64), np.zeros(block, np.int64)
    boundaries = np.ones((settings.boundaries.shape[0], block), np.int32)
    if settings.kind == RANK:
        for i in range(settings.boundaries.shape[0]):
            boundaries[i, :] = settings.boundaries[i]
    factor, loss = np.zeros(block, np.float32), np.zeros(block, np.float32)
    # The rows of the small map that a band touches: from its first cell's upper row to its last cell's lower one.
    rows = np.zeros((num_classes, BAND + 1, width), np.float32)
    for index in range(first, last):
        n, band = index // bands, index % bands
        top = band * BAND - 1
        rows[:] = 0
        total, correct = 0., 0
        for y in range(place.first_row[band], place.first_row[band + 1]):
            small_row(row_z, student[n], place.rows.cell[y], place.rows.share[y])
            if with_teacher:
                small_row(row_v, teacher[n], place.teacher_rows.cell[y], place.teacher_rows.share[y])
            for phase in range(0, num_phases, place.together):
                some = min(place.together, num_phases - phase)
                factor[:] = 0
                counts = False
                if with_target:
                    labels[:] = -1
                for p in range(some):
                    output = place.columns.output[phase + p]
                    for lane in range(width + 1):
                        x = output[lane]
                        if x < 0 or not valid[n, y * out_width + x]:
                            continue
                        at = p * place.lanes + lane
                        counts = True
                        places[at] = y * out_width + x
                        factor[at] = scale * (weight[n, y * out_width + x] if with_weight else np.float32(1))
                        if with_target:
                            labels[at] = target[n, y * out_width + x]
                            factor[at] *= class_weight[labels[at]]
                        if with_rank:
                            boundaries[0, at] = rank[n, y * out_width + x]
                if not counts:
                    continue
                for p in range(some):
                    start = p * place.lanes
                    _phase_of_row(z, start, row_z, place.columns.share[phase + p])
                    if not with_teacher:
                        continue
                    if place.alike:
                        _phase_of_row(v, start, row_v, place.columns.share[phase + p])
                    else:
                        _phase_of_other_row(v, start, row_v, place.columns.output[phase + p], place.teacher_columns)
                if settings.kind == GIVEN:
                    fill_groups(group, given, n, labels, places)
                correct += block_loss(z, v, group, labels, boundaries, no_draws, settings, factor, loss,
                                      figures[index if settings.kind == COUPLED else 0])
                if settings.sums_only:
                    continue
                for b in range(block):
                    total += loss[b]
                for p in range(some):
                    _add_transposed_phase(row_gradient, z, p * place.lanes, place.columns.share[phase + p])
            if settings.sums_only:
                continue
            add_transposed_row(rows, row_gradient, place.rows.cell[y] - top, place.rows.share[y])
        sums[index, 0], sums[index, 1] = total, correct
        if settings.sums_only:
            continue
        # Rows beyond the border are repetitions of it. The last row is the next band's first: it waits.
        for r in range(BAND):
            row = min(max(top + r, 0), height - 1)
            for c in range(num_classes):
                for j in range(width):
                    gradient[n, c, row, j] += rows[c, r, j]
        shared[n, band] = rows[:, BAND]


def loss_and_gradient(student: Tensor, teacher: Tensor | None, size: tuple[int, int],
                      align_corners: tuple[bool, bool], *, valid: Tensor, weight: Tensor | None,
                      class_weight: Tensor | None, scale: float, target: Tensor | None, rank: Tensor | None,
                      given: Tensor | None, settings: Settings) -> tuple[Tensor, Tensor, int, np.ndarray]:
    """Sum of scale * weight * loss over valid positions, and its gradient with respect to the small logits.

    Args:
        student: (N, C, h, w) contiguous float32 logits.
        teacher: (N, C, h', w') likewise; None for cross-entropy.
        size: (H, W) of the labels.
        align_corners: of student and teacher.
        valid: (N, H W) bool.
        weight: (N, H W) float32, or None.
        class_weight: (C,) float32 factor by label, or None.
        scale: factor of all.
        target: (N, H W) int64 labels where the loss needs them.
        rank: (N, H W) int32 boundary of each position where it is not the same for all.
        given: (N or 1, labels or 1, C, H W or 1) int8 groups where the machine code does not form them.
        settings: see :class:`.block.Settings`.

    Returns:
        A float64 scalar, (N, C, h, w) float32, and for cross-entropy how many valid positions are classified rightly;
        and the figures of the coupling term, (bands, 5) float64.
    """
    num_images, num_classes, height, width = student.shape
    teacher = student if teacher is None else teacher
    place = geometry((height, width), tuple(teacher.shape[2:]), tuple(size), *align_corners)
    bands = len(place.first_row) - 1
    gradient = torch.zeros_like(student)
    shared = student.new_empty(num_images, bands, num_classes, width)
    sums = np.zeros((num_images * bands, 2))
    figures = np.zeros((num_images * bands if settings.kind == COUPLED else 1, 5))
    class_weights = np.ones(num_classes, np.float32) if class_weight is None else class_weight.numpy()
    weights = _NO_MAP if weight is None else weight.numpy()
    labels = _NO_LABELS if target is None else target.numpy()
    ranks = _NO_RANK if rank is None else rank.numpy()
    groups = _NO_GROUPS if given is None else given.numpy()

    def work(first: int, last: int) -> None:
        _bands(student.numpy(), teacher.numpy(), shared.numpy(), gradient.numpy(), valid.numpy(), weights,
               class_weights, np.float32(scale), labels, ranks, groups, sums, figures, first, last, settings,
               place, size[1], weight is not None, target is not None, rank is not None)

    in_parallel(work, num_images * bands)
    if settings.sums_only:
        return torch.tensor(0.), gradient, 0, figures
    for band in range(bands):
        gradient[:, :, min((band + 1) * BAND - 1, height - 1)] += shared[:, band]
    return torch.tensor(sums[:, 0].sum()), gradient, int(sums[:, 1].sum()), figures

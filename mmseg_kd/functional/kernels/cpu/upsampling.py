"""A loss of small logits against full-resolution labels: upsampling happens inside, row by row."""
from functools import lru_cache
from typing import NamedTuple, Optional, Tuple

import numpy as np
import torch
from torch import Tensor

from ..axis import Axis, axis
from .arithmetic import jit
from .block import CROSS_ENTROPY, Settings, block_loss
from .groups import RANK
from .interpolation import (
    Phases,
    add_transposed_phase,
    add_transposed_row,
    phase_of_other_row,
    phase_of_row,
    phases,
    small_row,
)
from .parallel import in_parallel

__all__ = ['Geometry', 'geometry', 'loss_and_gradient']

#: Rows of cells that one thread does in one go; the gradient of the row where two bands meet is kept twice.
BAND = 8
_NO_MAP, _NO_LABELS, _NO_RANK = (np.zeros((1, 1, 1), dtype) for dtype in (np.float32, np.int64, np.int32))


class Geometry(NamedTuple):
    """How the outputs lie in the small maps of student and teacher."""

    rows: Axis
    columns: Phases
    first_row: np.ndarray  #: (bands + 1,) int32, the output row at which each band begins
    teacher_rows: Axis
    teacher_columns: Axis
    alike: bool  #: the teacher's map lies as the student's
    lanes: int  #: lanes of a phase in a block
    together: int  #: phases in a block


@lru_cache(maxsize=32)
def geometry(student: Tuple[int, int], teacher: Tuple[int, int], size: Tuple[int, int], align_corners: bool,
             teacher_align_corners: bool) -> Geometry:
    """For (h, w) of both small maps and (H, W) of the labels."""
    rows, columns = axis(student[0], size[0], align_corners), axis(student[1], size[1], align_corners)
    bands = -(-(student[0] + 1) // BAND)
    lanes = -(-(student[1] + 1) // 16) * 16
    return Geometry(
        rows=rows,
        columns=phases(columns, student[1]),
        first_row=np.searchsorted(rows.cell, BAND * np.arange(bands + 1) - 1).astype(np.int32),
        teacher_rows=axis(teacher[0], size[0], teacher_align_corners),
        teacher_columns=axis(teacher[1], size[1], teacher_align_corners),
        alike=student == teacher and align_corners == teacher_align_corners,
        lanes=lanes,
        together=max(1, 96 // lanes))


@jit
def _bands(student, teacher, shared, gradient, valid, weight, class_weight, scale, target, rank, sums, first, last,
           settings, place, with_weight, with_target, with_rank):
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
    labels = np.zeros(block, np.int64)
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
                for p in range(some):
                    output = place.columns.output[phase + p]
                    for lane in range(width + 1):
                        x = output[lane]
                        if x < 0 or not valid[n, y, x]:
                            continue
                        at = p * place.lanes + lane
                        factor[at] = scale * (weight[n, y, x] if with_weight else np.float32(1))
                        if with_target:
                            labels[at] = target[n, y, x]
                            factor[at] *= class_weight[labels[at]]
                        if with_rank:
                            boundaries[0, at] = rank[n, y, x]
                if not factor.any():
                    continue
                for p in range(some):
                    start = p * place.lanes
                    phase_of_row(z, start, row_z, place.columns.share[phase + p])
                    if not with_teacher:
                        continue
                    if place.alike:
                        phase_of_row(v, start, row_v, place.columns.share[phase + p])
                    else:
                        phase_of_other_row(v, start, row_v, place.columns.output[phase + p], place.teacher_columns)
                correct += block_loss(z, v, group, labels, boundaries, no_draws, settings, factor, loss)
                for b in range(block):
                    total += loss[b]
                for p in range(some):
                    add_transposed_phase(row_gradient, z, p * place.lanes, place.columns.share[phase + p])
            add_transposed_row(rows, row_gradient, place.rows.cell[y] - top, place.rows.share[y])
        sums[index, 0], sums[index, 1] = total, correct
        # Rows beyond the border are repetitions of it. The last row is the next band's first: it waits.
        for r in range(BAND):
            row = min(max(top + r, 0), height - 1)
            for c in range(num_classes):
                for j in range(width):
                    gradient[n, c, row, j] += rows[c, r, j]
        shared[n, band] = rows[:, BAND]


def loss_and_gradient(student: Tensor, teacher: Optional[Tensor], size: Tuple[int, int],
                      align_corners: Tuple[bool, bool], valid: Tensor, weight: Optional[Tensor],
                      class_weight: Optional[Tensor], scale: float, target: Optional[Tensor], rank: Optional[Tensor],
                      settings: Settings) -> Tuple[Tensor, Tensor, int]:
    """Sum of scale * weight * loss over valid positions, and its gradient with respect to the small logits.

    Args:
        student: (N, C, h, w) contiguous float32 logits.
        teacher: (N, C, h', w') likewise; None for cross-entropy.
        size: (H, W) of the labels.
        align_corners: of student and teacher.
        valid: (N, H, W) bool.
        weight: (N, H, W) float32, or None.
        class_weight: (C,) float32 factor by label, or None.
        scale: factor of all.
        target: (N, H, W) int64 labels where the loss needs them.
        rank: (N, H, W) int32 boundary of each position where it is none for all.
        settings: see :class:`.block.Settings`.

    Returns:
        A float64 scalar, (N, C, h, w) float32, and for cross-entropy how many valid positions are classified rightly.
    """
    num_images, num_classes, height, width = student.shape
    teacher = student if teacher is None else teacher
    place = geometry((height, width), tuple(teacher.shape[2:]), tuple(size), *align_corners)
    bands = len(place.first_row) - 1
    gradient = torch.zeros_like(student)
    shared = student.new_empty(num_images, bands, num_classes, width)
    sums = np.zeros((num_images * bands, 2))
    class_weights = np.ones(num_classes, np.float32) if class_weight is None else class_weight.numpy()
    maps = [absent if tensor is None else tensor.numpy()
            for tensor, absent in ((weight, _NO_MAP), (target, _NO_LABELS), (rank, _NO_RANK))]

    def work(first: int, last: int) -> None:
        _bands(student.numpy(), teacher.numpy(), shared.numpy(), gradient.numpy(), valid.numpy(), maps[0],
               class_weights, np.float32(scale), maps[1], maps[2], sums, first, last, settings, place,
               weight is not None, target is not None, rank is not None)

    in_parallel(work, num_images * bands)
    for band in range(bands):
        gradient[:, :, min((band + 1) * BAND - 1, height - 1)] += shared[:, band]
    return torch.tensor(sums[:, 0].sum()), gradient, int(sums[:, 1].sum())

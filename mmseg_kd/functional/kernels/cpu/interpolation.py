"""Bilinear upsampling arranged for vector instructions.

Along a row, output x lies in the cell between columns j and j + 1 of the small map, j = -1 .. w - 1 (the border columns
are repeated outside). The r-th outputs of all cells, for one r, form a *phase*: its lanes read neighbouring columns, so
that interpolation and its transpose are plain vector loads and sums, whatever the ratio of the sizes.
"""
from typing import NamedTuple

import numpy as np

from ..axis import Axis
from .arithmetic import jit

__all__ = [
    'Phases', 'add_transposed_phase', 'add_transposed_row', 'phase_of_other_row', 'phase_of_row', 'phases', 'small_row'
]


class Phases(NamedTuple):
    """The outputs of a row by phase; lane l of a phase is cell l - 1."""

    output: np.ndarray  #: (phases, small + 1) int32, the output x, or -1
    share: np.ndarray  #: (phases, small + 1) float32


def phases(row: Axis, small: int) -> Phases:
    """Sort the outputs of a row into phases."""
    order = np.arange(len(row.cell)) - np.searchsorted(row.cell, row.cell)
    shape = (order.max() + 1, small + 1)
    output, share = np.full(shape, -1, np.int32), np.zeros(shape, np.float32)
    output[order, row.cell + 1] = np.arange(len(row.cell))
    share[order, row.cell + 1] = row.share
    return Phases(output, share)


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
def phase_of_row(out, start, row, share):
    """Lanes ``start`` and following of ``out`` (C, B) from ``row`` (C, w + 2), at ``share`` (w + 1,) of their cells."""
    rest = np.float32(1) - share
    for c in range(out.shape[0]):
        for lane in range(share.shape[0]):
            out[c, start + lane] = row[c, lane] * rest[lane]
        for lane in range(share.shape[0]):
            out[c, start + lane] += row[c, lane + 1] * share[lane]


@jit
def add_transposed_phase(row, gradient, start, share):
    """Transpose of :func:`phase_of_row`: add lanes of ``gradient`` (C, B) to ``row`` (C, w + 2)."""
    rest = np.float32(1) - share
    for c in range(row.shape[0]):
        for lane in range(share.shape[0]):
            row[c, lane] += gradient[c, start + lane] * rest[lane]
        for lane in range(share.shape[0]):
            row[c, lane + 1] += gradient[c, start + lane] * share[lane]


@jit
def phase_of_other_row(out, start, row, output, columns):
    """As :func:`phase_of_row` from a row of another map: lane l is output ``output[l]``, in ``columns`` of that map."""
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

"""A loss of small logits against full-resolution labels: upsampling happens inside.

A *cell* lies between two neighbouring rows (or columns) of the small map; the border's outer half cells have one. A
program takes one row of cells after the other, a *band*, over a segment of columns. Its lanes are the outputs of one
row, ordered (cell, output in the cell). What the two small rows of a band are at the lanes' columns stays in
registers: each output row is a mixture of the two, and its gradient goes to two sums of the same shape. When a band is
done, its upper sum is complete; it is summed up by cells, once for each band, and written, and the lower one becomes
the next band's upper one. The teacher's rows stay in registers as well if they lie as the student's; otherwise they are
read for every output row, mostly from the nearest cache.

So no two programs write to one place, there are no atomic additions, and every sum has its order: two runs give the
same bits. Only the last row and column of a program are also its neighbour's first; these lie beside the gradient and
are added at the end.
"""
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from .. import kinds
from ..upsampled import axis
from .channel_tile import channel_wise_tile, statistics_of
from .same_resolution import given_strides
from .tile import Settings, Tiling, at_class, classes_of, tile_loss, upsampling_tiling

__all__ = ['Work', 'loss_and_gradient', 'places_of', 'upsamples', 'work_of']

_CHANNEL_WISE = tl.constexpr(kinds.CHANNEL_WISE)
#: The most outputs along one axis between two neighbours of the small map.
CELL_LIMIT = 64


class _Cells(NamedTuple):
    """The outputs of one axis, sorted by cell: cell ``i`` lies between the neighbours i and i + 1, from i = -1 on."""

    first: Tensor  #: (small + 2,) int32, the first output of cell -1, 0, ...; the last entry is the number of outputs
    share: Tensor  #: (size,) float32, how far an output is from the lower neighbour to the upper


class _Places(NamedTuple):
    """The neighbours of each output of one axis."""

    lower: Tensor  #: (size,) int32
    upper: Tensor  #: (size,) int32
    share: Tensor  #: (size,) float32


def _share(small: int, cell: np.ndarray, share: np.ndarray) -> np.ndarray:
    # Beyond the border there is only one neighbour, the border.
    return np.where(cell < 0, 1, np.where(cell == small - 1, 0, share)).astype(np.float32)


@lru_cache(maxsize=64)
def _cells_of(small: int, size: int, align_corners: bool, device: torch.device) -> _Cells:
    """For ``F.interpolate(mode='bilinear')`` from ``small`` to ``size``."""
    outputs = axis(small, size, align_corners)
    first = np.searchsorted(outputs.cell, np.arange(-1, small + 1)).astype(np.int32)
    return _Cells(*(torch.from_numpy(table).to(device) for table in (first, _share(small, *outputs))))


@lru_cache(maxsize=64)
def places_of(small: int, size: int, align_corners: bool, device: torch.device) -> _Places:
    """As :func:`_cells_of`, output by output."""
    outputs = axis(small, size, align_corners)
    lower, upper = np.maximum(outputs.cell, 0), np.minimum(outputs.cell + 1, small - 1)
    return _Places(*(torch.from_numpy(table).to(device)
                    for table in (lower.astype(np.int32), upper.astype(np.int32), _share(small, *outputs))))


@lru_cache(maxsize=64)
def _outputs_of_a_cell(small: int, size: int, align_corners: bool) -> int:
    """The most outputs that any cell has."""
    return int(np.bincount(axis(small, size, align_corners).cell + 1).max())


@triton.jit
def _between_columns(row, c0, c1, stride_class, left, right, share, read0, read1):
    """One row of a small map at the lanes' columns, in two parts; ``row`` points to it, the others are (1, lanes)."""
    rest = 1.0 - share
    l0 = tl.load(row + (c0 * stride_class + left), mask=read0, other=0).to(tl.float32)
    r0 = tl.load(row + (c0 * stride_class + right), mask=read0, other=0).to(tl.float32)
    l1 = tl.load(row + (c1 * stride_class + left), mask=read1, other=0).to(tl.float32)
    r1 = tl.load(row + (c1 * stride_class + right), mask=read1, other=0).to(tl.float32)
    return rest * l0 + share * r0, rest * l1 + share * r1


@triton.jit
def _sum_by_cell(tile, CLASSES: tl.constexpr, CELLS: tl.constexpr, PHASES: tl.constexpr):
    return tl.sum(tl.reshape(tile, (CLASSES, CELLS, PHASES)), 2)


@triton.jit
def _write_row(row, border, g0, g1, c0, c1, stride_class, border_class, share, cell, last, width,
               NUM_CLASSES: tl.constexpr, HEAD: tl.constexpr, TAIL: tl.constexpr, CELLS: tl.constexpr,
               PHASES: tl.constexpr):
    """A row of the small gradient from the sums at the lanes; the column to the right of the last cell to ``border``.

    Args:
        row, border: where they belong.
        g0, g1: (C, lanes) sums.
        share: (1, lanes).
        cell: (1, CELLS) cells of the segment, -1 .. width - 1 (and beyond).
        last: the last of them.
    """
    real0, real1 = c0 < NUM_CLASSES, c1 < NUM_CLASSES
    left0 = _sum_by_cell((1.0 - share) * g0, HEAD, CELLS, PHASES)
    left1 = _sum_by_cell((1.0 - share) * g1, TAIL, CELLS, PHASES)
    inside = (cell >= 0) & (cell < width)
    tl.store(row + (c0 * stride_class + cell), left0, mask=real0 & inside)
    tl.store(row + (c1 * stride_class + cell), left1, mask=real1 & inside)
    right0 = _sum_by_cell(share * g0, HEAD, CELLS, PHASES)
    right1 = _sum_by_cell(share * g1, TAIL, CELLS, PHASES)
    # Another thread wrote the column to the right.
    tl.debug_barrier()
    column = cell + 1
    inside = (cell < last) & (column < width)
    right0 += tl.load(row + (c0 * stride_class + column), mask=real0 & inside, other=0)
    right1 += tl.load(row + (c1 * stride_class + column), mask=real1 & inside, other=0)
    tl.store(row + (c0 * stride_class + column), right0, mask=real0 & inside)
    tl.store(row + (c1 * stride_class + column), right1, mask=real1 & inside)
    outside = (cell == last) & (column < width)
    tl.store(border + (c0 * border_class + 0 * cell), right0, mask=real0 & outside)
    tl.store(border + (c1 * border_class + 0 * cell), right1, mask=real1 & outside)


@triton.jit
def _kernel(student, teacher, gradient, shared_rows, shared_columns, valid, weight, class_weight, target, rank, given,
            w_within, scale, sums, rights, first_row, row_share, first_column, column_share, v_upper_row, v_lower_row,
            v_row_share, v_left, v_right, v_column_share, height, width, out_height, out_width, groups, segments,
            common_rows, common_columns, z_image, z_class, z_row, z_column, v_image, v_class, v_row, v_column,
            given_image, given_label, given_class, given_position, temperature, w_between, w_a, w_b, ratio, keep,
            boundary, NUM_CLASSES: tl.constexpr, KIND: tl.constexpr, SETS: tl.constexpr, HAS_ONE: tl.constexpr,
            DIVERGENCE: tl.constexpr, LEADING: tl.constexpr, BY_RATIO: tl.constexpr, GROUPS: tl.constexpr,
            WITH_TEACHER: tl.constexpr, ALIKE: tl.constexpr, WITH_WEIGHT: tl.constexpr,
            WITH_CLASS_WEIGHT: tl.constexpr, WITH_TARGET: tl.constexpr, WITH_RANK: tl.constexpr,
            WITH_GRADIENT: tl.constexpr, HEAD: tl.constexpr, TAIL: tl.constexpr, CELLS: tl.constexpr,
            PHASES: tl.constexpr, BANDS: tl.constexpr, SPLITS: tl.constexpr):
    """BANDS bands of one segment of one image."""
    lanes: tl.constexpr = CELLS * PHASES
    segment = tl.program_id(0) % segments
    group = tl.program_id(0) // segments % groups
    n = (tl.program_id(0) // (segments * groups)).to(tl.int64)
    c0, c1 = classes_of(HEAD, TAIL)
    lane = tl.arange(0, lanes)
    cell = segment * CELLS + lane // PHASES - 1
    exists = cell < width
    x = tl.load(first_column + cell + 1, mask=exists, other=0) + lane % PHASES
    exists = exists & (x < tl.load(first_column + cell + 2, mask=exists, other=0))
    share = tl.load(column_share + x, mask=exists, other=0)[None, :]
    # The hint makes neighbouring lanes read neighbouring columns on every Triton; that a column is aligned to no more
    # than itself keeps each lane to its own.
    before = tl.multiple_of(tl.max_contiguous(tl.maximum(cell, 0), 2), 1)
    after = tl.multiple_of(tl.max_contiguous(tl.minimum(cell + 1, width - 1), 2), 1)
    left, right = before[None, :] * z_column, after[None, :] * z_column
    read0, read1 = exists[None, :] & (c0 < NUM_CLASSES), exists[None, :] & (c1 < NUM_CLASSES)
    student += n * z_image
    teacher += n * v_image
    v_l, v_r, v_share = left, right, share
    if WITH_TEACHER:
        if ALIKE:
            v_l, v_r = before[None, :] * v_column, after[None, :] * v_column
        else:
            v_l = tl.load(v_left + x, mask=exists, other=0)
            v_r = tl.load(v_right + x, mask=exists, other=0)
            v_l = tl.multiple_of(tl.max_contiguous(v_l, 2), 1)[None, :] * v_column
            v_r = tl.multiple_of(tl.max_contiguous(v_r, 2), 1)[None, :] * v_column
            v_share = tl.load(v_column_share + x, mask=exists, other=0)[None, :]
    # The cells of the segment, for the gradient.
    own = segment * CELLS + tl.arange(0, CELLS)[None, :] - 1
    last = segment * CELLS + CELLS - 2
    gradient += n * NUM_CLASSES * height * width
    shared_rows += (n * NUM_CLASSES * common_rows + group) * width
    shared_columns += n * NUM_CLASSES * (height + common_rows) * common_columns + segment

    if KIND == _CHANNEL_WISE:
        lead_z0, per_z0, lead_v0, per_v0, shift0, pull0 = statistics_of(w_within, n, c0, c0 < NUM_CLASSES, NUM_CLASSES,
                                                                        temperature, SPLITS)
        lead_z1, per_z1, lead_v1, per_v1, shift1, pull1 = statistics_of(w_within, n, c1, c1 < NUM_CLASSES, NUM_CLASSES,
                                                                        temperature, SPLITS)
        pull0, pull1 = pull0 * tl.load(scale), pull1 * tl.load(scale)
    upper0, upper1 = tl.zeros((HEAD, lanes), tl.float32), tl.zeros((TAIL, lanes), tl.float32)
    total = tl.zeros((lanes, ), tl.float64)
    number = tl.zeros((lanes, ), tl.int32)
    for band in tl.range(group * BANDS - 1, tl.minimum(group * BANDS + BANDS - 1, height), disable_licm=True):
        row_a, row_b = tl.maximum(band, 0), tl.minimum(band + 1, height - 1)
        za0, za1 = _between_columns(student + row_a * z_row, c0, c1, z_class, left, right, share, read0, read1)
        zb0, zb1 = _between_columns(student + row_b * z_row, c0, c1, z_class, left, right, share, read0, read1)
        va0, va1, vb0, vb1 = za0, za1, zb0, zb1
        if WITH_TEACHER and ALIKE:
            va0, va1 = _between_columns(teacher + row_a * v_row, c0, c1, v_class, v_l, v_r, v_share, read0, read1)
            vb0, vb1 = _between_columns(teacher + row_b * v_row, c0, c1, v_class, v_l, v_r, v_share, read0, read1)
        lower0, lower1 = tl.zeros((HEAD, lanes), tl.float32), tl.zeros((TAIL, lanes), tl.float32)
        for y in tl.range(tl.load(first_row + band + 1), tl.load(first_row + band + 2), disable_licm=True):
            at = (n * out_height + y) * out_width + x
            factor = tl.where(tl.load(valid + at, mask=exists, other=0) != 0, tl.load(scale), 0.0)
            if WITH_WEIGHT:
                factor = tl.where(factor != 0, factor * tl.load(weight + at, mask=exists, other=0), 0.0)
            labelled = factor != 0
            labels = tl.full((lanes, ), -1, tl.int32)
            if WITH_TARGET:
                labels = tl.load(target + at, mask=labelled, other=-1).to(tl.int32)
            if WITH_CLASS_WEIGHT:
                known = (labels >= 0) & (labels < NUM_CLASSES)
                factor *= tl.load(class_weight + labels, mask=known, other=0)
            counts = factor != 0
            boundaries = tl.full((lanes, ), 0, tl.int32) + boundary
            if WITH_RANK:
                boundaries = tl.load(rank + at, mask=counts, other=1).to(tl.int32)
            below = tl.load(row_share + y)
            above = 1.0 - below
            z0, z1 = above * za0 + below * zb0, above * za1 + below * zb1
            v0, v1 = z0, z1
            if WITH_TEACHER:
                if ALIKE:
                    v0, v1 = above * va0 + below * vb0, above * va1 + below * vb1
                else:
                    va0, va1 = _between_columns(teacher + tl.load(v_upper_row + y) * v_row, c0, c1, v_class, v_l, v_r,
                                                v_share, read0, read1)
                    vb0, vb1 = _between_columns(teacher + tl.load(v_lower_row + y) * v_row, c0, c1, v_class, v_l, v_r,
                                                v_share, read0, read1)
                    v_below = tl.load(v_row_share + y)
                    v0, v1 = (1.0 - v_below) * va0 + v_below * vb0, (1.0 - v_below) * va1 + v_below * vb1
            z_target, v_target = factor, factor
            if WITH_TARGET and HAS_ONE:
                z_target, v_target = at_class(z0, z1, c0, c1, labels), at_class(v0, v1, c0, c1, labels)
            group0, group1 = c0, c1
            if GROUPS > 0:
                rows = given + n * given_image + (y * out_width + x)[None, :] * given_position
                if WITH_TARGET:
                    rows += tl.maximum(labels, 0)[None, :] * given_label
                group0 = tl.load(rows + c0 * given_class, mask=read0, other=0).to(tl.int32)
                group1 = tl.load(rows + c1 * given_class, mask=read1, other=0).to(tl.int32)
            if KIND == _CHANNEL_WISE:
                is_right = counts
                loss0, g0 = channel_wise_tile(z0, v0, counts[None, :], factor[None, :], pull0, lead_z0, per_z0, lead_v0,
                                              per_v0, shift0, temperature)
                loss1, g1 = channel_wise_tile(z1, v1, counts[None, :] & (c1 < NUM_CLASSES), factor[None, :], pull1,
                                              lead_z1, per_z1, lead_v1, per_v1, shift1, temperature)
                loss = tl.sum(loss0, 0) + tl.sum(loss1, 0)
            else:
                loss, g0, g1, is_right = tile_loss(z0, z1, v0, v1, c0, c1, labels, z_target, v_target, boundaries, z0,
                                                   z1, group0, group1, w_within, factor, temperature, w_between, w_a,
                                                   w_b, ratio, keep, boundary, NUM_CLASSES, KIND, SETS, HAS_ONE,
                                                   DIVERGENCE, LEADING, BY_RATIO, GROUPS)
            # What does not count may hold anything.
            total += tl.where(counts, loss, 0.0).to(tl.float64)
            # A class of weight 0 is classified all the same.
            number += (labelled & is_right).to(tl.int32)
            if WITH_GRADIENT:
                g0, g1 = tl.where(counts[None, :], g0, 0.0), tl.where(counts[None, :], g1, 0.0)
                upper0, upper1 = upper0 + above * g0, upper1 + above * g1
                lower0, lower1 = lower0 + below * g0, lower1 + below * g1
        if WITH_GRADIENT:
            if band >= 0:
                _write_row(gradient + band * width, shared_columns + band * common_columns, upper0, upper1, c0, c1,
                           height * width, (height + common_rows) * common_columns, share, own, last, width,
                           NUM_CLASSES, HEAD, TAIL, CELLS, PHASES)
            upper0, upper1 = lower0, lower1
    if WITH_GRADIENT:
        # The row below is the next program's first.
        if group < common_rows:
            _write_row(shared_rows, shared_columns + (height + group) * common_columns, upper0, upper1, c0, c1,
                       common_rows * width, (height + common_rows) * common_columns, share, own, last, width,
                       NUM_CLASSES, HEAD, TAIL, CELLS, PHASES)
    tl.store(sums + tl.program_id(0), tl.sum(total, 0))
    tl.store(rights + tl.program_id(0), tl.sum(number, 0))


class Work(NamedTuple):
    """How the programs share the small map."""

    tiling: Tiling
    cells: int  #: columns of cells of one program
    phases: int  #: lanes of a cell
    bands: int  #: rows of cells of one program


def work_of(num_classes: int, small: tuple[int, int], size: tuple[int, int], align_corners: bool,
            given: bool = False) -> Work:
    """For a student's map of (h, w) and labels of (H, W); ``given``: whether groups are."""
    tiling = upsampling_tiling(num_classes, given)
    phases = triton.next_power_of_2(_outputs_of_a_cell(small[1], size[1], align_corners))
    lanes = max(tiling.width, phases)
    # A program's last row is kept twice: 1 / bands of the small map, at most about a fiftieth of the large one.
    bands = max(1, -(-50 * small[0] * small[1] // (size[0] * size[1])))
    return Work(tiling._replace(width=lanes), lanes // phases, phases, min(bands, small[0] + 1))


def upsamples(small: tuple[int, int], size: tuple[int, int], align_corners: bool) -> bool:
    """Whether the kernel covers this geometry."""
    return _outputs_of_a_cell(small[1], size[1], align_corners) <= CELL_LIMIT


def loss_and_gradient(student: Tensor, teacher: Tensor | None, size: tuple[int, int],
                      align_corners: tuple[bool, bool], *, valid: Tensor, weight: Tensor | None,
                      class_weight: Tensor | None, scale: Tensor, target: Tensor | None, rank: Tensor | None,
                      given: Tensor | None, w_within: Tensor | None, settings: Settings,
                      with_gradient: bool) -> tuple[Tensor, Tensor | None, Tensor]:
    """Sum of scale * weight * loss over valid positions, and its gradient with respect to the small logits.

    Args:
        student: (N, C, h, w) float32, bfloat16 or float16 logits, with any strides.
        teacher: (N, C, h', w') likewise; None for cross-entropy.
        size: (H, W) of the labels.
        align_corners: of student and teacher.
        valid: (N, H, W) contiguous bool.
        weight: (N, H, W) contiguous float32, or None.
        class_weight: (C,) float32 factor by label, or None.
        scale: float32 scalar, factor of all.
        target: (N, H, W) contiguous int64 labels where the loss needs them.
        rank: (N, H, W) contiguous integers, the boundary of each position where it is not the same for all.
        given: (N or 1, labels or 1, C, H W or 1) int8 groups where the kernel does not form them.
        w_within: float32 weights of given groups; for a channel-wise loss the sums of the channels,
            (N, SUMS, splits, C), see :func:`.channel_tile.statistics_of`.
        settings: see :class:`.tile.Settings`.
        with_gradient: whether the gradient is wanted.

    Returns:
        A float64 scalar, (N, C, h, w) float32, and for cross-entropy how many valid positions are classified rightly.
    """
    number, num_classes, height, width = student.shape
    device = student.device
    work = work_of(num_classes, (height, width), size, align_corners[0], given is not None)
    rows, columns = (_cells_of(small, large, align_corners[0], device)
                     for small, large in zip((height, width), size, strict=True))
    with_teacher = teacher is not None
    teacher = teacher if with_teacher else student
    alike = teacher.shape == student.shape and align_corners[0] == align_corners[1]
    v_rows, v_columns = (places_of(small, large, align_corners[1], device)
                         for small, large in zip(teacher.shape[2:], size, strict=True))
    groups, segments = triton.cdiv(height + 1, work.bands), triton.cdiv(width + 1, work.cells)
    common_rows, common_columns = height // work.bands, width // work.cells
    gradient = shared_rows = shared_columns = scale
    if with_gradient:
        gradient = torch.empty(student.shape, dtype=torch.float32, device=device)
        shared_rows = gradient.new_empty(number, num_classes, common_rows, width)
        shared_columns = gradient.new_empty(number, num_classes, height + common_rows, common_columns)
    programs = number * groups * segments
    sums = torch.empty(programs, dtype=torch.float64, device=device)
    rights = torch.empty(programs, dtype=torch.int32, device=device)
    splits = w_within.shape[2] if settings.constants['KIND'] == kinds.CHANNEL_WISE else 0
    _kernel[(programs, )](
        student, teacher, gradient, shared_rows, shared_columns, valid.view(torch.uint8),
        scale if weight is None else weight, scale if class_weight is None else class_weight,
        rights if target is None else target, rights if rank is None else rank, rights if given is None else given,
        scale if w_within is None else w_within, scale, sums, rights, *rows, *columns, *v_rows, *v_columns, height,
        width, *size, groups, segments, common_rows, common_columns,
        *student.stride(), *teacher.stride(), *given_strides(given), *settings.numbers,
        settings.boundary, **settings.constants,
        WITH_TEACHER=with_teacher, ALIKE=alike, WITH_WEIGHT=weight is not None,
        WITH_CLASS_WEIGHT=class_weight is not None, WITH_TARGET=target is not None, WITH_RANK=rank is not None,
        WITH_GRADIENT=with_gradient, HEAD=work.tiling.head, TAIL=work.tiling.tail, CELLS=work.cells,
        PHASES=work.phases, BANDS=work.bands, SPLITS=splits, num_warps=work.tiling.warps)
    if with_gradient:
        gradient[..., work.cells - 1::work.cells] += shared_columns[:, :, :height]
        shared_rows[..., work.cells - 1::work.cells] += shared_columns[:, :, height:]
        gradient[:, :, work.bands - 1::work.bands] += shared_rows
    return sums.sum(), gradient if with_gradient else None, rights.sum()

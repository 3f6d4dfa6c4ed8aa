"""A loss of logits of one resolution, block by block."""
import numpy as np
import torch
from torch import Tensor

from ..kinds import COUPLED, GIVEN, RANDOM, RANK
from .arithmetic import jit
from .block import Settings, block_loss, block_width, in_parallel
from .grouped import fill_groups

__all__ = ['loss_and_gradient']


@jit
def _blocks(student, teacher, gradient, valid, weight, scale, target, rank, given, sums, figures, first, last, width,
            settings, with_weight, with_target, with_rank):
    """Blocks first .. last - 1; (N, C, P) logits, (N, P) maps, one sum per block, and its figures."""
    _, num_classes, positions = student.shape
    per_image = (positions + width - 1) // width
    z, v = np.zeros((num_classes, width), np.float32), np.zeros((num_classes, width), np.float32)
    draws = np.zeros((num_classes, width) if settings.kind == RANDOM else (1, 1), np.float32)
    group = np.zeros((num_classes, width), np.int32)
    labels = np.zeros(width, np.int64)
    boundaries = np.ones((settings.boundaries.shape[0], width), np.int32)
    factor, loss = np.zeros(width, np.float32), np.zeros(width, np.float32)
    places = np.zeros(width, np.int64)
    for block in range(first, last):
        n, start = block // per_image, block % per_image * width
        size = min(width, positions - start)
        stop = start + size
        factor[:] = 0
        for b in range(size):
            factor[b] = scale if valid[n, start + b] else np.float32(0)
        if with_weight:
            for b in range(size):
                # Weights of positions that do not count may be anything.
                factor[b] = factor[b] * weight[n, start + b] if factor[b] != 0 else np.float32(0)
        if not factor.any():
            if not settings.sums_only:
                gradient[n, :, start:stop] = 0
            sums[block] = 0
            continue
        for c in range(num_classes):
            z[c, :size] = student[n, c, start:stop]
            v[c, :size] = teacher[n, c, start:stop]
        if with_target:
            labels[:size] = target[n, start:stop]
        if settings.kind == RANDOM:
            # Uniform numbers wait in the gradient's place.
            for c in range(num_classes):
                draws[c, :size] = gradient[n, c, start:stop]
        if settings.kind == RANK:
            for i in range(settings.boundaries.shape[0]):
                boundaries[i, :] = settings.boundaries[i]
            if with_rank:
                boundaries[0, :size] = rank[n, start:stop]
        if settings.kind == GIVEN:
            for b in range(size):
                places[b] = start + b
            fill_groups(group, given, n, labels, places)
        block_loss(z, v, group, labels, boundaries, draws, settings, factor, loss,
                   figures[block if settings.kind == COUPLED else 0])
        if settings.sums_only:
            continue
        for c in range(num_classes):
            gradient[n, c, start:stop] = z[c, :size]
        total = 0.
        for b in range(size):
            total += loss[b]
        sums[block] = total


_NO_MAP, _NO_LABELS, _NO_RANK = (np.zeros((1, 1), dtype) for dtype in (np.float32, np.int64, np.int32))
_NO_GROUPS = np.zeros((1, 1, 1, 1), np.int8)


def loss_and_gradient(student: Tensor, teacher: Tensor, *, valid: Tensor, weight: Tensor | None, scale: float,
                      target: Tensor | None, rank: Tensor | None, given: Tensor | None,
                      settings: Settings) -> tuple[Tensor, Tensor, np.ndarray]:
    """Sum of scale * weight * loss over valid positions, and its gradient.

    Args:
        student, teacher: (N, C, P) contiguous float32 logits.
        valid: (N, P) bool.
        weight: (N, P) float32, or None.
        scale: factor of all.
        target: (N, P) int64 labels where the groups need them.
        rank: (N, P) int32 boundary of each position where it is not the same for all.
        given: (N or 1, labels or 1, C, P or 1) int8 groups where the machine code does not form them.
        settings: see :class:`Settings`.

    Returns:
        A float64 scalar, (N, C, P) float32, and the figures of the coupling term, (blocks, 5) float64.
    """
    gradient = torch.rand_like(student) if settings.kind == RANDOM else torch.empty_like(student)
    width = block_width(student.shape[1])
    pieces = student.shape[0] * -(-student.shape[2] // width)
    sums = np.zeros(pieces)
    figures = np.zeros((pieces if settings.kind == COUPLED else 1, 5))
    arrays = [tensor.numpy() for tensor in (student, teacher, gradient, valid)]
    maps = [absent if tensor is None else tensor.numpy()
            for tensor, absent in ((weight, _NO_MAP), (target, _NO_LABELS), (rank, _NO_RANK), (given, _NO_GROUPS))]

    def work(first: int, last: int) -> None:
        _blocks(*arrays, maps[0], np.float32(scale), *maps[1:], sums, figures, first, last, width, settings,
                weight is not None, target is not None, rank is not None)

    in_parallel(work, pieces)
    return torch.tensor(sums.sum()), gradient, figures

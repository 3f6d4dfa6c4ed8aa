"""What the dispatcher calls."""
import functools
from typing import Callable, Optional, Tuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...upsampled import Logits, Upsampled
from ..autograd import with_gradient
from ..spec import LossSpec
from . import same_resolution, upsampling
from .block import BINARY_KL, BINARY_KL_NORM, CROSS_ENTROPY, Settings
from .groups import RANDOM, RANK, TARGET

__all__ = ['READS_HALF', 'covers', 'cross_entropy', 'loss', 'upsamples']

READS_HALF = False  #: whether logits of 16 bits may come as they are

_KINDS = dict(all=0, target=TARGET, rank=RANK, random=RANDOM, binary=BINARY_KL, binary_norm=BINARY_KL_NORM,
              cross_entropy=CROSS_ENTROPY)


@functools.lru_cache(maxsize=64)
def _settings(spec: LossSpec, num_classes: int) -> Settings:
    within = np.zeros(3, np.float32)
    within[:len(spec.w_within)] = spec.w_within
    reverse = dict(forward=0., both=.5, reverse=1.)[spec.divergence]
    boundaries = [min(boundary, num_classes) for boundary in spec.boundaries] or [1]
    return Settings(
        kind=_KINDS[spec.kind],
        temperature=np.float32(spec.temperature),
        num_groups=len(spec.w_within),
        w_between=np.float32(spec.w_between),
        w_within=within,
        forward=np.float32(1 - reverse),
        reverse=np.float32(reverse),
        boundaries=np.array(boundaries, np.int32),
        largest=max(boundaries),
        leading=spec.strategy == 'best',
        ratio=np.float32(spec.ratio or 0.),
        keep=np.float32(spec.keep))


def covers(student: Tensor, teacher: Tensor) -> bool:
    """Whether the machine code works on such tensors."""
    return student.dtype == teacher.dtype == torch.float32


def upsamples(student: Upsampled, spec: LossSpec) -> bool:
    """Whether a loss can be computed without the full map. A draw is one number per class and position anyway."""
    return spec.kind != 'random'


def _positions_last(tensor: Tensor) -> Tensor:
    """(N, C, *) as contiguous (N, C, P); (N, C) as (1, C, N): the positions are what runs fastest."""
    if tensor.dim() == 2:
        return tensor.t().contiguous().unsqueeze(0)
    return tensor.contiguous().flatten(2) if tensor.dim() > 3 else tensor.contiguous()


def _map_positions_last(tensor: Optional[Tensor], is_flat: bool, dtype) -> Optional[Tensor]:
    if tensor is None:
        return None
    tensor = tensor.detach().to(dtype).contiguous()
    return tensor.unsqueeze(0) if is_flat else tensor.flatten(1)


def loss(student: Logits, teacher: Logits, valid: Tensor, weight: Optional[Tensor], divisor: Tensor,
         target: Optional[Tensor], rank: Optional[Tensor], spec: LossSpec, plain: Callable[[], Tensor]) -> Tensor:
    """The sum of weight times loss over valid positions, divided by ``divisor``.

    Args:
        student, teacher: (N, C, *) float32 logits, or logits to be upsampled; gradients reach the student.
        valid: (N, *) bool.
        weight: (N, *) factor of each position, or None.
        divisor: scalar.
        target: (N, *) int64, for specs that need one.
        rank: (N, *) integers, the boundary of each position where ``spec`` has none for all.
        spec: the loss.
        plain: the same by the plain form, for second derivatives.
    """
    target, scale = target if spec.needs_target else None, 1 / float(divisor)
    if isinstance(student, Upsampled):
        value = _upsampled(student, teacher, valid, weight, scale, target, rank, _settings(spec, student.shape[1]))
        return with_gradient(student.logits, value, plain)
    is_flat = student.dim() == 2
    settings = _settings(spec, student.shape[1])
    valid, weight, target, rank = (
        _map_positions_last(each, is_flat, dtype)
        for each, dtype in ((valid, torch.bool), (weight, torch.float32), (target, torch.int64), (rank, torch.int32)))

    def compute() -> Tuple[Tensor, Tensor]:
        logits = _positions_last(student.detach()), _positions_last(teacher)
        value, gradient = same_resolution.loss_and_gradient(*logits, valid, weight, scale, target, rank, settings)
        gradient = gradient.squeeze(0).t() if is_flat else gradient.view(student.shape)
        return value.to(student.dtype), gradient

    return with_gradient(student, compute, None if spec.kind == 'random' else plain)


def cross_entropy(logits: Upsampled, target: Tensor, valid: Tensor,
                  class_weight: Optional[Tensor]) -> Tuple[Tensor, Tensor]:
    """Sum of the cross-entropy over valid positions, and how many of them are classified rightly.

    Args:
        logits: small float32 logits, to be upsampled.
        target: (N, H, W) int64.
        valid: (N, H, W) bool.
        class_weight: (C,) factor by label, or None.
    """
    settings = _settings(LossSpec('cross_entropy', 1.), logits.shape[1])
    weight = None if class_weight is None else class_weight.detach().float().contiguous()
    count = torch.zeros((), dtype=torch.int64)

    def compute() -> Tuple[Tensor, Tensor]:
        value, gradient, correct = upsampling.loss_and_gradient(
            logits.logits.detach().contiguous(), None, logits.size, (logits.align_corners, logits.align_corners), valid,
            None, weight, 1., target.contiguous(), None, settings)
        count.fill_(correct)
        return value.to(logits.dtype), gradient

    def plain() -> Tensor:
        chosen = target.masked_fill(~valid, -100)
        return F.cross_entropy(logits.computed(), chosen, class_weight, ignore_index=-100, reduction='sum')

    return with_gradient(logits.logits, compute, plain), count


def _upsampled(student: Upsampled, teacher: Logits, valid: Tensor, weight: Optional[Tensor], scale: float,
               target: Optional[Tensor], rank: Optional[Tensor], settings: Settings) -> Callable:
    if not isinstance(teacher, Upsampled):
        teacher = Upsampled(teacher, student.size, student.align_corners)
    weight = None if weight is None else weight.detach().float().contiguous()
    target = None if target is None else target.contiguous()
    rank = None if rank is None else rank.to(torch.int32).contiguous()

    def compute() -> Tuple[Tensor, Tensor]:
        value, gradient, _ = upsampling.loss_and_gradient(
            student.logits.detach().contiguous(), teacher.logits.contiguous(), student.size,
            (student.align_corners, teacher.align_corners), valid, weight, None, scale, target, rank, settings)
        return value.to(student.dtype), gradient

    return compute

"""What the dispatcher calls."""
import functools
import warnings
from contextlib import nullcontext
from typing import Callable, ContextManager, Optional, Tuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ...upsampled import Logits, Upsampled
from ..autograd import with_gradient
from ..spec import LossSpec
from . import same_resolution, upsampling
from .scaling import scaled
from .settings import settings_of
from .tiling import MOST_CLASSES

__all__ = ['READS_HALF', 'covers', 'cross_entropy', 'loss', 'runs_on', 'upsamples']

READS_HALF = True  #: whether logits of 16 bits may come as they are

_TYPES = (torch.float32, torch.bfloat16, torch.float16)
_REACH = 2**31  # places within an image are 32-bit numbers


def covers(student: Tensor, teacher: Tensor) -> bool:
    """Whether there are kernels for such (N, C, *) tensors: floating types of up to 32 bits, 32-bit places."""
    return (student.dtype in _TYPES and teacher.dtype in _TYPES and student.shape[1] <= MOST_CLASSES
            and max(student[0].numel(), teacher[0].numel()) < _REACH)


def upsamples(student: Upsampled, spec: LossSpec) -> bool:
    """Whether a loss can be computed without the full map. A draw is one number per class and position anyway."""
    return spec.kind != 'random' and upsampling.upsamples(tuple(student.logits.shape[2:]), tuple(student.size),
                                                          student.align_corners)


@functools.lru_cache(maxsize=None)
def runs_on(device: torch.device) -> bool:
    """Whether a kernel can be compiled and run on a device; if not, said once."""
    if device.type == 'cuda' and (torch.version.hip or torch.cuda.get_device_capability(device) < (8, 0)):
        return False
    try:
        with _on(device):
            return scaled(torch.ones(2, device=device), torch.tensor(3., device=device)).tolist() == [3., 3.]
    except Exception as error:  # Triton raises what it likes, where it lacks a C compiler for example
        warnings.warn(f'the fast losses for {device} are off, since Triton does not work here ({error!r}); the plain '
                      'ones give the same numbers slowly', stacklevel=2)
        return False


def _on(device: torch.device) -> ContextManager:
    """Triton launches on the current device."""
    return torch.cuda.device(device) if device.type == 'cuda' else nullcontext()


def _positions_last(tensor: Tensor) -> Tensor:
    """(N, C, *) as (N, C, P), (N, C) as (1, C, N); a view where the strides allow."""
    if tensor.dim() == 2:
        return tensor.t().unsqueeze(0)
    tensor = tensor.flatten(2)
    reach = sum((size - 1) * stride for size, stride in zip(tensor.shape[1:], tensor.stride()[1:], strict=True))
    return tensor if reach < _REACH else tensor.contiguous()


def _map(tensor: Optional[Tensor], dtype: Optional[torch.dtype] = None) -> Optional[Tensor]:
    return None if tensor is None else tensor.detach().to(dtype or tensor.dtype).contiguous()


def _wants_gradient(student: Tensor) -> bool:
    return torch.is_grad_enabled() and student.requires_grad


def loss(student: Logits, teacher: Logits, valid: Tensor, weight: Optional[Tensor], divisor: Tensor,
         target: Optional[Tensor], rank: Optional[Tensor], spec: LossSpec, plain: Callable[[], Tensor]) -> Tensor:
    """The sum of weight times loss over valid positions, divided by ``divisor``; nothing waits for the device.

    Args:
        student, teacher: (N, C, *) logits, or logits to be upsampled; gradients reach the student.
        valid: (N, *) bool.
        weight: (N, *) factor of each position, or None.
        divisor: scalar.
        target: (N, *) int64, for specs that need one.
        rank: (N, *) integers, the boundary of each position where ``spec`` has none for all.
        spec: the loss.
        plain: the same by the plain form, for second derivatives.
    """
    settings = settings_of(spec, student.shape[1])
    target = _map(target) if settings.needs_target else None
    valid, weight, rank, scale = _map(valid), _map(weight, torch.float32), _map(rank), divisor.float().reciprocal()
    if isinstance(student, Upsampled):
        return _upsampled(student, teacher, valid, weight, scale, target, rank, settings, plain)
    if max(student[0].numel(), teacher[0].numel()) >= _REACH:  # logits that were upsampled in front of the loss
        return plain()
    wants_gradient = _wants_gradient(student)

    def compute() -> Tuple[Tensor, Optional[Tensor]]:
        with _on(student.device):
            value, gradient = same_resolution.loss_and_gradient(
                _positions_last(student.detach()), _positions_last(teacher), valid, weight, scale, target, rank,
                settings, wants_gradient)
        if gradient is not None:
            gradient = gradient.squeeze(0).t() if student.dim() == 2 else gradient.view(student.shape)
        return value.float(), gradient

    return with_gradient(student, compute, None if spec.kind == 'random' else plain, _scaled_on_device)


def cross_entropy(logits: Upsampled, target: Tensor, valid: Tensor,
                  class_weight: Optional[Tensor]) -> Tuple[Tensor, Tensor]:
    """Sum of the cross-entropy over valid positions, and how many of them are classified rightly.

    Args:
        logits: small logits, to be upsampled.
        target: (N, H, W) int64.
        valid: (N, H, W) bool.
        class_weight: (C,) factor by label, or None.
    """
    settings = settings_of(LossSpec('cross_entropy', 1.), logits.shape[1])
    factor, wants_gradient = _map(class_weight, torch.float32), _wants_gradient(logits.logits)
    count = torch.zeros((), dtype=torch.int64, device=logits.device)
    one = torch.ones((), device=logits.device)

    def compute() -> Tuple[Tensor, Optional[Tensor]]:
        with _on(logits.device):
            value, gradient, right = upsampling.loss_and_gradient(
                logits.logits.detach(), None, tuple(logits.size), (logits.align_corners, ) * 2, _map(valid), None,
                factor, one, _map(target), None, settings, wants_gradient)
        count.copy_(right)
        return value.float(), gradient

    def plain() -> Tensor:
        chosen = target.masked_fill(~valid, -100)
        return F.cross_entropy(logits.computed(), chosen, class_weight, ignore_index=-100, reduction='sum')

    return with_gradient(logits.logits, compute, plain, _scaled_on_device), count


def _upsampled(student: Upsampled, teacher: Logits, valid: Tensor, weight: Optional[Tensor], scale: Tensor,
               target: Optional[Tensor], rank: Optional[Tensor], settings, plain: Callable[[], Tensor]) -> Tensor:
    if not isinstance(teacher, Upsampled):
        teacher = Upsampled(teacher, student.size, student.align_corners)
    wants_gradient = _wants_gradient(student.logits)

    def compute() -> Tuple[Tensor, Optional[Tensor]]:
        with _on(student.device):
            value, gradient, _ = upsampling.loss_and_gradient(
                student.logits.detach(), teacher.logits, tuple(student.size),
                (student.align_corners, teacher.align_corners), valid, weight, None, scale, target, rank, settings,
                wants_gradient)
        return value.float(), gradient

    return with_gradient(student.logits, compute, plain, _scaled_on_device)


def _scaled_on_device(gradient: Tensor, upstream: Tensor) -> Tensor:
    with _on(gradient.device):
        return scaled(gradient, upstream)

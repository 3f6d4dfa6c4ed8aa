"""Which form computes a loss: the operator for this device, or the plain one that defines it."""
import functools
import os
import warnings
from typing import Callable, Optional

import torch
from torch import Tensor

from ..joined import mean_divisor
from ..reduce import reduce_map
from ..upsampled import Logits, Upsampled, at_full_size
from .spec import LossSpec

__all__ = ['cpu_operators', 'fused_or_plain', 'kernels_enabled', 'operators_for']

_SWITCH = 'MMSEG_KD_KERNELS'


def kernels_enabled() -> bool:
    """What ``MMSEG_KD_KERNELS`` says: 'auto' (as when it is absent) or 'naive'.

    Raises:
        ValueError: another word.
    """
    choice = os.environ.get(_SWITCH, 'auto')
    if choice not in ('auto', 'naive'):
        raise ValueError(f"the environment variable {_SWITCH} must be 'auto' or 'naive', got {choice!r}")
    return choice == 'auto'


@functools.lru_cache(maxsize=None)
def cpu_operators():
    """The module of the CPU's operators, or None where numba does not work; said once."""
    try:
        from . import cpu
        return cpu
    except Exception as error:  # numba raises what it likes where it is broken or may not write its cache
        warnings.warn(f'the fast losses for the CPU are off, since numba does not work here ({error!r}); the plain '
                      'ones give the same numbers slowly. Install numba, and give its cache a place: '
                      'NUMBA_CACHE_DIR=/some/folder', stacklevel=2)
        return None


def _is_plain_tensor(tensor: Tensor) -> bool:
    functorch = torch._C._functorch
    return type(tensor) in (Tensor, torch.nn.Parameter) and not functorch.is_functorch_wrapped_tensor(tensor)


def operators_for(student: Tensor, teacher: Tensor, weight: Optional[Tensor] = None):
    """The module with the operators for these tensors, or None where the plain form must do."""
    if torch.compiler.is_compiling() or not kernels_enabled():
        return None
    if student.device.type != 'cpu' or student.dtype != torch.float32 or teacher.dtype != torch.float32:
        return None
    if student.numel() == 0 or not all(map(_is_plain_tensor, (student, teacher))):
        return None
    if weight is not None and weight.requires_grad:
        return None
    return cpu_operators()


def fused_or_plain(plain: Callable[[Tensor, Tensor], Tensor],
                   spec: Optional[LossSpec],
                   student: Logits,
                   teacher: Logits,
                   valid: Tensor,
                   weight: Optional[Tensor],
                   reduction: str,
                   target: Optional[Tensor] = None,
                   rank: Optional[Tensor] = None) -> Tensor:
    """The reduced loss, by an operator where there is one.

    Args:
        plain: computes from (student, teacher) the (N, *) map that defines the loss.
        spec: the same loss in the operators' words; None where they have none.
        student, teacher: (N, C, *) logits that have been checked, or logits to be upsampled to that.
        valid: (N, *) bool.
        weight: (N, *) or None.
        reduction: 'mean', 'sum' or 'none'; a map is left to the plain form.
        target: (N, *) int64, for specs that need one.
        rank: (N, *) integers, the boundary of each position where ``spec`` has none for all.
    """
    operators = None
    if spec is not None and reduction != 'none':
        operators = operators_for(*(getattr(logits, 'logits', logits) for logits in (student, teacher)), weight)
    # A draw is one number per class and position, so that there is a map of that size all the same.
    if operators is None or spec.kind == 'random' or not isinstance(student, Upsampled):
        student, teacher = at_full_size(student), at_full_size(teacher)
    if operators is None:
        return reduce_map(plain(student, teacher), valid, weight, reduction)
    divisor = mean_divisor(valid.sum()) if reduction == 'mean' else valid.new_ones((), dtype=torch.float32)

    def plain_loss() -> Tensor:
        return reduce_map(plain(at_full_size(student), at_full_size(teacher)), valid, weight, 'sum') / divisor

    return operators.loss(student, teacher, valid, weight, 1 / float(divisor), target, rank, spec, plain_loss)

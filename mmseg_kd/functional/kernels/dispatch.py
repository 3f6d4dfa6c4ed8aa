"""Which form computes a loss: the operator for this device, or the plain one that defines it."""
import functools
import os
import warnings
from typing import Callable, Optional

import torch
from torch import Tensor

from ..reduce import position_factors, reduce_map
from .spec import LossSpec

__all__ = ['cpu_operators', 'fused_or_plain', 'kernels_enabled']

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


def fused_or_plain(plain: Callable[[], Tensor],
                   spec: Optional[LossSpec],
                   student: Tensor,
                   teacher: Tensor,
                   valid: Tensor,
                   weight: Optional[Tensor],
                   reduction: str,
                   target: Optional[Tensor] = None,
                   rank: Optional[Tensor] = None) -> Tensor:
    """The reduced loss, by an operator where there is one.

    Args:
        plain: computes the (N, *) map that defines the loss.
        spec: the same loss in the operators' words; None where they have none.
        student, teacher: (N, C, *) logits that have been checked.
        valid: (N, *) bool.
        weight: (N, *) or None.
        reduction: 'mean', 'sum' or 'none'; a map is left to the plain form.
        target: (N, *) int64, for specs that need one.
        rank: (N, *) integers, the boundary of each position where ``spec`` has none for all.
    """
    operators = None if spec is None or reduction == 'none' else operators_for(student, teacher, weight)
    if operators is None:
        return reduce_map(plain(), valid, weight, reduction)
    factor = position_factors(valid, weight, reduction)

    def plain_loss() -> Tensor:
        return (plain().masked_fill(factor == 0, 0.) * factor).sum()

    return operators.loss(student, teacher, factor, target, rank, spec, plain_loss)

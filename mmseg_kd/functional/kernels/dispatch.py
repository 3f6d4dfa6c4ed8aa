"""Which form computes a loss: the operator for this device, or the plain one that defines it."""
import functools
import os
import warnings
from importlib.metadata import version
from typing import Callable, Optional

import torch
from torch import Tensor

from ..checks import promoted
from ..joined import divisor_of
from ..reduce import reduce_map
from ..upsampled import Logits, Upsampled, at_full_size, leaf_of
from .spec import LossSpec
from .trial import Variant, passes_trial

__all__ = ['cpu_operators', 'fused_or_plain', 'gpu_operators', 'kernels_choice', 'may_fuse', 'operators_for',
           'trusted']

_SWITCH = 'MMSEG_KD_KERNELS'
OLDEST_TRITON = 3, 6


def kernels_choice() -> str:
    """What ``MMSEG_KD_KERNELS`` says: 'auto' (as when it is absent), 'naive' or 'triton'.

    Raises:
        ValueError: another word; 'triton' without Triton's interpreter, for tensors on the CPU.
    """
    choice = os.environ.get(_SWITCH, 'auto')
    if choice not in ('auto', 'naive', 'triton'):
        raise ValueError(f"the environment variable {_SWITCH} must be 'auto', 'naive' or 'triton', got {choice!r}")
    return choice


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


@functools.lru_cache(maxsize=None)
def gpu_operators():
    """The module of the GPU's operators, or None where Triton is missing or too old; said once."""
    try:
        if tuple(map(int, version('triton').split('.')[:2])) < OLDEST_TRITON:
            raise ImportError(f'Triton {version("triton")} is older than {".".join(map(str, OLDEST_TRITON))}')
        from . import gpu
        return gpu
    except ImportError as error:  # the package's metadata is missing, it is old, or it does not import
        warnings.warn(f'the fast losses for the GPU are off, since Triton cannot be used ({error!r}); the plain ones '
                      'give the same numbers slowly. It comes with the CUDA builds of torch', stacklevel=2)
        return None


def _gpu_operators_on(device: torch.device):
    if device.type == 'cpu' and os.environ.get('TRITON_INTERPRET') != '1':
        raise ValueError(f"{_SWITCH}='triton' takes tensors on the CPU through Triton's interpreter alone: set "
                         'TRITON_INTERPRET=1 before the process starts, or leave the choice at \'auto\'')
    operators = gpu_operators()
    return operators if operators is not None and operators.runs_on(device) else None


def _is_plain_tensor(tensor: Tensor) -> bool:
    functorch = torch._C._functorch
    return type(tensor) in (Tensor, torch.nn.Parameter) and not functorch.is_functorch_wrapped_tensor(tensor)


def may_fuse(student: Tensor, teacher: Tensor, weight: Optional[Tensor] = None) -> bool:
    """Whether value and gradient of these tensors may be computed together, by whatever does so."""
    if torch.compiler.is_compiling() or kernels_choice() == 'naive' or student.numel() == 0:
        return False
    return all(map(_is_plain_tensor, (student, teacher))) and not (weight is not None and weight.requires_grad)


def operators_for(student: Tensor, teacher: Tensor, weight: Optional[Tensor] = None):
    """The module with the operators for these tensors, or None where the plain form must do."""
    if not may_fuse(student, teacher, weight):
        return None
    choice = kernels_choice()
    if student.device.type == 'cuda' or choice == 'triton':
        operators = _gpu_operators_on(student.device)
    elif student.device.type == 'cpu':
        operators, (student, teacher) = cpu_operators(), promoted(student, teacher)
    else:
        return None
    return operators if operators is not None and operators.covers(student, teacher) else None


def trusted(operators, spec: LossSpec, student: Tensor, teacher: Tensor, upsamples: bool, with_weight: bool = False,
            with_rank: bool = False) -> bool:
    """Whether an operator may be used: on a GPU each kernel first passes :func:`.trial.passes_trial`, once."""
    if not is_on_trial(student.device):
        return True
    return passes_trial(operators, spec, Variant(student.device, student.shape[1], student.dtype, teacher.dtype,
                                                 upsamples, with_weight, with_rank))


def is_on_trial(device: torch.device) -> bool:
    """Whether kernels are tried before they are used; the CPU's are the same everywhere and tested."""
    return device.type == 'cuda' and not torch.cuda.is_current_stream_capturing()


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
        plain: computes from (student, teacher) of one type, float32 or better, the (N, *) map that defines the loss.
        spec: the same loss in the operators' words; None where they have none.
        student, teacher: (N, C, *) logits that have been checked, or logits to be upsampled to that, of any types.
        valid: (N, *) bool.
        weight: (N, *) or None.
        reduction: 'mean', 'sum' or 'none'; a map is left to the plain form.
        target: (N, *) int64, for specs that need one.
        rank: (N, *) integers, the boundary of each position where ``spec`` has none for all.
    """
    operators = None
    small = leaf_of(student), leaf_of(teacher)
    if spec is not None and reduction != 'none':
        operators = operators_for(*small, weight)
    to_upsample = any(isinstance(logits, Upsampled) for logits in (student, teacher))
    upsamples = operators is not None and isinstance(student, Upsampled) and operators.upsamples(student, spec)
    if operators is not None and not trusted(operators, spec, *small, upsamples, weight is not None, rank is not None):
        operators, upsamples = None, False
    if operators is None or not operators.READS_HALF or to_upsample and not upsamples:
        student, teacher = promoted(student, teacher)
    if to_upsample and not upsamples:
        student, teacher = at_full_size(student), at_full_size(teacher)
    if operators is None:
        return reduce_map(plain(student, teacher), valid, weight, reduction)
    # On a CPU the sum of a map of truth values makes it one of int64 first, a tenth of a map of 19 logits.
    divisor = divisor_of(torch.count_nonzero(valid), reduction)

    def plain_loss() -> Tensor:
        full = at_full_size(student), at_full_size(teacher)
        return reduce_map(plain(*promoted(*full)), valid, weight, 'sum') / divisor

    return operators.loss(student, teacher, valid, weight, divisor, target, rank, spec, plain_loss)

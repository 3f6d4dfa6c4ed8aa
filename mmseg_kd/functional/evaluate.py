"""From checked tensors to a loss: the form that computes it, and the one reduction, over all parts of a batch.

The plain form of a loss defines it. An operator computes value and gradient in one visit to the logits, and must agree
with the plain form. :func:`loss_of` takes the operator where there is one: never for float64, under ``torch.func``
transforms or ``torch.compile``, and second derivatives are the plain form's as well. DGKD's coupling term has an
operator in PyTorch in its own file, block by block, for any device.

``MMSEG_KD_KERNELS=naive`` in the environment leaves all to the plain forms; ``MMSEG_KD_KERNELS=triton`` with
``TRITON_INTERPRET=1`` takes tensors on the CPU through the GPU's kernels in Triton's interpreter, which is slow and for
tests.
"""
import functools
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.metadata import version
from types import ModuleType

import torch
from torch import Tensor

from .checks import Inputs
from .kinds import Loss, has_operators
from .trial import Variant, passes_trial
from .upsampled import Upsampled, at_full_size, leaf_of

__all__ = ['cpu_operators', 'divisor_of', 'gpu_operators', 'inputs_for', 'joined_batch', 'kernels_choice', 'loss_of',
           'may_fuse', 'operators_for', 'over_batch', 'plain_inputs', 'promoted', 'reduce_map', 'reduced',
           'same_batch']

_SWITCH = 'MMSEG_KD_KERNELS'
OLDEST_TRITON = 3, 6

#: Combines a tensor without gradient over all parts of a batch, by 'sum' or 'max'.
Combine = Callable[[Tensor, str], Tensor]

# A plain global, which `torch.compile` can guard; one training step runs at a time in a process.
_parts: tuple[Combine, int] | None = None


def loss_of(loss: Loss, inputs: Inputs) -> Tensor:
    """The reduced loss that ``loss`` describes, by an operator where there is one.

    Args:
        loss: a description, such as :class:`.grouped.GroupedLoss`.
        inputs: what :func:`.checks.checked` returns. A map (reduction 'none') is left to the plain form.
    """
    operators = operators_for(loss, inputs)
    if operators is None:
        return reduced(functools.partial(loss.map, target=inputs.target), inputs)
    chosen = inputs_for(operators, loss, inputs)
    # On a CPU the sum of a map of truth values makes it one of int64 first, a tenth of a map of 19 logits.
    divisor = divisor_of(torch.count_nonzero(inputs.valid), inputs.reduction)

    def plain() -> Tensor:
        return reduced(functools.partial(loss.map, target=inputs.target), chosen._replace(reduction='sum')) / divisor

    return operators.loss(loss, chosen, divisor, plain)


def inputs_for(operators: ModuleType, loss: Loss, inputs: Inputs) -> Inputs:
    """The inputs with logits as an operator takes them: of one type, at full size, unless it needs neither."""
    small = isinstance(inputs.student, Upsampled) or isinstance(inputs.teacher, Upsampled)
    upsamples = isinstance(inputs.student, Upsampled) and operators.upsamples(inputs.student, loss)
    chosen = inputs if operators.READS_HALF and (upsamples or not small) else promoted(inputs)
    if small and not upsamples:
        chosen = chosen._replace(student=at_full_size(chosen.student), teacher=at_full_size(chosen.teacher))
    return chosen


def reduced(map_of: Callable[[Tensor, Tensor], Tensor], inputs: Inputs, count: Tensor | None = None) -> Tensor:
    """The reduced loss by its plain form.

    Args:
        map_of: computes the (N, *) map of the loss from student and teacher as :func:`plain_inputs` makes them.
        inputs: what :func:`.checks.checked` returns.
        count: what the mean divides by, when it is not the number of valid positions.
    """
    inputs = plain_inputs(inputs)
    return reduce_map(map_of(inputs.student, inputs.teacher), inputs.valid, inputs.weight, inputs.reduction, count)


def plain_inputs(inputs: Inputs) -> Inputs:
    """The inputs with logits as a plain form takes them: at full size, of one type, and 0 where nothing counts.

    What lies at a position that does not count may be anything: a NaN there would reach the gradient of the others, as
    0 times NaN.
    """
    inputs = promoted(inputs)
    if isinstance(inputs.student, Upsampled) or isinstance(inputs.teacher, Upsampled):
        inputs = inputs._replace(student=at_full_size(inputs.student), teacher=at_full_size(inputs.teacher))
    if inputs.all_count:
        return inputs
    nothing = ~inputs.valid.unsqueeze(1)
    return inputs._replace(
        student=inputs.student.masked_fill(nothing, 0.), teacher=inputs.teacher.masked_fill(nothing, 0.))


def promoted(inputs: Inputs) -> Inputs:
    """The inputs with logits of one type, float32 or better."""
    dtype = torch.promote_types(inputs.student.dtype, inputs.teacher.dtype)
    dtype = dtype if dtype == torch.float64 else torch.float32
    return inputs._replace(student=inputs.student.to(dtype), teacher=inputs.teacher.to(dtype))


def reduce_map(values: Tensor,
               valid: Tensor,
               weight: Tensor | None = None,
               reduction: str = 'mean',
               count: Tensor | None = None) -> Tensor:
    """Reduce a map of loss values, each already summed over the classes.

    The mean divides by the *number* of valid positions, not by the sum of the weights: a weight of 2 counts double,
    as everywhere in OpenMMLab, and neither ignored positions nor the size of crop or batch change the scale.

    Args:
        values: (N, *) loss of each position.
        valid: (N, *) bool, see :func:`.checks.valid_positions`.
        weight: (N, *) factor of each position; at invalid positions it may be anything.
        reduction: 'mean' over valid positions (0, with a graph, when there is none), 'sum', or 'none' for the (N, *)
            map with zeros at invalid positions.
        count: what the mean divides by, when it is not the number of valid positions.

    In a :func:`joined_batch` the number is that of all its parts.

    Example:
        >>> import torch
        >>> values = torch.tensor([1., 2., 6.])
        >>> reduce_map(values, torch.tensor([True, True, False]))
        tensor(1.5000)
    """
    values = values.masked_fill(~valid, 0.)
    if weight is not None:
        values = values * weight.to(values.dtype).masked_fill(~valid, 0.)
    if reduction == 'none':
        return values
    if reduction == 'sum':
        return values.sum()
    if reduction == 'mean':
        return values.sum() / divisor_of(valid.sum() if count is None else count)
    raise ValueError(f"`reduction` must be 'mean', 'sum' or 'none', got {reduction!r}")


@contextmanager
def joined_batch(combine: Combine, number: int) -> Iterator[None]:
    """Within the block a loss is a share of the loss of the joined batch, of which each process holds a part.

    The mean of a part divides by the valid positions of *all* parts over their number, so that the average over the
    parts, which is what data-parallel training makes of losses and gradients, is the mean over all valid positions,
    however they are distributed. A part without any gives 0, with a graph, and still takes part in every combination.

    Nothing here knows of processes: who trains knows them, and how to combine their numbers. All parts must compute
    the same losses in the same order.

    Args:
        combine: called as ``combine(tensor, op)`` with op 'sum' or 'max' on tensors without gradient; returns the
            combination over all parts, the same in each, in a new tensor.
        number: how many parts there are.
    """
    global _parts
    before, _parts = _parts, (combine, number)
    try:
        yield
    finally:
        _parts = before


def same_batch() -> AbstractContextManager:
    """The present batch's context, for what is computed later than it ends: a second derivative, say."""
    return nullcontext() if _parts is None else joined_batch(*_parts)


def over_batch(value: Tensor, op: str = 'sum') -> Tensor:
    """``value``, which has no gradient, combined over all parts of the batch."""
    return value if _parts is None else _parts[0](value, op)


def divisor_of(count: Tensor, reduction: str = 'mean') -> Tensor:
    """What the sum over this part is divided by to be its share of the mean, from the number of positions that count
    here; 1 for another reduction."""
    if reduction != 'mean':
        return torch.ones_like(count)
    if _parts is None:
        return count.clamp(min=1)
    return over_batch(count).clamp(min=1) / _parts[1]


def kernels_choice() -> str:
    """What ``MMSEG_KD_KERNELS`` says: 'auto' (as when it is absent), 'naive' or 'triton'.

    Raises:
        ValueError: another word; 'triton' without Triton's interpreter, for tensors on the CPU.
    """
    choice = os.environ.get(_SWITCH, 'auto')
    if choice not in ('auto', 'naive', 'triton'):
        raise ValueError(f"the environment variable {_SWITCH} must be 'auto', 'naive' or 'triton', got {choice!r}")
    return choice


def may_fuse(inputs: Inputs) -> bool:
    """Whether value and gradient may be computed together, by whatever does so."""
    if torch.compiler.is_compiling() or kernels_choice() == 'naive' or inputs.reduction == 'none':
        return False
    for leaf in leaf_of(inputs.student), leaf_of(inputs.teacher):
        if type(leaf) not in (Tensor, torch.nn.Parameter) or torch._C._functorch.is_functorch_wrapped_tensor(leaf):
            return False
    return leaf.numel() > 0 and not (inputs.weight is not None and inputs.weight.requires_grad)


def operators_for(loss: Loss, inputs: Inputs) -> ModuleType | None:
    """The module with the operators for a loss of these tensors, or None where the plain form must do."""
    if not may_fuse(inputs) or not has_operators(loss):
        return None
    device = inputs.student.device
    if device.type == 'cuda' or kernels_choice() == 'triton':
        operators = _gpu_operators_on(device)
    elif device.type == 'cpu':
        operators = cpu_operators()
    else:
        return None
    if operators is None or not operators.covers(loss, inputs):
        return None
    return operators if not is_on_trial(device) or _trusted(operators, loss, inputs) else None


def _trusted(operators: ModuleType, loss: Loss, inputs: Inputs) -> bool:
    upsamples = isinstance(inputs.student, Upsampled) and operators.upsamples(inputs.student, loss)
    student, teacher = leaf_of(inputs.student), leaf_of(inputs.teacher)
    variant = Variant(student.device, student.shape[1], student.dtype, teacher.dtype, upsamples,
                      inputs.weight is not None)
    return passes_trial(operators, loss, variant)


def is_on_trial(device: torch.device) -> bool:
    """Whether kernels are tried before they are used; the CPU's are the same everywhere and tested."""
    return device.type == 'cuda' and not torch.cuda.is_current_stream_capturing()


@functools.lru_cache(maxsize=None)
def cpu_operators() -> ModuleType | None:
    """The module of the CPU's operators, or None where numba does not work; said once."""
    try:
        from .cpu import operators
        return operators
    except Exception as error:  # numba raises what it likes where it is broken or may not write its cache
        warnings.warn(f'the fast losses for the CPU are off, since numba does not work here ({error!r}); the plain '
                      'ones give the same numbers slowly. Install numba, and give its cache a place: '
                      'NUMBA_CACHE_DIR=/some/folder', stacklevel=2)
        return None


@functools.lru_cache(maxsize=None)
def gpu_operators() -> ModuleType | None:
    """The module of the GPU's operators, or None where Triton is missing or too old; said once."""
    try:
        if tuple(map(int, version('triton').split('.')[:2])) < OLDEST_TRITON:
            raise ImportError(f'Triton {version("triton")} is older than {".".join(map(str, OLDEST_TRITON))}')
        from .gpu import operators
        return operators
    except ImportError as error:  # the package's metadata is missing, it is old, or it does not import
        warnings.warn(f'the fast losses for the GPU are off, since Triton cannot be used ({error!r}); the plain ones '
                      'give the same numbers slowly. It comes with the CUDA builds of torch', stacklevel=2)
        return None


def _gpu_operators_on(device: torch.device) -> ModuleType | None:
    if device.type == 'cpu' and os.environ.get('TRITON_INTERPRET') != '1':
        raise ValueError(f"{_SWITCH}='triton' takes tensors on the CPU through Triton's interpreter, nowhere else: "
                         'set TRITON_INTERPRET=1 before the process starts, or leave the choice at \'auto\'')
    operators = gpu_operators()
    return operators if operators is not None and operators.runs_on(device) else None

"""A trial of an operator on the device that it is about to run on, against the plain form in float64.

A kernel that a compiler or a device gets wrong must cost speed, never a training run.
"""
import warnings
from dataclasses import replace
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from .checks import Inputs
from .grouped import GroupedLoss, RandomPart
from .kinds import ChannelWise, CrossEntropy, Loss
from .upsampled import Upsampled, at_full_size

__all__ = ['Variant', 'passes_trial']

#: Positions, more than one tile of them and a rest, and the small maps that are upsampled to that.
_SIZE, _SMALL = (6, 70), (3, 35)
#: Of the largest gradient; half types round it by their own.
_TOLERANCE = {torch.float32: 1e-4, torch.float16: 2e-3, torch.bfloat16: 1e-2}


class Variant(NamedTuple):
    """What else than the loss decides which kernel runs."""

    device: torch.device
    num_classes: int
    student: torch.dtype
    teacher: torch.dtype
    upsamples: bool
    with_weight: bool


#: What a loss was found to be, under everything that decides which kernel runs.
_found: dict[tuple, bool] = {}


def passes_trial(operators: ModuleType, loss: Loss, variant: Variant) -> bool:
    """Whether an operator gives the plain form's value and gradient on a small random problem; if not, said once.

    Args:
        operators: the module of the operators.
        loss: the description of the loss.
        variant: see :class:`Variant`.

    What the device lacks at the moment, memory, says nothing about the kernel: it raises, and is tried again.
    """
    key = operators, loss, variant
    if key not in _found:
        _found[key] = _passes_trial(*key)
    return _found[key]


def _passes_trial(operators: ModuleType, loss: Loss, variant: Variant) -> bool:
    devices = [variant.device] if variant.device.type == 'cuda' else []
    if isinstance(loss, GroupedLoss) and isinstance(loss.groups, RandomPart):
        loss = replace(loss, groups=RandomPart(1.))  # of which both forms draw the same
    try:
        # Training's random numbers stay where they are.
        with torch.random.fork_rng(devices=devices), torch.inference_mode(False), torch.enable_grad():
            difference = _difference(operators, loss, variant)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # a compiler or a driver raises what it likes
        found = f'raised {error!r}'
    else:
        if difference <= _TOLERANCE[variant.student]:
            return True
        found = f'differs from the plain form by {difference:.1e}'
    warnings.warn(f'the fast form of a loss is off: on {variant.device} it {found}, on a trial of {loss} with '
                  f'{variant.num_classes} classes, {variant.student}. The plain form takes over, slowly; please report '
                  'this', stacklevel=2)
    return False


def _difference(operators: ModuleType, loss: Loss, variant: Variant) -> float:
    """Largest relative difference of value and gradient; infinite where they are not finite."""
    generator = torch.Generator().manual_seed(0)
    size = _SMALL if variant.upsamples else _SIZE
    student, teacher = (3 * torch.randn(2, variant.num_classes, *size, generator=generator) for _ in range(2))
    student, teacher = student.to(variant.device, variant.student), teacher.to(variant.device, variant.teacher)
    target = torch.randint(variant.num_classes, (2, *_SIZE), generator=generator)
    valid = torch.rand(target.shape, generator=generator) < .8
    weight = torch.rand(target.shape, generator=generator) if variant.with_weight else None
    target, valid, weight = (None if each is None else each.to(variant.device) for each in (target, valid, weight))

    def result(logits: Tensor, exact: bool) -> tuple[Tensor, Tensor]:
        leaf = logits.detach().requires_grad_()
        maps = tuple(Upsampled(each, _SIZE) if variant.upsamples else each
                     for each in (leaf, teacher.to(leaf.dtype) if exact else teacher))
        inputs = Inputs(*maps, target, weight, valid, False, 'mean')
        value = _plain(loss, inputs) if exact else _by_operator(operators, loss, inputs)
        return value.detach().double(), torch.autograd.grad(value, leaf)[0].double()

    value, gradient = result(student, False)
    wanted, slope = result(student.double(), True)
    differences = torch.stack([(value - wanted).abs() / wanted.abs().clamp(min=1e-6),
                               (gradient - slope).abs().amax() / slope.abs().amax().clamp(min=1e-12)])
    return torch.nan_to_num(differences, nan=torch.inf).amax().item()


def _by_operator(operators: ModuleType, loss: Loss, inputs: Inputs) -> Tensor:
    if isinstance(loss, CrossEntropy):
        return operators.cross_entropy(inputs, None)[0] / inputs.valid.sum()
    if isinstance(loss, ChannelWise):
        return operators.channel_wise(loss, inputs, inputs.valid.sum(), None)
    return operators.loss(loss, inputs, inputs.valid.sum(), None)


def _plain(loss: Loss, inputs: Inputs) -> Tensor:
    third = inputs.valid if isinstance(loss, ChannelWise) else inputs.target
    values = loss.map(at_full_size(inputs.student), at_full_size(inputs.teacher), third)
    values = values * (1 if inputs.weight is None else inputs.weight)
    return values.masked_fill(~inputs.valid, 0.).sum() / inputs.valid.sum()

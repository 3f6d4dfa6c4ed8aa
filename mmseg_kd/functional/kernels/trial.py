"""A trial of an operator on the device that it is about to run on, against the plain form in float64.

A kernel that a compiler or a device gets wrong must cost speed, never a training run.
"""
import functools
import warnings
from typing import NamedTuple, Tuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..grouped import grouped_kl
from ..grouping import by_rank, class_index, one_group, target_and_rest
from ..topk import k_by_ratio
from ..upsampled import Logits, Upsampled
from .spec import LossSpec

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
    with_rank: bool


@functools.lru_cache(maxsize=None)
def passes_trial(operators, spec: LossSpec, variant: Variant) -> bool:
    """Whether an operator gives the plain form's value and gradient on a small random problem; if not, said once.

    Args:
        operators: the module of the operators.
        spec: the loss.
        variant: see :class:`Variant`.
    """
    devices = [variant.device] if variant.device.type == 'cuda' else []
    try:
        # Training's random numbers stay where they are.
        with torch.random.fork_rng(devices=devices), torch.enable_grad():
            difference = _difference(operators, spec._replace(keep=1.), variant)
    except Exception as error:  # a compiler or a driver raises what it likes
        found = f'raised {error!r}'
    else:
        if difference <= _TOLERANCE[variant.student]:
            return True
        found = f'differs from the plain form by {difference:.1e}'
    warnings.warn(f'the fast form of a loss is off: on {variant.device} it {found}, on a trial of {spec} with '
                  f'{variant.num_classes} classes, {variant.student}. The plain form takes over, slowly; please report '
                  'this', stacklevel=2)
    return False


def _difference(operators, spec: LossSpec, variant: Variant) -> float:
    """Largest relative difference of value and gradient; infinite where they are not finite."""
    generator = torch.Generator().manual_seed(0)
    size = _SMALL if variant.upsamples else _SIZE
    student, teacher = (3 * torch.randn(2, variant.num_classes, *size, generator=generator) for _ in range(2))
    student, teacher = student.to(variant.device, variant.student), teacher.to(variant.device, variant.teacher)
    target = torch.randint(variant.num_classes, (2, *_SIZE), generator=generator)
    valid = torch.rand(target.shape, generator=generator) < .8
    weight = torch.rand(target.shape, generator=generator) if variant.with_weight else None
    largest = max(spec.boundaries[-1] if spec.boundaries else 1, 1)
    rank = torch.randint(1, largest + 1, target.shape, generator=generator) if variant.with_rank else None
    target, valid, weight, rank = (None if each is None else each.to(variant.device)
                                   for each in (target, valid, weight, rank))

    def result(logits: Tensor, exact: bool) -> Tuple[Tensor, Tensor]:
        leaf = logits.detach().requires_grad_()
        maps = tuple(Upsampled(each, _SIZE) if variant.upsamples else each
                     for each in (leaf, teacher.to(leaf.dtype) if exact else teacher))
        value = (_plain if exact else _by_operator)(operators, spec, *maps, target, valid, weight, rank)
        return value.detach().double(), torch.autograd.grad(value, leaf)[0].double()

    value, gradient = result(student, False)
    wanted, slope = result(student.double(), True)
    differences = torch.stack([(value - wanted).abs() / wanted.abs().clamp(min=1e-6),
                               (gradient - slope).abs().amax() / slope.abs().amax().clamp(min=1e-12)])
    return torch.nan_to_num(differences, nan=torch.inf).amax().item()


def _by_operator(operators, spec: LossSpec, student: Logits, teacher: Logits, target, valid, weight, rank) -> Tensor:
    if spec.kind == 'cross_entropy':
        return operators.cross_entropy(student, target, valid, None)[0] / valid.sum()
    return operators.loss(student, teacher, valid, weight, valid.sum(), target, rank, spec, None)


def _plain(_, spec: LossSpec, student: Logits, teacher: Logits, target, valid, weight, rank) -> Tensor:
    z, v = (each.computed() if isinstance(each, Upsampled) else each for each in (student, teacher))
    values = _plain_map(spec, z, v, target, rank) * (1 if weight is None else weight)
    return values.masked_fill(~valid, 0.).sum() / valid.sum()


def _plain_map(spec: LossSpec, z: Tensor, v: Tensor, target: Tensor, rank) -> Tensor:
    # These files import the dispatcher.
    from ..binary_kl import binary_kl_map
    from ..binary_kl_norm import binary_kl_norm_map
    if spec.kind == 'cross_entropy':
        return F.cross_entropy(z, target, reduction='none')
    if spec.kind == 'binary':
        return binary_kl_map(z, v, temperature=spec.temperature)
    if spec.kind == 'binary_norm':
        return binary_kl_norm_map(z, v, temperature=spec.temperature)
    if spec.kind == 'all':
        groups = one_group(z)
    elif spec.kind == 'target':
        groups = target_and_rest(z, target)
    elif spec.kind == 'random':  # of which all are kept here
        groups = 2 * (class_index(z) != target.unsqueeze(1)).to(torch.int8)
    elif spec.ratio:
        groups = by_rank(v, [k_by_ratio(v, spec.ratio, spec.boundaries[-1], spec.temperature)], spec.strategy)
    else:
        groups = by_rank(v, spec.boundaries if rank is None else [rank], spec.strategy)
    return grouped_kl(z, v, groups, len(spec.w_within), temperature=spec.temperature, w_between=spec.w_between,
                      w_within=spec.w_within, divergence=spec.divergence).total

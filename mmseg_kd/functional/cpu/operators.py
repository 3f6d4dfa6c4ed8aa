"""What :func:`..evaluate.loss_of` calls on a CPU."""
import functools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..checks import Inputs
from ..grouped import ByClass, ByLabel, ByRank, GroupedLoss
from ..kinds import COUPLED, GIVEN, RANDOM, TARGET, ChannelWise, CrossEntropy, Loss, kind_of
from ..upsampled import Upsampled, at_full_size, leaf_of, with_gradient
from . import channels, same_resolution, upsampling
from .block import Settings

__all__ = ['COUPLES', 'READS_HALF', 'channel_wise', 'coupled', 'covers', 'cross_entropy', 'loss', 'upsamples']

READS_HALF = False  #: whether logits of 16 bits may come as they are
COUPLES = True  #: whether :func:`coupled` is here


@functools.lru_cache(maxsize=64)
def _settings(loss: Loss, num_classes: int) -> Settings:
    grouped = loss if isinstance(loss, GroupedLoss) else GroupedLoss(ByRank((1, )))
    ranks = grouped.groups if isinstance(grouped.groups, ByRank) else ByRank((1, ))
    within = np.zeros(max(3, len(grouped.w_within)), np.float32)
    within[:len(grouped.w_within)] = grouped.w_within
    reverse = dict(forward=0., both=.5, reverse=1.)[grouped.divergence]
    boundaries = [min(boundary, num_classes) for boundary in ranks.boundaries]
    return Settings(
        kind=kind_of(loss),
        temperature=np.float32(loss.temperature),
        num_groups=len(grouped.w_within),
        w_between=np.float32(grouped.w_between),
        w_within=within,
        forward=np.float32(1 - reverse),
        reverse=np.float32(reverse),
        boundaries=np.array(boundaries, np.int32),
        largest=max(boundaries),
        leading=ranks.strategy == 'best',
        ratio=np.float32(ranks.ratio or 0.),
        keep=np.float32(getattr(grouped.groups, 'keep', 1.)))


def covers(loss: Loss, inputs: Inputs) -> bool:
    """Whether the machine code works on such tensors, once they are of one type."""
    return torch.float64 not in (inputs.student.dtype, inputs.teacher.dtype)


def upsamples(student: Upsampled, loss: Loss) -> bool:
    """Whether a loss can be computed without the full map. A draw is one number per class and position anyway."""
    return kind_of(loss) != RANDOM


def _positions_last(tensor: Tensor) -> Tensor:
    """(N, C, *) as contiguous (N, C, P); (N, C) as (1, C, N): the positions are what runs fastest."""
    if tensor.dim() == 2:
        return tensor.t().contiguous().unsqueeze(0)
    return tensor.contiguous().flatten(2) if tensor.dim() > 3 else tensor.contiguous()


def _map(tensor: Tensor | None, is_flat: bool, dtype: torch.dtype) -> Tensor | None:
    """(N, *) as contiguous (N, P), and (N,) as (1, N)."""
    if tensor is None:
        return None
    tensor = tensor.detach().to(dtype).contiguous()
    return tensor.unsqueeze(0) if is_flat else tensor.flatten(1)


def _given(loss: Loss, inputs: Inputs) -> Tensor:
    """Groups that the machine code does not form itself: (images, labels, C, positions) int8, 1 where all are alike."""
    if isinstance(loss.groups, (ByClass, ByLabel)):
        return loss.groups.table(inputs.student.shape[1], 'cpu').view(1, -1, inputs.student.shape[1], 1)
    groups = loss.groups.map(at_full_size(inputs.teacher), inputs.target, loss.temperature)
    return _positions_last(groups.to(torch.int8)).unsqueeze(1)


def _computation(loss: Loss, inputs: Inputs, divisor: Tensor) -> Callable[..., tuple[Tensor, Tensor, np.ndarray]]:
    """A function of :class:`Settings` that has value, gradient of the student's own shape, and figures."""
    student, teacher = inputs.student, inputs.teacher
    kind, scale, is_flat = kind_of(loss), 1 / float(divisor), len(student.shape) == 2
    with_target = kind in (TARGET, RANDOM) or kind == GIVEN and isinstance(loss.groups, ByLabel)
    rank = None
    if isinstance(loss, GroupedLoss) and isinstance(loss.groups, ByRank):
        rank = _map(loss.groups.boundary_of(inputs.target), is_flat, torch.int32)
    maps = dict(valid=_map(inputs.valid, is_flat, torch.bool), weight=_map(inputs.weight, is_flat, torch.float32),
                target=_map(inputs.target, is_flat, torch.int64) if with_target else None, rank=rank,
                given=_given(loss, inputs) if kind == GIVEN else None, scale=scale)
    if isinstance(student, Upsampled):
        if not isinstance(teacher, Upsampled):
            teacher = Upsampled(teacher, student.size, student.align_corners)
        logits = student.logits.detach().contiguous(), teacher.logits.contiguous()

        def of_small(settings: Settings) -> tuple[Tensor, Tensor, np.ndarray]:
            value, gradient, _, figures = upsampling.loss_and_gradient(
                *logits, student.size, (student.align_corners, teacher.align_corners), class_weight=None,
                settings=settings, **maps)
            return value.to(student.dtype), gradient, figures

        return of_small
    logits = _positions_last(student.detach()), _positions_last(teacher)

    def of_full(settings: Settings) -> tuple[Tensor, Tensor, np.ndarray]:
        value, gradient, figures = same_resolution.loss_and_gradient(*logits, settings=settings, **maps)
        gradient = gradient.squeeze(0).t() if is_flat else gradient.view(student.shape)
        return value.to(student.dtype), gradient, figures

    return of_full


def loss(loss: Loss, inputs: Inputs, divisor: Tensor, plain) -> Tensor:
    """The sum of weight times loss over valid positions, divided by ``divisor``.

    Args:
        loss: the description.
        inputs: with float32 logits, or logits to be upsampled; gradients reach the student.
        divisor: scalar.
        plain: the same by the plain form, for second derivatives.
    """
    computation, settings = _computation(loss, inputs, divisor), _settings(loss, inputs.student.shape[1])
    return with_gradient(leaf_of(inputs.student), functools.partial(computation, settings),
                         None if settings.kind == RANDOM else plain)


def coupled(dkd: GroupedLoss, inputs: Inputs, divisor: Tensor, plain,
            value_and_slope: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Tensor:
    """As :func:`loss`, of DKD and the coupling term: one visit takes the term's figures, a second one the rest.

    Args:
        dkd: the description without the term.
        value_and_slope: of the figures that :func:`.grouped.coupled_block` takes, summed over all positions (the
            largest difference: the largest), the term and the factor of its direction.
    """
    computation = _computation(dkd, inputs, divisor)
    settings = _settings(dkd, inputs.student.shape[1])._replace(kind=COUPLED)
    figures = computation(settings._replace(sums_only=True))[2]
    term, slope = value_and_slope(torch.tensor([*figures[:, :4].sum(0), figures[:, 4].max()]))

    def compute() -> tuple[Tensor, Tensor]:
        value, gradient, _ = computation(settings._replace(slope=np.float32(slope)))
        return (value + term).to(value.dtype), gradient

    return with_gradient(leaf_of(inputs.student), compute, plain)


def cross_entropy(inputs: Inputs, class_weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """Sum of the cross-entropy over valid positions, and how many of them are classified rightly.

    Args:
        inputs: the student's small float32 logits, to be upsampled, and (N, H, W) labels.
        class_weight: (C,) factor by label, or None.
    """
    logits, target, valid = inputs.student, inputs.target, inputs.valid
    settings = _settings(CrossEntropy(), logits.shape[1])
    weight = None if class_weight is None else class_weight.detach().float().contiguous()
    count = torch.zeros((), dtype=torch.int64)

    def compute() -> tuple[Tensor, Tensor]:
        value, gradient, correct, _ = upsampling.loss_and_gradient(
            logits.logits.detach().contiguous(), None, logits.size, (logits.align_corners, logits.align_corners),
            valid=_map(valid, False, torch.bool), weight=None, class_weight=weight, scale=1.,
            target=_map(target, False, torch.int64), rank=None, given=None, settings=settings)
        count.fill_(correct)
        return value.to(logits.dtype), gradient

    def plain() -> Tensor:
        chosen = target.masked_fill(~valid, -100)
        return F.cross_entropy(logits.computed(), chosen, class_weight, ignore_index=-100, reduction='sum')

    return with_gradient(logits.logits, compute, plain), count


def channel_wise(loss: ChannelWise, inputs: Inputs, divisor: Tensor, plain) -> Tensor:
    """As :func:`loss`, for the loss whose distributions run over positions."""
    student, teacher, leaf = inputs.student, inputs.teacher, leaf_of(inputs.student)
    if isinstance(student, Upsampled):
        teacher = teacher if isinstance(teacher, Upsampled) else Upsampled(teacher, student.size)
        student = student._replace(logits=leaf.detach().contiguous())
        teacher = teacher._replace(logits=teacher.logits.contiguous())
    else:
        student, teacher = _positions_last(student.detach()), _positions_last(teacher)
    valid, weight = _map(inputs.valid, False, torch.bool), _map(inputs.weight, False, torch.float32)

    def compute() -> tuple[Tensor, Tensor]:
        value, gradient = channels.loss_and_gradient(
            student, teacher, valid=valid, weight=weight, temperature=loss.temperature,
            scale=loss.temperature / (leaf.shape[1] * float(divisor)))
        return value.to(leaf.dtype), gradient.view(leaf.shape)

    return with_gradient(leaf, compute, plain)

"""The operator of DGKD's coupling term: value and gradient from closed forms, a few positions at a time, by PyTorch.

The term divides by a mean over the whole batch, but that is one factor: what each position adds to the gradient is
known before it. So no graph is kept, and what is made for a few positions is still in the cache when it is read again.
"""
from typing import Callable, List, NamedTuple, Optional, Tuple

import torch
from torch import Tensor

from ..coupling import SAME_GRADIENT, CouplingSettings, part_gradients, share_kept
from ..joined import over_batch, same_batch
from ..upsampled import Logits, leaf_of
from .autograd import with_gradient
from .parts import part_and_way_back, together_on

__all__ = ['coupling_loss']


class _Sums(NamedTuple):
    """Over valid positions, float64; m is as in :mod:`..coupling`."""

    m: Tensor
    weighted_m: Tensor
    direction: Tensor  #: squares of the gradient's direction
    dkd: Tensor  #: squares of the gradient of DKD
    largest: Tensor  #: largest difference of the two gradients


def coupling_loss(student: Logits, teacher: Logits, target: Tensor, valid: Tensor, weight: Optional[Tensor],
                  divisor: Tensor, settings: CouplingSettings, plain: Callable[[], Tensor]) -> Tensor:
    """The sum of weight times :func:`..coupling.coupling_map` over valid positions, divided by ``divisor``.

    Args:
        student, teacher: (N, C, *) logits of one type, or logits to be upsampled; gradients reach the student.
        target: (N, *) int64 labels.
        valid: (N, *) bool.
        weight: (N, *) factor of each position, or None.
        divisor: scalar.
        settings: of the loss.
        plain: the same by the plain form, for second derivatives.
    """
    leaf = leaf_of(student)
    with torch.no_grad():
        sums, first = _sums_and_directions(student, teacher, target, valid, weight, settings)
        value, factor = _value_and_factor(sums, valid, student.shape[1], settings)
        value, factor = (value / divisor).to(leaf.dtype), (factor / divisor).to(leaf.dtype)
    # A second pass through the graph needs the directions anew, but of the batch only what is known by then.
    made, context = [first], same_batch()

    def compute() -> Tuple[Tensor, Tensor]:
        with torch.no_grad():
            directions = made.pop() if made else _sums_and_directions(student, teacher, target, valid, weight,
                                                                      settings)[1]
            return value, directions.mul_(factor)

    def plain_in_batch() -> Tensor:
        with context:
            return plain()

    return with_gradient(leaf, compute, plain_in_batch)


def _value_and_factor(sums: _Sums, valid: Tensor, num_classes: int,
                      settings: CouplingSettings) -> Tuple[Tensor, Tensor]:
    """The term, and what the directions are multiplied with, both before the division; float64 scalars."""
    m, direction, dkd = (over_batch(each) for each in (sums.m, sums.direction, sums.dkd))
    same = over_batch(sums.largest, 'max') < SAME_GRADIENT
    mean = (m / over_batch(torch.count_nonzero(valid)).clamp(min=1)).masked_fill(same, 1.)
    factor = (-settings.epsilon / mean).masked_fill(same, 0.)
    slope = 2 / num_classes * factor
    if settings.cap is not None:
        kept = share_kept(slope.abs() * direction.sqrt(), dkd.sqrt(), settings.cap)
        factor, slope = factor * kept, slope * kept
    return factor * sums.weighted_m, slope


def _sums_and_directions(student: Logits, teacher: Logits, target: Tensor, valid: Tensor, weight: Optional[Tensor],
                         settings: CouplingSettings) -> Tuple[_Sums, Tensor]:
    """The sums of this part of the batch, and weight * direction, at the student's own size."""
    number, channels = student.shape[:2]
    width = max(1, together_on(student.device) // channels)
    directions = torch.empty_like(leaf_of(student))
    sums: List[_Sums] = []
    for n in range(number):
        image = slice(n, n + 1)
        full, way_back = part_and_way_back(student, image)
        z, v = full.flatten(2), part_and_way_back(teacher, image)[0].flatten(2)
        labels, counts = target[n].flatten(), valid[n].flatten()
        factor = None if weight is None else weight[n].detach().to(z.dtype).flatten()
        slope = torch.empty_like(z)
        for first in range(0, labels.numel(), width):
            some = slice(first, first + width)
            part, slope[..., some] = _of_positions(z[..., some], v[..., some], labels[some], counts[some],
                                                   None if factor is None else factor[some], settings)
            sums.append(part)
        directions[image] = way_back(slope.view(full.shape))
    *added, largest = (torch.stack(each) for each in zip(*sums, strict=True))
    return _Sums(*(each.sum() for each in added), largest.amax()), directions


def _of_positions(student: Tensor, teacher: Tensor, target: Tensor, valid: Tensor, weight: Optional[Tensor],
                  settings: CouplingSettings) -> Tuple[_Sums, Tensor]:
    """Sums and directions of (1, C, P) logits."""
    gradients = part_gradients(student, teacher, target.unsqueeze(0), settings.temperature)
    difference = (gradients.target - gradients.non_target).masked_fill_(~valid, 0.)
    direction = gradients.direction.masked_fill_(~valid, 0.)
    # The square of a float32 has its place in float64.
    m = difference.double().square_().mean(1)
    dkd = direction.new_zeros((), dtype=torch.float64)
    if settings.cap is not None:
        of_dkd = settings.alpha * gradients.target + settings.beta * gradients.non_target
        dkd = of_dkd.masked_fill_(~valid, 0.).double().square_().sum()
    sums = m.sum(), direction.double().square_().sum(), dkd, difference.abs_().amax()
    if weight is None:
        return _Sums(sums[0], *sums), direction
    # Weights of positions that do not count may be anything.
    weight = weight.masked_fill(~valid, 0.)
    return _Sums(sums[0], (m * weight).sum(), *sums[1:]), direction.mul_(weight)

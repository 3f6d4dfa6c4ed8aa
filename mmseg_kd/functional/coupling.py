"""DGKD's coupling term: the gradients of DKD's two parts, and how far they are apart.

With an operator by PyTorch for any device: value and gradient from closed forms, a few positions at a time. The term
divides by a mean over the whole batch, but that is one factor: what each position adds to the gradient is known before
it. So no graph is kept, and what is made for a few positions is still in the cache when it is read again.
"""
from collections.abc import Callable
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from .checks import Inputs
from .evaluate import over_batch, same_batch
from .grouped import GroupedLoss, target_and_rest
from .upsampled import leaf_of, part_and_way_back, together_on, with_gradient

# Two gradients that differ by less than this everywhere are one: float32 probabilities do not
# resolve it, and the division by its square would only amplify rounding.
SAME_GRADIENT = 1e-15


class CouplingSettings(NamedTuple):
    """See :func:`.dgkd.dgkd_loss`."""

    alpha: float
    beta: float
    epsilon: float
    temperature: float
    cap: float | None = None
    coupling: str = 'relative'
    softening: float = 0.


class PartGradients(NamedTuple):
    """Closed forms per position; all (N, C, *)."""

    target: Tensor  #: d(T^2 TCKD) / dz
    non_target: Tensor  #: d(T^2 NCKD) / dz
    direction: Tensor  #: J^T (target - non_target), J its derivative by z; a constant


def part_gradients(student: Tensor, teacher: Tensor, target: Tensor, temperature: float) -> PartGradients:
    r"""Gradients of the two parts of DKD with respect to the student's logits, of checked tensors.

    With u the student's probability of the target minus the teacher's, q and p their distributions over the other
    classes (0 at the target), e the one-hot target:

    .. math:: \partial (T^2 \, TCKD) / \partial z = T u (e - q), \qquad
              \partial (T^2 \, NCKD) / \partial z = T (q - p)

    Both can be differentiated once more by autograd, so no double backward is needed.
    """
    is_target = target_and_rest(student, target) == 0
    q, odds_z = _rest_and_odds(student, target, is_target, temperature)
    p, odds_v = _rest_and_odds(teacher, target, is_target, temperature)
    # Through the smaller of the two masses: the difference of two numbers near 1 has lost its digits.
    u = torch.where(odds_v > 0, (-odds_v).sigmoid() - (-odds_z).sigmoid(), odds_z.sigmoid() - odds_v.sigmoid())
    apart = is_target.to(q.dtype) - q
    first, second = temperature * u * apart, temperature * (q - p)

    with torch.no_grad():
        difference = first - second
        along_q = (q * difference).sum(1, keepdim=True)
        both = odds_z.sigmoid() * (-odds_z).sigmoid()
        direction = both * (difference * apart).sum(1, keepdim=True) * apart - (1 + u) * q * (difference - along_q)
    return PartGradients(first, second, direction)


def _rest_and_odds(logits: Tensor, target: Tensor, is_target: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Probabilities within the rest, 0 at the target, and the log of the target's mass over the rest's, (N, 1, *)."""
    rest = logits.masked_fill(is_target, -torch.inf)
    lead = rest.detach().amax(1, keepdim=True)
    relative = (rest - lead) / temperature
    log_sum = relative.logsumexp(1, keepdim=True)
    # An ignored label is not a class; what it leads to is left out.
    of_target = logits.gather(1, target.clamp(0, logits.shape[1] - 1).unsqueeze(1))
    return (relative - log_sum).exp(), (of_target - lead) / temperature - log_sum


def norm_over_batch(values: Tensor, valid: Tensor) -> Tensor:
    """Euclidean norm of (N, C, *) values over the valid positions of the whole batch, a scalar without gradient."""
    # The square of a float32 has its place in float64, so that a part by itself keeps its norm exactly.
    norm = values.detach().masked_fill(~valid.unsqueeze(1), 0.).norm()
    return over_batch(norm.double().square()).sqrt().to(norm.dtype)


def distance_of_gradients(gradients: PartGradients, valid: Tensor,
                          settings: CouplingSettings) -> tuple[Tensor, Tensor]:
    r"""What the coupling term multiplies with -epsilon, (N, *), and the norm of its gradient over the batch.

    With m_i the mean over classes of the squared difference between the two gradients at position i, n the number of
    valid positions and s the softening, it is C m_i for the coupling 'absolute', and for 'relative'

    .. math:: m_i / \mathrm{sg}(\bar m + s \, n^2)
    """
    difference = (gradients.target - gradients.non_target).masked_fill(~valid.unsqueeze(1), 0.)
    direction = norm_over_batch(gradients.direction, valid)
    if settings.coupling == 'absolute':
        return difference.square().sum(1), 2 * direction
    # Both m_i and its mean are taken in units of the largest difference, whose square could leave the range.
    unit = over_batch(difference.detach().abs().amax() if difference.numel() else difference.new_zeros(()), 'max')
    same = unit < SAME_GRADIENT
    unit = unit.masked_fill(same, 1.)
    m = (difference / unit).square().mean(1)
    count = over_batch(valid.sum()).clamp(min=1).to(m.dtype)
    mean = over_batch(m.detach().sum()) / count + settings.softening * (count / unit)**2
    mean = mean.masked_fill(same, 1.)
    size = 2 / (mean * unit**2 * difference.shape[1]) * direction
    return (m / mean).masked_fill(same, 0.), size.masked_fill(same, 0.)


def coupling_map(student: Tensor, teacher: Tensor, target: Tensor, valid: Tensor, settings: CouplingSettings) -> Tensor:
    """-epsilon :func:`distance_of_gradients`, capped, (N, *), of checked tensors; 0 at invalid positions."""
    gradients = part_gradients(student, teacher, target, settings.temperature)
    ratio, size = distance_of_gradients(gradients, valid, settings)
    if settings.cap is not None:
        with torch.no_grad():
            dkd = norm_over_batch(settings.alpha * gradients.target + settings.beta * gradients.non_target, valid)
            ratio_kept = share_kept(abs(settings.epsilon) * size, dkd, settings.cap)
        ratio = ratio * ratio_kept
    return -settings.epsilon * ratio


def share_kept(size: Tensor, of_dkd: Tensor, cap: float) -> Tensor:
    """What the cap leaves of a gradient of norm ``size`` beside one of norm ``of_dkd``."""
    limit = cap * of_dkd
    return torch.where(size > limit, limit / size.masked_fill(size == 0, 1.), 1.)


def coupled_loss(operators: ModuleType, dkd: GroupedLoss, inputs: Inputs, divisor: Tensor, settings: CouplingSettings,
                 plain: Callable[[], Tensor]) -> Tensor:
    """DKD and the term, see :func:`coupling_loss`, by an operator for both.

    Args:
        operators: a module that has one, ``coupled``.
        dkd: DKD's description.
        inputs: of the call, as the operator takes them.
        plain: both by the plain form, for second derivatives.
    """
    num_classes, context = inputs.student.shape[1], same_batch()

    def value_and_slope(figures: Tensor) -> tuple[Tensor, Tensor]:
        m, weighted_m, direction, of_dkd, largest = figures.unbind()
        sums = _Sums(m / num_classes, weighted_m / num_classes, direction, of_dkd, largest)
        return _value_and_factor(sums, inputs.valid, num_classes, settings)

    def plain_in_batch() -> Tensor:
        with context:
            return plain()

    return operators.coupled(dkd, inputs, divisor, plain_in_batch, value_and_slope)


class _Sums(NamedTuple):
    """Over valid positions, float64; m as in :func:`distance_of_gradients`."""

    m: Tensor
    weighted_m: Tensor
    direction: Tensor  #: squares of the gradient's direction
    dkd: Tensor  #: squares of the gradient of DKD
    largest: Tensor  #: largest difference of the two gradients


def coupling_loss(inputs: Inputs, divisor: Tensor, settings: CouplingSettings, plain: Callable[[], Tensor]) -> Tensor:
    """The sum of weight times :func:`coupling_map` over valid positions, divided by ``divisor``.

    Args:
        inputs: of the call, with logits of one type.
        divisor: scalar.
        settings: of the loss.
        plain: the same by the plain form, for second derivatives.
    """
    leaf, valid = leaf_of(inputs.student), inputs.valid
    with torch.no_grad():
        sums, first = _sums_and_directions(inputs, settings)
        value, factor = _value_and_factor(sums, valid, leaf.shape[1], settings)
        value, factor = (value / divisor).to(leaf.dtype), (factor / divisor).to(leaf.dtype)
    # A second pass through the graph needs the directions anew, but of the batch only what is known by then.
    made, context = [first], same_batch()

    def compute() -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            directions = made.pop() if made else _sums_and_directions(inputs, settings)[1]
            return value, directions.mul_(factor)

    def plain_in_batch() -> Tensor:
        with context:
            return plain()

    return with_gradient(leaf, compute, plain_in_batch)


def _value_and_factor(sums: _Sums, valid: Tensor, num_classes: int,
                      settings: CouplingSettings) -> tuple[Tensor, Tensor]:
    """The term, and what the directions are multiplied with, both before the division; float64 scalars."""
    m, direction, dkd = (over_batch(each) for each in (sums.m, sums.direction, sums.dkd))
    if settings.coupling == 'absolute':
        factor = torch.full_like(m, -settings.epsilon * num_classes)
    else:
        same = over_batch(sums.largest, 'max') < SAME_GRADIENT
        count = over_batch(torch.count_nonzero(valid)).clamp(min=1).to(m.dtype)
        mean = (m / count + settings.softening * count**2).masked_fill(same, 1.)
        factor = (-settings.epsilon / mean).masked_fill(same, 0.)
    slope = 2 / num_classes * factor
    if settings.cap is not None:
        kept = share_kept(slope.abs() * direction.sqrt(), dkd.sqrt(), settings.cap)
        factor, slope = factor * kept, slope * kept
    return factor * sums.weighted_m, slope


def _sums_and_directions(inputs: Inputs, settings: CouplingSettings) -> tuple[_Sums, Tensor]:
    """The sums of this part of the batch, and weight * direction, at the student's own size."""
    student, teacher, target, weight, valid = inputs[:5]
    number, channels = student.shape[:2]
    width = max(1, together_on(student.device) // channels)
    directions = torch.empty_like(leaf_of(student))
    sums: list[_Sums] = []
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


def _of_positions(student: Tensor, teacher: Tensor, target: Tensor, valid: Tensor, weight: Tensor | None,
                  settings: CouplingSettings) -> tuple[_Sums, Tensor]:
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

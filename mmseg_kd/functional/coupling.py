"""DGKD's coupling term: the gradients of DKD's two parts, and how far they are apart."""
from typing import NamedTuple, Optional, Tuple

import torch
from torch import Tensor

from .grouping import target_and_rest
from .joined import over_batch

# Two gradients that differ by less than this everywhere are one: float32 probabilities do not
# resolve it, and the division by its square would only amplify rounding.
SAME_GRADIENT = 1e-15


class CouplingSettings(NamedTuple):
    """See :func:`.dgkd.dgkd_loss`."""

    alpha: float
    beta: float
    epsilon: float
    temperature: float
    cap: Optional[float] = None


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


def _rest_and_odds(logits: Tensor, target: Tensor, is_target: Tensor, temperature: float) -> Tuple[Tensor, Tensor]:
    """Probabilities within the rest, 0 at the target, and the log of the target's mass over the rest's, (N, 1, *)."""
    rest = logits.masked_fill(is_target, -torch.inf)
    lead = rest.detach().amax(1, keepdim=True)
    relative = (rest - lead) / temperature
    log_sum = relative.logsumexp(1, keepdim=True)
    # An ignored label is no class; what it leads to is left out.
    of_target = logits.gather(1, target.clamp(0, logits.shape[1] - 1).unsqueeze(1))
    return (relative - log_sum).exp(), (of_target - lead) / temperature - log_sum


def norm_over_batch(values: Tensor, valid: Tensor) -> Tensor:
    """Euclidean norm of (N, C, *) values over the valid positions of the whole batch, a scalar without gradient."""
    # The square of a float32 has its place in float64, so that one part alone keeps its norm exactly.
    norm = values.detach().masked_fill(~valid.unsqueeze(1), 0.).norm()
    return over_batch(norm.double().square()).sqrt().to(norm.dtype)


def relative_distance(gradients: PartGradients, valid: Tensor) -> Tuple[Tensor, Tensor]:
    r"""m_i / stop_gradient(mean of m over valid positions), (N, *), and the size of its gradient.

    m_i is the mean over classes of the squared difference between the two gradients at position i.
    """
    difference = (gradients.target - gradients.non_target).masked_fill(~valid.unsqueeze(1), 0.)
    # Both m_i and its mean are taken in units of the largest difference, whose square could leave the range.
    unit = over_batch(difference.detach().abs().amax() if difference.numel() else difference.new_zeros(()), 'max')
    same = unit < SAME_GRADIENT
    unit = unit.masked_fill(same, 1.)
    m = (difference / unit).square().mean(1)
    mean = (over_batch(m.detach().sum()) / over_batch(valid.sum()).clamp(min=1)).masked_fill(same, 1.)
    size = 2 / (mean * unit**2 * difference.shape[1]) * norm_over_batch(gradients.direction, valid)
    return (m / mean).masked_fill(same, 0.), size.masked_fill(same, 0.)


def coupling_map(student: Tensor, teacher: Tensor, target: Tensor, valid: Tensor, settings: CouplingSettings) -> Tensor:
    """-epsilon m / stop_gradient(mean of m), capped, (N, *), of checked tensors; 0 at invalid positions."""
    gradients = part_gradients(student, teacher, target, settings.temperature)
    ratio, size = relative_distance(gradients, valid)
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

"""DGKD: DKD, and a term that keeps the gradients of its two parts apart."""
from typing import Dict, NamedTuple, Optional, Tuple

import torch
from torch import Tensor

from .checks import check_settings, checked, loss_function, warn_once
from .dkd import dkd_map
from .grouped import GroupedKL, group_log_probs
from .grouping import target_and_rest
from .joined import over_batch
from .reduce import reduce_map
from .standardize import z_score

# Two gradients that differ by less than this everywhere are one: float32 probabilities do not
# resolve it, and the division by its square would only amplify rounding.
SAME_GRADIENT = 1e-15


class PartGradients(NamedTuple):
    """Closed forms per position; all (N, C, *)."""

    target: Tensor  #: d(T^2 TCKD) / dz
    non_target: Tensor  #: d(T^2 NCKD) / dz
    direction: Tensor  #: J^T (target - non_target), J its derivative by z; a constant


class DGKDMap(NamedTuple):
    """Unreduced maps of DGKD, (N, *)."""

    total: Tensor
    dkd: GroupedKL
    coupling: Tensor  #: -epsilon m / mean(m), capped


def part_gradients(student: Tensor, teacher: Tensor, target: Tensor, temperature: float) -> PartGradients:
    r"""Gradients of the two parts of DKD with respect to the student's logits, of checked tensors.

    With u the student's probability of the target minus the teacher's, q and p their distributions over the other
    classes (0 at the target), e the one-hot target:

    .. math:: \partial (T^2 \, TCKD) / \partial z = T u (e - q), \qquad
              \partial (T^2 \, NCKD) / \partial z = T (q - p)

    Both can be differentiated once more by autograd, so no double backward is needed.
    """
    groups = target_and_rest(student, target)
    z = group_log_probs(student, groups, 2, temperature)
    v = group_log_probs(teacher, groups, 2, temperature)
    is_target = groups == 0
    q, p = (part.within[1].exp().masked_fill(is_target, 0.) for part in (z, v))
    mass_z, mass_v = z.mass.exp(), v.mass.exp()
    # Through the smaller of the two masses: the difference of two numbers near 1 has lost its digits.
    u = torch.where(v.mass[:, 0] > v.mass[:, 1], mass_v[:, 1] - mass_z[:, 1], mass_z[:, 0] - mass_v[:, 0])
    u = u.unsqueeze(1)
    apart = is_target.to(q.dtype) - q
    first, second = temperature * u * apart, temperature * (q - p)

    with torch.no_grad():
        difference = first - second
        along_q = (q * difference).sum(1, keepdim=True)
        both = mass_z[:, :1] * mass_z[:, 1:]
        direction = both * (difference * apart).sum(1, keepdim=True) * apart - (1 + u) * q * (difference - along_q)
    return PartGradients(first, second, direction)


def _norm(values: Tensor, valid: Tensor) -> Tensor:
    # The square of a float32 has its place in float64, so that one part alone keeps its norm exactly.
    norm = values.detach().masked_fill(~valid.unsqueeze(1), 0.).norm()
    return over_batch(norm.double().square()).sqrt().to(norm.dtype)


def coupling_map(gradients: PartGradients, valid: Tensor) -> Tuple[Tensor, Tensor]:
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
    size = 2 / (mean * unit**2 * difference.shape[1]) * _norm(gradients.direction, valid)
    return (m / mean).masked_fill(same, 0.), size.masked_fill(same, 0.)


def dgkd_map(student: Tensor,
             teacher: Tensor,
             target: Tensor,
             valid: Tensor,
             *,
             alpha: float,
             beta: float,
             epsilon: float,
             temperature: float,
             cap: Optional[float] = None,
             standardize: Optional[str] = None) -> DGKDMap:
    """DGKD per position, of checked tensors. Invalid positions have no coupling."""
    if standardize == 'whole':
        everything = torch.ones_like(student, dtype=torch.bool)
        student, teacher, standardize = z_score(student, everything), z_score(teacher, everything), None
    dkd = dkd_map(student, teacher, target, alpha=alpha, beta=beta, temperature=temperature, standardize=standardize)
    gradients = part_gradients(student, teacher, target, temperature)
    ratio, size = coupling_map(gradients, valid)
    if cap is not None:
        with torch.no_grad():
            limit = cap * _norm(alpha * gradients.target + beta * gradients.non_target, valid)
            size = abs(epsilon) * size
            ratio_kept = torch.where(size > limit, limit / size.masked_fill(size == 0, 1.), 1.)
        ratio = ratio * ratio_kept
    coupling = -epsilon * ratio
    return DGKDMap(dkd.total + coupling, dkd, coupling)


@loss_function
def dgkd_loss(student: Tensor,
              teacher: Tensor,
              target: Optional[Tensor] = None,
              weight: Optional[Tensor] = None,
              *,
              alpha: float = 1.,
              beta: float = 1.,
              epsilon: float = 6.,
              temperature: float = 4.,
              cap: Optional[float] = None,
              standardize: Optional[str] = None,
              ignore_index: Optional[int] = 255,
              reduction: str = 'mean') -> Tensor:
    r"""DKD with a coupling term that drives the gradients of its two parts apart.

    .. math:: L = DKD - \epsilon \, \frac{m}{\mathrm{sg}(\bar m)}, \qquad
              m = \frac{1}{C} \bigl\| \partial (T^2 TCKD) / \partial z - \partial (T^2 NCKD) / \partial z \bigr\|^2

    sg stops the gradient, :math:`\bar m` is the mean of m over valid positions: the mean of the term is -epsilon
    whatever the logits, and only its gradient teaches. z are the student's logits; both gradients are closed forms
    (:func:`part_gradients`), taken per position: with the 1 / N of a batch mean inside they would depend on N.

    The gradient of the term has no bound: near the teacher m vanishes faster than its gradient, and the term outweighs
    DKD a hundred times and more (:func:`dgkd_diagnostics` shows by how much). ``cap`` bounds it. Where all
    differences are below what the arithmetic resolves (1e-15), the term and its gradient are 0.

    Reference: DGKD, decoupled gradient knowledge distillation; alpha = 1, beta = 1 (8 in its script), epsilon = 6,
    T = 4.

    Args:
        student: (N, C) or (N, C, *) logits of any floating type; the arithmetic is float32 or better.
        teacher: logits of the same shape, without gradient.
        target: (N, *) int64 labels in 0 .. C - 1, or ``ignore_index``. Needed.
        weight: (N, *) factor of each position; 0 leaves it out.
        alpha: weight of the target term (TCKD).
        beta: weight of the non-target term (NCKD), which is 0 by construction when C = 2.
        epsilon: weight of the coupling term, which is maximised.
        temperature: T > 0.
        cap: the gradient of the coupling term is scaled down to at most this many times that of the DKD terms (norms
            over all valid positions, before ``weight``); None leaves it alone.
        standardize: None, 'whole', 'group' or 'rest': z-score of the logits first. With 'whole' the coupling compares
            gradients by the standardised logits; else by the logits as they are.
        ignore_index: label of the positions that do not count; None when all count.
        reduction: 'mean' over valid positions, 'sum', or 'none' for an (N, *) map.

    Raises:
        ValueError: a setting or a tensor that does not fit; the message says which and what to do.

    Example:
        >>> import torch
        >>> student, teacher = torch.zeros(1, 3), torch.tensor([[4., 2., 0.]])
        >>> dgkd_loss(student, teacher, torch.tensor([0]))  # DKD, less epsilon
        tensor(-4.4997)
    """
    student, teacher, valid = checked(student, teacher, target, weight, ignore_index, target_for='dgkd_loss')
    if student.shape[1] == 2:
        warn_once('dgkd_loss: with C = 2 classes the non-target term is 0 by construction, `beta` has no effect')
    terms = dgkd_map(
        student, teacher, target, valid,
        alpha=alpha, beta=beta, epsilon=epsilon, temperature=temperature, cap=cap, standardize=standardize)
    return reduce_map(terms.total, valid, weight, reduction)


@torch.no_grad()
def dgkd_diagnostics(student: Tensor,
                     teacher: Tensor,
                     target: Tensor,
                     *,
                     alpha: float = 1.,
                     beta: float = 1.,
                     epsilon: float = 6.,
                     temperature: float = 4.,
                     ignore_index: Optional[int] = 255) -> Dict[str, Tensor]:
    """What DGKD watches, as scalars; memory linear in the positions.

    Means over valid positions of quantities per position, all of the student's logits and of the gradients per position
    of :func:`part_gradients`:

    - ``gradient_cosine``: between the target and the non-target gradient (0 where one vanishes)
    - ``gradient_covariance``: of the same two over the classes
    - ``target_gradient_norm``, ``non_target_gradient_norm``
    - ``target_logit_norm``, ``non_target_logit_norm``

    and over all valid positions:

    - ``logit_covariance``: between the target logit and the mean of the other logits
    - ``coupling_to_dkd``: norm of the gradient of the coupling term (without cap) over that of the DKD terms

    Args: as for :func:`dgkd_loss`.

    Example:
        >>> import torch
        >>> figures = dgkd_diagnostics(torch.tensor([[1., 0., 2.]]), torch.tensor([[4., 2., 0.]]), torch.tensor([0]))
        >>> round(figures['gradient_cosine'].item(), 4)
        0.14
    """
    check_settings('dgkd_diagnostics', ('temperature', 'ignore_index'),
                   dict(temperature=temperature, ignore_index=ignore_index))
    student, teacher, valid = checked(student, teacher, target, None, ignore_index, target_for='dgkd_diagnostics')
    first, second, _ = gradients = part_gradients(student, teacher, target, temperature)
    count = valid.sum().clamp(min=1)

    def mean(values: Tensor) -> Tensor:
        return values.masked_fill(~valid, 0.).sum() / count

    is_target = target_and_rest(student, target) == 0
    norms = first.norm(dim=1), second.norm(dim=1)
    product = norms[0] * norms[1]
    target_logit = student.masked_fill(~is_target, 0.).sum(1)
    others = student.masked_fill(is_target, 0.)
    mean_other = others.sum(1) / (student.shape[1] - 1)
    centred = (first - first.mean(1, keepdim=True)) * (second - second.mean(1, keepdim=True))
    size = abs(epsilon) * coupling_map(gradients, valid)[1]
    dkd_size = _norm(alpha * first + beta * second, valid)
    return dict(
        gradient_cosine=mean((first * second).sum(1) / product.masked_fill(product == 0, 1.)),
        gradient_covariance=mean(centred.mean(1)),
        target_gradient_norm=mean(norms[0]),
        non_target_gradient_norm=mean(norms[1]),
        target_logit_norm=mean(target_logit.abs()),
        non_target_logit_norm=mean(others.norm(dim=1)),
        logit_covariance=mean((target_logit - mean(target_logit)) * (mean_other - mean(mean_other))),
        coupling_to_dkd=size / dkd_size.masked_fill(dkd_size == 0, 1.))

"""DGKD: DKD, and a term that keeps the gradients of its two parts apart."""
from typing import NamedTuple

import torch
from torch import Tensor

from .checks import check_settings, checked, loss_function, warn_once
from .coupling import (
    CouplingSettings,
    coupled_loss,
    coupling_loss,
    coupling_map,
    distance_of_gradients,
    norm_over_batch,
    part_gradients,
)
from .evaluate import divisor_of, inputs_for, loss_of, may_fuse, operators_for, plain_inputs, promoted, reduced
from .grouped import GroupedKL, GroupedLoss, TargetAndRest, target_and_rest
from .standardize import z_score
from .upsampled import Logits


def check_coupling(coupling: str, softening: float) -> None:
    """Refuse settings of the coupling term that contradict each other."""
    if coupling == 'absolute' and softening:
        raise ValueError("`softening` must be left out where `coupling` is 'absolute', which divides by nothing, got "
                         f'softening={softening}')


class DGKDMap(NamedTuple):
    """Unreduced maps of DGKD, (N, *)."""

    total: Tensor
    dkd: GroupedKL
    coupling: Tensor  #: -epsilon times the distance of the two gradients, capped


def dgkd_map(student: Tensor,
             teacher: Tensor,
             target: Tensor,
             valid: Tensor,
             settings: CouplingSettings,
             standardize: str | None = None) -> DGKDMap:
    """DGKD per position, of checked tensors. Invalid positions have no coupling."""
    if standardize == 'whole':
        everything = torch.ones_like(student, dtype=torch.bool)
        student, teacher = (z_score(logits, everything, correction=1) for logits in (student, teacher))
        standardize = None
    loss = GroupedLoss(TargetAndRest(), settings.alpha, (0., settings.beta), settings.temperature,
                       standardize=standardize)
    dkd = loss.parts(student, teacher, target)
    coupling = coupling_map(student, teacher, target, valid, settings)
    return DGKDMap(dkd.total + coupling, dkd, coupling)


@loss_function
def dgkd_loss(student: Logits,
              teacher: Logits,
              target: Tensor | None = None,
              weight: Tensor | None = None,
              *,
              alpha: float = 1.,
              beta: float = 1.,
              epsilon: float = 6.,
              temperature: float = 4.,
              cap: float | None = None,
              coupling: str = 'relative',
              softening: float = 0.,
              standardize: str | None = None,
              ignore_index: int | None = 255,
              reduction: str = 'mean') -> Tensor:
    r"""DKD with a coupling term that drives the gradients of its two parts apart.

    .. math:: L = DKD - \epsilon \, \frac{m}{\mathrm{sg}(\bar m)}, \qquad
              m = \frac{1}{C} \bigl\| \partial (T^2 TCKD) / \partial z - \partial (T^2 NCKD) / \partial z \bigr\|^2

    sg stops the gradient, :math:`\bar m` is the mean of m over valid positions: the mean of the term is -epsilon
    whatever the logits, and only its gradient teaches. z are the student's logits; both gradients are closed forms
    (:func:`part_gradients`), taken per position: with the 1 / N of a batch mean inside they would depend on N.

    The gradient of the term has no bound: near the teacher m vanishes faster than its gradient, and the term outweighs
    DKD a hundred times and more (:func:`dgkd_diagnostics` shows by how much). ``cap`` bounds it, and is what we
    recommend. Where all differences are below what the arithmetic resolves (1e-15), the term and its gradient are 0.

    The published code differentiates the batch means and divides by M + 1e-8, M the mean square of *these* gradients:
    with n valid positions M is the mean of m divided by n squared. ``softening=1e-8`` is that term exactly:

    .. math:: - \epsilon \, \frac{m}{\mathrm{sg}(\bar m + 10^{-8} n^2)}

    So it fades as the batch grows: at 64 x 100 it is nearly as strong as without, at 512 x 1000 hardly anything is left
    of it. The text that presents the method prints yet another form, which divides by nothing:
    ``coupling='absolute'``, :math:`- \epsilon \, C m`, the squared distance of the two gradients at each position. (Its
    sign there is +, for an alpha which has to be negative when the distance is to be maximised.)

    Reference: DGKD, decoupled gradient knowledge distillation; alpha = 1, beta = 1 (8 in its script), epsilon = 6,
    T = 4.

    Args:
        student: (N, C) or (N, C, *) logits of any floating type; the arithmetic is float32 or better. Small logits of
            (N, C, H, W) positions may be :class:`~.Upsampled`.
        teacher: logits of the same shape, without gradient.
        target: (N, *) int64 labels in 0 .. C - 1, or ``ignore_index``. Needed.
        weight: (N, *) factor of each position; 0 leaves it out.
        alpha: weight of the target term (TCKD).
        beta: weight of the non-target term (NCKD), which is 0 by construction when C = 2.
        epsilon: weight of the coupling term, which is maximised.
        temperature: T > 0.
        cap: the gradient of the coupling term is scaled down to at most this many times that of the DKD terms (norms
            over all valid positions, before ``weight``); None leaves it alone.
        coupling: 'relative' divides the term by its mean over the batch, without gradient; 'absolute' does not.
        softening: what the published code adds to the mean square of the gradients of batch means, at least 0; only
            where ``coupling`` is 'relative'.
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
    inputs = checked(student, teacher, target, weight, ignore_index, reduction, target_for='dgkd_loss')
    if student.shape[1] == 2:
        warn_once('dgkd_loss: with C = 2 classes the non-target term is 0 by construction, `beta` has no effect')
    check_coupling(coupling, softening)
    inputs = promoted(inputs)
    settings = CouplingSettings(alpha, beta, epsilon, temperature, cap, coupling, softening)

    def maps_of(student: Tensor, teacher: Tensor) -> DGKDMap:
        return dgkd_map(student, teacher, target, inputs.valid, settings, standardize)

    is_map = len(student.shape) > 2  # (N, C) logits are small
    if standardize or inputs.student.dtype == torch.float64 or not is_map or not may_fuse(inputs):
        return reduced(lambda student, teacher: maps_of(student, teacher).total, inputs)
    divisor, summed = divisor_of(torch.count_nonzero(inputs.valid), reduction), inputs._replace(reduction='sum')
    loss = GroupedLoss(TargetAndRest(), alpha, (0., beta), temperature)
    operators = operators_for(loss, inputs)
    if operators is not None and operators.COUPLES:
        chosen = inputs_for(operators, loss, inputs)
        return coupled_loss(
            operators, loss, chosen, divisor, settings,
            lambda: reduced(lambda *logits: maps_of(*logits).total, chosen._replace(reduction='sum')) / divisor)
    dkd = loss_of(loss, summed) / divisor
    apart = coupling_loss(inputs, divisor, settings,
                          lambda: reduced(lambda *logits: maps_of(*logits).coupling, summed) / divisor)
    return dkd + apart


@torch.no_grad()
def dgkd_diagnostics(student: Tensor,
                     teacher: Tensor,
                     target: Tensor,
                     *,
                     alpha: float = 1.,
                     beta: float = 1.,
                     epsilon: float = 6.,
                     temperature: float = 4.,
                     coupling: str = 'relative',
                     softening: float = 0.,
                     ignore_index: int | None = 255) -> dict[str, Tensor]:
    """What DGKD watches, as scalars; memory linear in the positions.

    Means over valid positions of quantities per position, all of the student's logits and of the gradients per position
    of :func:`part_gradients`:

    - ``gradient_cosine``: between the target and the non-target gradient (0 where one vanishes)
    - ``gradient_covariance``: of the same two over the classes
    - ``target_gradient_norm``, ``non_target_gradient_norm``
    - ``target_logit_norm``, ``non_target_logit_norm``

    and over all valid positions:

    - ``batch_covariance``: of the same two summed over the batch, divided by the root of the product of both with
      themselves: in [-1, 1], as the published code logs it (0 where one vanishes)
    - ``logit_covariance``: between the target logit and the mean of the other logits
    - ``coupling_to_dkd``: norm of the gradient of the coupling term (without cap) over that of the DKD terms

    Args: as for :func:`dgkd_loss`.

    Example:
        >>> import torch
        >>> figures = dgkd_diagnostics(torch.tensor([[1., 0., 2.]]), torch.tensor([[4., 2., 0.]]), torch.tensor([0]))
        >>> round(figures['gradient_cosine'].item(), 4)
        0.14
    """
    settings = dict(temperature=temperature, coupling=coupling, softening=softening, ignore_index=ignore_index)
    check_settings('dgkd_diagnostics', tuple(settings), settings)
    check_coupling(coupling, softening)
    inputs = plain_inputs(
        checked(student, teacher, target, None, ignore_index, 'mean', target_for='dgkd_diagnostics'))
    student, teacher, valid = inputs.student, inputs.teacher, inputs.valid
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
    sums = [(part - part.mean(1, keepdim=True)).masked_fill(~valid.unsqueeze(1), 0.).transpose(0, 1).flatten(1).sum(1)
            for part in (first, second)]
    lengths = sums[0].norm() * sums[1].norm()
    centred = (first - first.mean(1, keepdim=True)) * (second - second.mean(1, keepdim=True))
    of_coupling = CouplingSettings(alpha, beta, epsilon, temperature, None, coupling, softening)
    size = abs(epsilon) * distance_of_gradients(gradients, valid, of_coupling)[1]
    dkd_size = norm_over_batch(alpha * first + beta * second, valid)
    return dict(
        gradient_cosine=mean((first * second).sum(1) / product.masked_fill(product == 0, 1.)),
        gradient_covariance=mean(centred.mean(1)),
        target_gradient_norm=mean(norms[0]),
        non_target_gradient_norm=mean(norms[1]),
        target_logit_norm=mean(target_logit.abs()),
        non_target_logit_norm=mean(others.norm(dim=1)),
        batch_covariance=(sums[0] * sums[1]).sum() / lengths.masked_fill(lengths == 0, 1.),
        logit_covariance=mean((target_logit - mean(target_logit)) * (mean_other - mean(mean_other))),
        coupling_to_dkd=size / dkd_size.masked_fill(dkd_size == 0, 1.))

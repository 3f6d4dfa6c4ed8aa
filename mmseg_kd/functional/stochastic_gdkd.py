"""Stochastic GDKD: the target class against a random part of the rest."""
from typing import Optional

import torch
from torch import Tensor

from .checks import checked, loss_function, warn_once
from .grouped import GroupedKL, grouped_kl
from .grouping import by_rank, target_and_rest
from .reduce import reduce_map
from .standardize import standardized


def random_groups(logits: Tensor, target: Tensor, count: int) -> Tensor:
    """Group 0 the target, group 1 ``count`` other classes drawn anew at each position, -1 what is left."""
    lot = torch.rand_like(logits).masked_fill(target_and_rest(logits, target) == 0, 2.)
    groups = by_rank(lot, [1, 1 + count])
    return groups.masked_fill(groups == 2, -1)


def stochastic_gdkd_map(student: Tensor,
                        teacher: Tensor,
                        target: Tensor,
                        *,
                        keep: float,
                        w0: float,
                        w1: float,
                        temperature: float,
                        divergence: str,
                        standardize: Optional[str] = None) -> GroupedKL:
    """Stochastic GDKD per position, of checked tensors: ``within`` is (target, random part of the rest)."""
    groups = random_groups(student, target, count_kept(keep, student.shape[1]))
    student, teacher = (standardized(logits, groups, 2, standardize) for logits in (student, teacher))
    return grouped_kl(
        student, teacher, groups, 2,
        temperature=temperature, w_between=w0, w_within=(0., w1), divergence=divergence)


def count_kept(keep: float, num_classes: int) -> int:
    """How many of the C - 1 other classes a share of them is; at least one."""
    return max(1, round(keep * (num_classes - 1)))


@loss_function
def stochastic_gdkd_loss(student: Tensor,
                         teacher: Tensor,
                         target: Optional[Tensor] = None,
                         weight: Optional[Tensor] = None,
                         *,
                         keep: float = 0.5,
                         w0: float = 1.,
                         w1: float = 8.,
                         divergence: str = 'forward',
                         temperature: float = 4.,
                         standardize: Optional[str] = None,
                         ignore_index: Optional[int] = 255,
                         reduction: str = 'mean') -> Tensor:
    r"""GDKD against a random part of the classes: groups {target}, {random subset of the rest}; the others are ignored.

    .. math:: L = T^2 [ w_0 \, KL(b^v \| b^z) + w_1 \, D(p^v_S \| p^z_S) ]

    S is the subset, drawn anew for each position and call from torch's generator (``torch.manual_seed``); both
    distributions are renormalised over target and S. b = (probability of the target, of S), p_S the distribution
    inside S; z student, v teacher, both at temperature T. With keep = 1 it is DKD with alpha = w0, beta = w1.

    Reference: the stochastic variant of Generalized Decoupled Knowledge Distillation (GDKD).

    Args:
        student: (N, C) or (N, C, *) logits of any floating type; the arithmetic is float32 or better.
        teacher: logits of the same shape, without gradient.
        target: (N, *) int64 labels in 0 .. C - 1, or ``ignore_index``. Needed.
        weight: (N, *) factor of each position; 0 leaves it out.
        keep: share of the C - 1 other classes that S holds, in (0, 1]; at least one class.
        w0: weight between target and S.
        w1: weight within S; that term is 0 by construction when S is one class.
        divergence: 'forward' KL(teacher || student), 'reverse' KL(student || teacher) or 'both', their sum, within S.
        temperature: T > 0.
        standardize: None, 'whole' (target and S), 'group' or 'rest' (S): z-score of the logits first.
        ignore_index: label of the positions that do not count; None when all count.
        reduction: 'mean' over valid positions, 'sum', or 'none' for an (N, *) map.

    Raises:
        ValueError: a setting or a tensor that does not fit; the message says which and what to do.

    Example:
        >>> import torch
        >>> student, teacher = torch.zeros(1, 3), torch.tensor([[4., 2., 0.]])
        >>> stochastic_gdkd_loss(student, teacher, torch.tensor([0]), keep=1.)
        tensor(4.8939)
    """
    student, teacher, valid = checked(
        student, teacher, target, weight, ignore_index, target_for='stochastic_gdkd_loss')
    if count_kept(keep, student.shape[1]) == 1:
        warn_once(f'stochastic_gdkd_loss: keep = {keep} of {student.shape[1] - 1} other classes leaves one, so that '
                  'the term within them is 0 by construction and `w1` has no effect')
    terms = stochastic_gdkd_map(
        student, teacher, target,
        keep=keep, w0=w0, w1=w1, temperature=temperature, divergence=divergence, standardize=standardize)
    return reduce_map(terms.total, valid, weight, reduction)

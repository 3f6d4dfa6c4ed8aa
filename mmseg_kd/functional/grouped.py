"""The one formula behind the family: a Kullback-Leibler divergence split over groups of classes."""
from typing import NamedTuple, Sequence, Tuple, Union

import torch
from torch import Tensor

Weight = Union[float, Tensor]


class GroupedKL(NamedTuple):
    """Unreduced maps of :func:`grouped_kl`; the parts carry T^2 but not their weights."""

    total: Tensor  #: (N, *), the weighted sum
    between: Tensor  #: (N, *), divergence of the group masses
    within: Tuple[Tensor, ...]  #: one (N, *) per group, divergence of the classes inside it


class GroupLogProbs(NamedTuple):
    """One distribution, split over groups. Entries outside a group, and groups without classes, mean nothing."""

    within: Tuple[Tensor, ...]  #: one (N, C, *) per group, log-probabilities of the classes inside it
    mass: Tensor  #: (N, G, *), log-probabilities of the groups


def masked_log_softmax(logits: Tensor, member: Tensor, temperature: float) -> Tuple[Tensor, Tensor, Tensor]:
    """Log-softmax over the members, with the leading logit and the log-sum behind it (their sum is the logsumexp).

    The leader is subtracted before the division, because two logits near 1e4 are far apart only in rounding. A row
    without members becomes a row of zeros: ``logsumexp`` of nothing is -inf and its gradient NaN.
    """
    logits = logits.masked_fill(~member, -torch.inf)
    lead = logits.detach().amax(1, keepdim=True)
    shifted = ((logits - lead) / temperature).masked_fill(lead.isneginf(), 0.)
    return shifted.log_softmax(1), lead.squeeze(1), shifted.logsumexp(1)


def group_log_probs(logits: Tensor, groups: Tensor, num_groups: int, temperature: float) -> GroupLogProbs:
    """Split the distribution ``softmax(logits / temperature)`` into group masses and distributions inside groups.

    Args:
        logits: (N, C, *) float32 or float64.
        groups: (N, C, *) integers, the group of each class at each position; -1 leaves the class out.
        num_groups: G; groups are 0 .. G - 1, any of them may be empty at a position.
        temperature: T > 0.
    """
    within, leads, log_sums = zip(*(masked_log_softmax(logits, groups == g, temperature) for g in range(num_groups)),
                                  strict=True)
    leads, log_sums = torch.stack(leads, 1), torch.stack(log_sums, 1)
    occupied = ~leads.isneginf()
    # Relative to the leading class of the position: the difference of two leads is exact, their size is not.
    top = leads.amax(1, keepdim=True)
    relative = (leads - top).masked_fill(~occupied, 0.) / temperature + log_sums
    mass, _, _ = masked_log_softmax(relative, occupied, 1.)
    return GroupLogProbs(within, mass)


def kl_terms(log_p: Tensor, log_q: Tensor, member: Tensor) -> Tensor:
    """The summands p log(p / q) - p + q of KL(p || q) over ``member``, (N, C, *); 0 elsewhere.

    No summand is negative: near p == q the sum of plain p log(p / q) is lost in rounding, and so is a confident
    leader, whose own log-probability float32 rounds to 0. -p + q is taken as p (q / p - 1) unless q is several times
    p, where the quotient could overflow and the difference is exact enough.
    """
    difference = (log_p - log_q).masked_fill(~member, 0.)
    return kl_summands(log_p.exp(), log_q.exp(), difference).masked_fill(~member, 0.)


def kl_summands(p: Tensor, q: Tensor, difference: Tensor) -> Tensor:
    """:func:`kl_terms` of probabilities, and ``difference`` = log(p / q), wherever that is finite."""
    excess = torch.where(difference < -1, q - p, p * torch.expm1(-difference.clamp(min=-1)))
    return p * difference + excess


def kl_divergence(log_p: Tensor, log_q: Tensor, member: Tensor) -> Tensor:
    """KL(p || q) over dimension 1, for distributions over ``member``; (N, *)."""
    return kl_terms(log_p, log_q, member).sum(1)


def _divergence(log_p: Tensor, log_q: Tensor, member: Tensor, divergence: str) -> Tensor:
    if divergence == 'forward':
        return kl_divergence(log_p, log_q, member)
    if divergence == 'reverse':
        return kl_divergence(log_q, log_p, member)
    if divergence == 'both':
        return 0.5 * (kl_divergence(log_p, log_q, member) + kl_divergence(log_q, log_p, member))
    raise ValueError(f"`divergence` must be 'forward', 'reverse' or 'both', got {divergence!r}")


def grouped_kl(student: Tensor,
               teacher: Tensor,
               groups: Tensor,
               num_groups: int,
               *,
               temperature: float = 1.,
               w_between: Weight = 1.,
               w_within: Union[Weight, Sequence[Weight]] = 1.,
               divergence: str = 'forward') -> GroupedKL:
    r"""Distillation between and within groups of classes, per position.

    .. math:: L = T^2 \Bigl[ w_b \, KL(b^v \| b^z) + \sum_g w_g \, KL(p^v_g \| p^z_g) \Bigr]

    With z and v the student's and the teacher's logits divided by T, b_g is the probability of group g and p_g the
    distribution over the classes inside it. The gradient with respect to the student's logits is

    .. math:: \partial L / \partial z_i = T [w_b \, p^z_i (b^z_g - b^v_g) + w_g (p^z_i - p^v_i)], \quad i \in G_g

    Every loss of the family is a choice of groups and weights; the generalised form is that of GDKD (Zheng and Cheng,
    2025), DKD (Zhao et al., CVPR 2022, eq. 7) is {target}, {rest}.

    The arithmetic stays in the log domain, so that value and gradient are finite and right for any finite logits and
    for groups with one class or none (these contribute 0 within).

    Args:
        student: (N, C, *) logits, float32 or float64 (see :func:`~.checks.checked`).
        teacher: (N, C, *) logits of the same type, without gradient.
        groups: (N, C, *) integers, the group of each class at each position. -1 leaves a class out: the remaining
            classes are renormalised without it.
        num_groups: G, the groups are 0 .. G - 1.
        temperature: T > 0.
        w_between: weight of the term between groups; a float or an (N, *) tensor.
        w_within: weight of the terms within groups; one for all or a sequence of G, each a float or an (N, *) tensor.
        divergence: 'forward' KL(teacher || student), 'reverse' KL(student || teacher) or 'both', their mean, for the
            terms within groups. The term between groups is always forward.

    Raises:
        ValueError: a divergence it does not know, or as many weights as there are not groups.

    Example:
        >>> import torch
        >>> student, teacher = torch.zeros(1, 3), torch.tensor([[2., 1., 0.]])
        >>> groups = torch.tensor([[0, 1, 1]])
        >>> parts = grouped_kl(student, teacher, groups, 2)
        >>> parts.between, parts.within[1]
        (tensor([0.2291]), tensor([0.1109]))
        >>> mass_of_group = torch.stack([teacher.softmax(1)[:, 0], teacher.softmax(1)[:, 1:].sum(1)])
        >>> grouped_kl(student, teacher, groups, 2, w_within=list(mass_of_group)).total  # the plain divergence
        tensor([0.2662])
    """
    if not isinstance(w_within, (tuple, list)):
        w_within = (w_within, ) * num_groups
    if len(w_within) != num_groups:
        raise ValueError(f'`w_within` must hold one weight for each of {num_groups} groups, got {len(w_within)}')
    z = group_log_probs(student, groups, num_groups, temperature)
    v = group_log_probs(teacher, groups, num_groups, temperature)
    scale = temperature**2
    members = [groups == g for g in range(num_groups)]
    between = scale * kl_divergence(v.mass, z.mass, torch.stack([member.any(1) for member in members], 1))
    within = tuple(scale * _divergence(p, q, member, divergence)
                   for p, q, member in zip(v.within, z.within, members, strict=True))
    total = w_between * between
    for weight, term in zip(w_within, within, strict=True):
        total = total + weight * term
    return GroupedKL(total, between, within)

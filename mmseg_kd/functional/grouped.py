"""The one formula behind the family, and the losses that are a choice of its groups, weights and temperature.

:class:`GroupedLoss` describes such a loss. Everything that computes it reads the description: the plain form here, the
operators in ``cpu/`` and ``gpu/``, and the trial that compares the two. So a loss of one's own, too, is a description.
"""
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .standardize import z_score
from .topk import k_by_ratio

__all__ = ['ByClass', 'ByRank', 'GroupedKL', 'GroupedLoss', 'OneGroup', 'RandomPart', 'TargetAndRest', 'by_rank',
           'class_index', 'grouped_kl', 'random_groups', 'target_and_rest']

Weight = float | Tensor

class GroupedKL(NamedTuple):
    """Unreduced maps of :func:`grouped_kl`; the parts carry T^2 but not their weights."""

    total: Tensor  #: (N, *), the weighted sum
    between: Tensor  #: (N, *), divergence of the group masses
    within: tuple[Tensor, ...]  #: one (N, *) per group, divergence of the classes inside it


class GroupLogProbs(NamedTuple):
    """One distribution, split over groups. Entries outside a group, and groups without classes, mean nothing."""

    within: tuple[Tensor, ...]  #: one (N, C, *) per group, log-probabilities of the classes inside it
    mass: Tensor  #: (N, G, *), log-probabilities of the groups


def masked_log_softmax(logits: Tensor, member: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
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
    within, leads, log_sums = [], [], []
    for g in range(num_groups):
        of_classes, lead, log_sum = masked_log_softmax(logits, groups == g, temperature)
        within.append(of_classes)
        leads.append(lead)
        log_sums.append(log_sum)
    leads, log_sums = torch.stack(leads, 1), torch.stack(log_sums, 1)
    occupied = ~leads.isneginf()
    # Relative to the leading class of the position: the difference of two leads is exact, their size is not.
    top = leads.amax(1, keepdim=True)
    relative = (leads - top).masked_fill(~occupied, 0.) / temperature + log_sums
    mass, _, _ = masked_log_softmax(relative, occupied, 1.)
    return GroupLogProbs(tuple(within), mass)


def kl_terms(log_p: Tensor, log_q: Tensor, member: Tensor) -> Tensor:
    """The summands p log(p / q) - p + q of KL(p || q) over ``member``, (N, C, *); 0 elsewhere.

    No summand is negative: near p == q the sum of plain p log(p / q) is lost in rounding, and so is a confident
    leader, whose own log-probability float32 rounds to 0. -p + q is taken as p (q / p - 1) unless q is several times
    p, where the quotient could overflow and the difference is exact enough.
    """
    p, q, difference = log_p.exp(), log_q.exp(), (log_p - log_q).masked_fill(~member, 0.)
    excess = torch.where(difference < -1, q - p, p * torch.expm1(-difference.clamp(min=-1)))
    return (p * difference + excess).masked_fill(~member, 0.)


def kl_divergence(log_p: Tensor, log_q: Tensor, member: Tensor, divergence: str = 'forward') -> Tensor:
    """KL(p || q) over dimension 1, for distributions over ``member``, or another ``divergence`` of them; (N, *)."""
    if divergence == 'forward':
        return kl_terms(log_p, log_q, member).sum(1)
    if divergence == 'reverse':
        return kl_terms(log_q, log_p, member).sum(1)
    if divergence == 'both':
        return 0.5 * (kl_terms(log_p, log_q, member).sum(1) + kl_terms(log_q, log_p, member).sum(1))
    raise ValueError(f"`divergence` must be 'forward', 'reverse' or 'both', got {divergence!r}")


def grouped_kl(student: Tensor,
               teacher: Tensor,
               groups: Tensor,
               num_groups: int,
               *,
               temperature: float = 1.,
               w_between: Weight = 1.,
               w_within: Weight | Sequence[Weight] = 1.,
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
    occupied, within = [], []
    for g in range(num_groups):
        member = groups == g
        occupied.append(member.any(1))
        within.append(scale * kl_divergence(v.within[g], z.within[g], member, divergence))
    between = scale * kl_divergence(v.mass, z.mass, torch.stack(occupied, 1))
    total = w_between * between
    for weight, term in zip(w_within, within, strict=True):
        total = total + weight * term
    return GroupedKL(total, between, tuple(within))


def class_index(logits: Tensor) -> Tensor:
    """0 .. C - 1 along dimension 1, shaped to broadcast with (N, C, *)."""
    return torch.arange(logits.shape[1], device=logits.device).view(1, -1, *(1, ) * (logits.dim() - 2))


def target_and_rest(logits: Tensor, target: Tensor) -> Tensor:
    """Group 0 the target class, group 1 the rest. A target that is not a class leaves group 0 empty.

    Example:
        >>> import torch
        >>> target_and_rest(torch.zeros(1, 3), torch.tensor([1]))
        tensor([[1, 0, 1]], dtype=torch.int8)
    """
    return (class_index(logits) != target.unsqueeze(1)).to(torch.int8)


def by_rank(logits: Tensor, boundaries: Sequence[int | Tensor], strategy: str = 'best') -> Tensor:
    """Groups by the rank of each class: ranks below the first boundary are group 0, below the second group 1, ...

    Args:
        logits: (N, C, *), by which the classes are ranked; equal logits rank in the order of the classes.
        boundaries: increasing; integers, or (N, *) tensors for a boundary at each position.
        strategy: 'best' ranks the highest logit first, 'worst' the lowest.

    Example:
        >>> import torch
        >>> by_rank(torch.tensor([[0., 3., 1., 2.]]), [1, 3])
        tensor([[2, 0, 1, 1]], dtype=torch.int8)
    """
    rank = class_index(logits)
    group_of_rank = torch.zeros_like(logits, dtype=torch.int8)
    for boundary in boundaries:
        boundary = boundary.unsqueeze(1) if isinstance(boundary, Tensor) else boundary
        group_of_rank = group_of_rank + (rank >= boundary).to(torch.int8)
    order = logits.detach().sort(dim=1, descending=strategy == 'best', stable=True).indices
    return torch.zeros_like(group_of_rank).scatter(1, order, group_of_rank)


def random_groups(logits: Tensor, target: Tensor, keep: float, one_out: bool = False) -> Tensor:
    """Group 0 the target, group 2 each other class with probability ``keep``, group 1 what is left.

    With ``one_out`` one class, drawn evenly from all, is in group 1 in any case; where that is the target it is the
    class after the target, or the first after the last.
    """
    drawn = (torch.rand_like(logits) < keep).to(torch.int8) + 1
    if one_out:
        out = torch.randint_like(target, logits.shape[1])
        out = (out + (out == target)) % logits.shape[1]
        drawn = drawn.masked_fill(class_index(logits) == out.unsqueeze(1), 1)
    return drawn.masked_fill(target_and_rest(logits, target) == 0, 0)


@dataclass(frozen=True)
class OneGroup:
    """All classes are group 0."""

    number = 1
    needs_target = False

    def map(self, teacher: Tensor, target: Tensor | None, temperature: float) -> Tensor:
        return torch.zeros_like(teacher, dtype=torch.int8)


@dataclass(frozen=True)
class TargetAndRest:
    """Group 0 is the target class, group 1 are the others."""

    number = 2
    needs_target = True

    def map(self, teacher: Tensor, target: Tensor | None, temperature: float) -> Tensor:
        return target_and_rest(teacher, target)


@dataclass(frozen=True)
class RandomPart:
    """Group 0 is the target class, group 2 a random part of the others, group 1 what is left of them."""

    keep: float  #: probability of each other class to be in the part
    one_out: bool = False  #: see :func:`random_groups`
    number = 3
    needs_target = True

    def map(self, teacher: Tensor, target: Tensor | None, temperature: float) -> Tensor:
        return random_groups(teacher, target, self.keep, self.one_out)


@dataclass(frozen=True)
class ByRank:
    """Groups of the teacher's ranks: those below the first boundary are group 0, below the second group 1, and so on.

    Args:
        boundaries: increasing ranks.
        strategy: 'best' ranks the highest logit first, 'worst' the lowest.
        ratio: the only boundary follows each position by :func:`~.topk.k_by_ratio`, up to the one that is given.
        of_label: the only boundary is the entry of the label; ``boundaries`` holds the largest of them.
    """

    boundaries: tuple[int, ...]
    strategy: str = 'best'
    ratio: float | None = None
    of_label: tuple[int, ...] | None = None

    @property
    def number(self) -> int:
        return len(self.boundaries) + 1

    @property
    def needs_target(self) -> bool:
        return self.of_label is not None

    def map(self, teacher: Tensor, target: Tensor | None, temperature: float) -> Tensor:
        if self.ratio is not None:
            return by_rank(teacher, [k_by_ratio(teacher, self.ratio, self.boundaries[0], temperature)])
        boundary = self.boundary_of(target)
        return by_rank(teacher, self.boundaries if boundary is None else [boundary], self.strategy)

    def boundary_of(self, target: Tensor | None) -> Tensor | None:
        """(N, *) the boundary of each position; None where it is the same at all positions, or follows the teacher."""
        if self.of_label is None:
            return None
        # Ignored labels find the entry of some class; their positions do not count.
        return torch.tensor(self.of_label, device=target.device)[target.clamp(0, len(self.of_label) - 1)]


@dataclass(frozen=True)
class ByClass:
    """The group of each class, the same at every position."""

    groups: tuple[int, ...]
    needs_target = False

    @property
    def number(self) -> int:
        return max(self.groups) + 1

    def map(self, teacher: Tensor, target: Tensor | None, temperature: float) -> Tensor:
        table = self.table(teacher.shape[1], teacher.device)
        return table.view(1, -1, *(1, ) * (teacher.dim() - 2)).expand_as(teacher)

    def table(self, num_classes: int, device: torch.device | str) -> Tensor:
        """The groups as (1, C) int8.

        Raises:
            ValueError: there is not one group, 0 or above, for each of ``num_classes`` classes.
        """
        return _table((self.groups, ), num_classes, device)


@dataclass(frozen=True)
class ByLabel:
    """The group of each class by the label of the position: row y holds the groups where the label is y."""

    groups: tuple[tuple[int, ...], ...]
    needs_target = True

    @property
    def number(self) -> int:
        return max(map(max, self.groups)) + 1

    def map(self, teacher: Tensor, target: Tensor | None, temperature: float) -> Tensor:
        table = self.table(teacher.shape[1], teacher.device)
        # Ignored labels find the row of some class; their positions do not count.
        return table[target.clamp(0, len(table) - 1)].movedim(-1, 1)

    def table(self, num_classes: int, device: torch.device | str) -> Tensor:
        """The groups as (C, C) int8; raises what :meth:`ByClass.table` raises."""
        if len(self.groups) != num_classes:
            raise ValueError(f'`groups` must hold one row for the label of each of {num_classes} classes, got '
                             f'{len(self.groups)} rows')
        return _table(self.groups, num_classes, device)


def _table(rows: Sequence[Sequence[int]], num_classes: int, device: torch.device | str) -> Tensor:
    for row in rows:
        if len(row) != num_classes or not all(0 <= group < 128 for group in row):
            raise ValueError(f'`groups` must hold one group, 0 or above, for each of {num_classes} classes, got '
                             f'{tuple(row)}; a class that belongs nowhere is a group of its own with weight 0')
    return torch.tensor(rows, dtype=torch.int8, device=device)


@dataclass(frozen=True)
class GroupedLoss:
    """A loss of the family. :func:`~.evaluate.loss_of` computes it, by an operator where there is one.

    Args:
        groups: :class:`OneGroup`, :class:`TargetAndRest`, :class:`ByRank`, :class:`RandomPart`, :class:`ByClass`,
            :class:`ByLabel`; or a hashable object of one's own with ``number``, ``needs_target`` and
            ``map(teacher, target, temperature)``, which returns the group, 0 .. number - 1, of each class at each
            position, (N, C, *) int8.
        w_between: weight of the term between the groups.
        w_within: weight within each group.
        temperature: T > 0.
        divergence: within the groups, as for :func:`grouped_kl`.
        standardize: None for logits as they are; 'whole' for z-scores over all classes; 'group' over each group by
            itself; 'rest' over the last group only. The latter two concern the distributions within the groups; the
            masses of the groups remain those of the logits as they are. (Sun et al., Logit Standardization in
            Knowledge Distillation, CVPR 2024, algorithm 1, for 'whole'; the others as in the code of GDKD, Zheng and
            Cheng, 2025.) The deviation over all classes is that of a sample, divided by C - 1, and over a group that of
            a population, both as published.
        by_mass: groups whose weight within is multiplied by the teacher's probability of the group.

    There are no operators for standardised logits, weights by mass and :class:`RandomPart` with one class out: such a
    loss is computed by its plain form.
    """

    groups: OneGroup | TargetAndRest | ByRank | RandomPart | ByClass | ByLabel
    w_between: float = 1.
    w_within: tuple[float, ...] = (1., )
    temperature: float = 1.
    divergence: str = 'forward'
    standardize: str | None = None
    by_mass: tuple[int, ...] = ()

    def map(self, student: Tensor, teacher: Tensor, target: Tensor | None = None) -> Tensor:
        """The loss per position, (N, *), of (N, C, *) logits of one type, float32 or float64: the plain form."""
        return self.parts(student, teacher, target).total

    def parts(self, student: Tensor, teacher: Tensor, target: Tensor | None = None) -> GroupedKL:
        """As :meth:`map`, with the parts of the loss."""
        groups, number = self.groups.map(teacher, target, self.temperature), self.groups.number
        settings = dict(temperature=self.temperature, divergence=self.divergence)
        if self.standardize == 'whole':
            student, teacher = (z_score(logits, groups >= 0, correction=1) for logits in (student, teacher))
        w_within = self.w_within
        if self.by_mass:
            mass = group_log_probs(teacher, groups, number, self.temperature).mass.exp()
            w_within = [w * mass[:, g] if g in self.by_mass else w for g, w in enumerate(w_within)]
        if self.standardize in (None, 'whole'):
            return grouped_kl(student, teacher, groups, number, w_between=self.w_between, w_within=w_within, **settings)
        if self.standardize not in ('group', 'rest'):
            raise ValueError(f"`standardize` must be None, 'whole', 'group' or 'rest', got {self.standardize!r}")
        outside = grouped_kl(student, teacher, groups, number, w_between=self.w_between, w_within=0., **settings)
        for g in range(number) if self.standardize == 'group' else [number - 1]:
            student, teacher = z_score(student, groups == g), z_score(teacher, groups == g)
        inside = grouped_kl(student, teacher, groups, number, w_between=0., w_within=w_within, **settings)
        return GroupedKL(outside.total + inside.total, outside.between, inside.within)

"""Logit standardisation: z-scores over the classes, so that the student may keep its own scale."""
from typing import Optional

import torch
from torch import Tensor

from .grouped import GroupedKL, grouped_kl


def z_score(logits: Tensor, member: Tensor) -> Tensor:
    """(logits - mean) / standard deviation over the members of dim 1; other entries stay as they are.

    The deviation is the population's (divided by the number of classes). Members that are all equal, or one alone,
    have no deviation and become 0, with a gradient of 0.

    Example:
        >>> import torch
        >>> z_score(torch.tensor([[1., 3., 9.]]), torch.tensor([[True, True, False]]))
        tensor([[-1.,  1.,  9.]])
    """
    count = member.sum(1, keepdim=True).clamp(min=1)
    # Relative to the largest member, so that equal members differ by exactly 0 and not by the rounding of their mean.
    lead = logits.detach().masked_fill(~member, -torch.inf).amax(1, keepdim=True)
    centred = (logits - lead).masked_fill(~member, 0.)
    centred = (centred - centred.sum(1, keepdim=True) / count).masked_fill(~member, 0.)
    # The scale cancels in the result; without it the squares leave the range of float32 long before the logits do.
    scale = centred.detach().abs().amax(1, keepdim=True)
    flat = scale < torch.finfo(scale.dtype).tiny
    centred = centred / scale.masked_fill(flat, 1.)
    variance = centred.square().sum(1, keepdim=True) / count
    scores = (centred / variance.masked_fill(flat, 1.).sqrt()).masked_fill(flat, 0.)
    return torch.where(member, scores, logits)


def standardized_kl(student: Tensor,
                    teacher: Tensor,
                    groups: Tensor,
                    num_groups: int,
                    *,
                    standardize: Optional[str],
                    **settings) -> GroupedKL:
    """:func:`~.grouped.grouped_kl` behind a standardisation of both logits.

    Reference: Sun et al., Logit Standardization in Knowledge Distillation, CVPR 2024, algorithm 1, for 'whole'; the
    others as in the code of GDKD (Zheng and Cheng, 2025).

    Args:
        standardize: None for logits as they are; 'whole' over all classes; 'group' over each group by itself; 'rest'
            over the last group alone. The latter two concern the distributions within the groups; the masses of the
            groups remain those of the logits as they are.
        student, teacher, groups, num_groups, **settings: as for the core.
    """
    if standardize is None:
        return grouped_kl(student, teacher, groups, num_groups, **settings)
    if standardize == 'whole':
        student, teacher = (z_score(logits, groups >= 0) for logits in (student, teacher))
        return grouped_kl(student, teacher, groups, num_groups, **settings)
    if standardize not in ('group', 'rest'):
        raise ValueError(f"`standardize` must be None, 'whole', 'group' or 'rest', got {standardize!r}")
    outside = grouped_kl(student, teacher, groups, num_groups, **{**settings, 'w_within': 0.})
    for g in range(num_groups) if standardize == 'group' else [num_groups - 1]:
        student, teacher = (z_score(logits, groups == g) for logits in (student, teacher))
    inside = grouped_kl(student, teacher, groups, num_groups, **{**settings, 'w_between': 0.})
    return GroupedKL(outside.total + inside.total, outside.between, inside.within)

"""Logit standardisation: z-scores over the classes, so that the student may keep its own scale."""
from typing import Optional

import torch
from torch import Tensor


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


def standardized(logits: Tensor, groups: Tensor, num_groups: int, mode: Optional[str]) -> Tensor:
    """Standardise logits in front of a grouped loss.

    Reference: Sun et al., Logit Standardization in Knowledge Distillation, CVPR 2024, algorithm 1.

    Args:
        logits: (N, C, *) logits; apply it to the student's and to the teacher's.
        groups: (N, C, *) the groups of the loss behind it; classes of group -1 are left out.
        num_groups: the last group is the rest.
        mode: None for logits as they are; 'whole' over all classes; 'group' over each group by itself, after which
            the masses of the groups say little, as all groups have mean 0; 'rest' over the last group alone, where the
            other classes move by the mean of the rest, so that the level of the logits still does not matter.
    """
    if mode is None:
        return logits
    if mode == 'whole':
        return z_score(logits, groups >= 0)
    if mode == 'rest':
        rest = groups == num_groups - 1
        level = logits.masked_fill(~rest, 0.).sum(1, keepdim=True) / rest.sum(1, keepdim=True).clamp(min=1)
        return z_score(logits - level, rest)
    if mode == 'group':
        for g in range(num_groups):
            logits = z_score(logits, groups == g)
        return logits
    raise ValueError(f"`standardize` must be None, 'whole', 'group' or 'rest', got {mode!r}")

"""Logit standardisation: z-scores over the classes, so that the student may keep its own scale."""
import torch
from torch import Tensor


def z_score(logits: Tensor, member: Tensor, correction: int = 0) -> Tensor:
    """(logits - mean) / standard deviation over the members of dim 1; other entries stay as they are.

    Members that are all equal, or only one member, have no deviation and become 0, with a gradient of 0.

    Args:
        logits: (N, C, *) logits, or any other rows of numbers.
        member: bool, broadcasts with ``logits``.
        correction: the squares are divided by the number of members less this: 0 for the deviation of a population, 1
            for that of a sample.

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
    variance = centred.square().sum(1, keepdim=True) / (count - correction).clamp(min=1)
    scores = (centred / variance.masked_fill(flat, 1.).sqrt()).masked_fill(flat, 0.)
    return torch.where(member, scores, logits)

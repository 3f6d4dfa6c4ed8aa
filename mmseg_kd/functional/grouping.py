"""Which classes belong together: the group maps of the family."""
from typing import Sequence, Union

import torch
from torch import Tensor


def one_group(logits: Tensor) -> Tensor:
    """All classes in group 0, (N, C, *)."""
    return torch.zeros_like(logits, dtype=torch.int8)


def class_index(logits: Tensor) -> Tensor:
    """0 .. C - 1 along dimension 1, shaped to broadcast with (N, C, *)."""
    return torch.arange(logits.shape[1], device=logits.device).view(1, -1, *(1, ) * (logits.dim() - 2))


def target_and_rest(logits: Tensor, target: Tensor) -> Tensor:
    """Group 0 the target class, group 1 the rest. A target that is no class leaves group 0 empty.

    Example:
        >>> import torch
        >>> target_and_rest(torch.zeros(1, 3), torch.tensor([1]))
        tensor([[1, 0, 1]], dtype=torch.int8)
    """
    return (class_index(logits) != target.unsqueeze(1)).to(torch.int8)


def by_rank(logits: Tensor, boundaries: Sequence[Union[int, Tensor]], strategy: str = 'best') -> Tensor:
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

"""The one reduction of the family: from a value per position to the loss."""
from typing import Optional

import torch
from torch import Tensor

from .joined import mean_divisor


def valid_positions(shape: torch.Size, device: torch.device, target: Optional[Tensor], weight: Optional[Tensor],
                    ignore_index: Optional[int]) -> Tensor:
    """Positions that count, (N, *) bool: the label is not ``ignore_index`` and the weight is not 0.

    Args:
        shape: (N, C, *), of the logits.
        device: of the result.
        target: (N, *) labels, or None when nothing is ignored.
        weight: (N, *) weights, or None.
        ignore_index: the ignored label, or None when every label counts.
    """
    if target is not None and ignore_index is not None:
        valid = target != ignore_index
    else:
        valid = torch.ones(shape[:1] + shape[2:], dtype=torch.bool, device=device)
    if weight is not None:
        valid = valid & (weight != 0)
    return valid


def reduce_map(values: Tensor,
               valid: Tensor,
               weight: Optional[Tensor] = None,
               reduction: str = 'mean',
               count: Optional[Tensor] = None) -> Tensor:
    """Reduce a map of loss values, each already summed over the classes.

    The mean divides by the *number* of valid positions, not by the sum of the weights: a weight of 2 counts double,
    as everywhere in OpenMMLab, and neither ignored positions nor the size of crop or batch change the scale.

    Args:
        values: (N, *) loss of each position.
        valid: (N, *) bool, see :func:`valid_positions`.
        weight: (N, *) factor of each position.
        reduction: 'mean' over valid positions (0, with a graph, when there is none), 'sum', or 'none' for the (N, *)
            map with zeros at invalid positions.
        count: what the mean divides by, when it is not the number of valid positions.

    In a :func:`~.joined.joined_batch` the number is that of all its parts.

    Example:
        >>> import torch
        >>> values = torch.tensor([1., 2., 6.])
        >>> reduce_map(values, torch.tensor([True, True, False]))
        tensor(1.5000)
    """
    values = values.masked_fill(~valid, 0.)
    if weight is not None:
        values = values * weight.to(values.dtype)
    if reduction == 'none':
        return values
    if reduction == 'sum':
        return values.sum()
    if reduction == 'mean':
        count = valid.sum() if count is None else count
        return values.sum() / mean_divisor(count)
    raise ValueError(f"`reduction` must be 'mean', 'sum' or 'none', got {reduction!r}")

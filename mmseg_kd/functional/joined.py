"""Means over a batch whose parts lie in several processes."""
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Callable, Optional, Tuple

import torch
from torch import Tensor

#: Combines a tensor without gradient over all parts, by 'sum' or 'max'.
Combine = Callable[[Tensor, str], Tensor]

# A plain global, which `torch.compile` can guard; one training step runs at a time in a process.
_parts: Optional[Tuple[Combine, int]] = None


@contextmanager
def joined_batch(combine: Combine, number: int) -> Iterator[None]:
    """Within the block a loss is a share of the loss of the joined batch, of which each process holds a part.

    The mean of a part divides by the valid positions of *all* parts over their number, so that the average over the
    parts, which is what data-parallel training makes of losses and gradients, is the mean over all valid positions,
    however they are distributed. A part without any gives 0, with a graph, and still takes part in every combination.

    Nothing here knows of processes: who trains knows them, and how to combine their numbers. All parts must compute
    the same losses in the same order.

    Args:
        combine: called as ``combine(tensor, op)`` with op 'sum' or 'max' on tensors without gradient; returns the
            combination over all parts, the same in each, in a new tensor.
        number: how many parts there are.
    """
    global _parts
    before, _parts = _parts, (combine, number)
    try:
        yield
    finally:
        _parts = before


def same_batch() -> AbstractContextManager:
    """The present batch's context, for what is computed later than it ends: a second derivative, say."""
    return nullcontext() if _parts is None else joined_batch(*_parts)


def over_batch(value: Tensor, op: str = 'sum') -> Tensor:
    """``value``, which has no gradient, combined over all parts of the batch."""
    return value if _parts is None else _parts[0](value, op)


def mean_divisor(count: Tensor) -> Tensor:
    """What the sum over this part is divided by to be its share of the mean, from the number that count here."""
    if _parts is None:
        return count.clamp(min=1)
    return over_batch(count).clamp(min=1) / _parts[1]


def divisor_of(count: Tensor, reduction: str) -> Tensor:
    """What a sum is divided by under 'mean', see :func:`mean_divisor`, or 'sum': 1."""
    return mean_divisor(count) if reduction == 'mean' else torch.ones_like(count)

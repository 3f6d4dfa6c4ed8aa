"""How many classes lead: k from the teacher's own distribution."""
import math

import torch
from torch import Tensor


def _descending(teacher: Tensor, temperature: float) -> Tensor:
    return (teacher.detach() / temperature).log_softmax(1).sort(1, descending=True).values


def _rank(log_p: Tensor) -> Tensor:
    return torch.arange(1, log_p.shape[1], device=log_p.device).view(1, -1, *(1, ) * (log_p.dim() - 2))


def k_by_ratio(teacher: Tensor, ratio: float, k_max: int, temperature: float = 1.) -> Tensor:
    """The last rank, up to ``k_max``, that stands out from all below: p_k >= ratio * mean(p_k+1 .. p_C); at least 1.

    Args:
        teacher: (N, C, *) float32 or float64 logits.
        ratio: how many times the mean of the smaller probabilities a class must have to lead.
        k_max: the most classes that may lead; C - 1 where it is more.
        temperature: softens the distribution first.

    Returns:
        (N, *) int64 in 1 .. min(k_max, C - 1).

    Example:
        >>> import torch
        >>> logits = torch.tensor([[.4, .4, .1, .1], [.9, .04, .03, .03]]).log()
        >>> k_by_ratio(logits, ratio=3., k_max=3)
        tensor([2, 1])
    """
    log_p = _descending(teacher, temperature)
    rank = _rank(log_p)
    # The mean of the smaller ones, smallest first, in the log domain: behind a lead of 1000 they all underflow.
    log_sum = log_p.flip(1).logcumsumexp(1).flip(1)[:, 1:]
    log_mean = log_sum - (log_p.shape[1] - rank).to(log_p.dtype).log()
    leads = (log_p[:, :-1] - log_mean >= math.log(ratio)) & (rank <= k_max)
    return (leads * rank).amax(1).clamp(min=1)


def k_by_mass(teacher: Tensor, mass: float, k_max: int, temperature: float = 1.) -> Tensor:
    """The fewest classes, up to ``k_max``, that together hold ``mass`` of the probability.

    Args:
        teacher: (N, C, *) float32 or float64 logits.
        mass: share of the probability, in (0, 1].
        k_max: the most classes that may lead; C - 1 where it is more.
        temperature: softens the distribution first.

    Returns:
        (N, *) int64 in 1 .. min(k_max, C - 1).

    Example:
        >>> import torch
        >>> logits = torch.tensor([[.4, .4, .1, .1], [.9, .04, .03, .03]]).log()
        >>> k_by_mass(logits, mass=.75, k_max=3)
        tensor([2, 1])
    """
    log_p = _descending(teacher, temperature)
    short = (log_p.exp().cumsum(1)[:, :-1] < mass).sum(1)
    return (short + 1).clamp(max=min(k_max, log_p.shape[1] - 1))

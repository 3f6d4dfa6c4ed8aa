"""How many classes lead: k from the teacher's own distribution."""
import math

import torch
from torch import Tensor

NEARLY_NOTHING = 1e-35


def _descending(teacher: Tensor, temperature: float) -> Tensor:
    return (teacher.detach() / temperature).log_softmax(1).sort(1, descending=True).values


def k_by_ratio(teacher: Tensor, ratio: float, k_max: int, temperature: float = 1.) -> Tensor:
    """The last rank k with p_k >= ratio * mean(p_k .. p_C), ranked by probability p; at least 1, at most ``k_max``.

    The mean runs over a class and all smaller ones. The rule is that of GDKD's code (Zheng and Cheng, 2025).

    Args:
        teacher: (N, C, *) float32 or float64 logits.
        ratio: how many times that mean a class must have to lead; above 1 to tell anything.
        k_max: the most classes that may lead; C - 1 where it is more.
        temperature: softens the distribution first.

    Returns:
        (N, *) int64 in 1 .. min(k_max, C - 1).

    Example:
        >>> import torch
        >>> logits = torch.tensor([[.4, .4, .1, .1], [.9, .04, .03, .03]]).log()
        >>> k_by_ratio(logits, ratio=1.5, k_max=3)
        tensor([2, 1])
    """
    log_p = _descending(teacher, temperature)
    num_classes = log_p.shape[1]
    rank = torch.arange(1, num_classes + 1, device=log_p.device).view(1, -1, *(1, ) * (log_p.dim() - 2))
    # The running sum, smallest first, in the log domain: behind a lead of 1000 all the others underflow. Of p_k and all
    # smaller ones it takes p_k out, in whose rounding they would vanish: n p_k >= ratio (p_k + smaller).
    log_sum = log_p.flip(1).logcumsumexp(1).flip(1)
    # Never 0, however small: n p_k = ratio p_k is not enough. Only the last class has none below it.
    smaller = (log_sum[:, 1:] - log_p[:, :-1]).clamp(min=math.log(NEARLY_NOTHING)).exp()
    smaller = torch.cat((smaller, torch.zeros_like(log_p[:, :1])), 1)
    leads = num_classes + 1 - rank - ratio >= ratio * smaller
    return (leads * rank).amax(1).clamp(min=1, max=min(k_max, num_classes - 1))


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

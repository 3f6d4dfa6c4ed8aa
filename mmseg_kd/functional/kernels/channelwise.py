"""CWD's operator: value and gradient of a few channels at a time, by PyTorch, on any device.

A channel's distribution needs no other channel. So no full-size map of all channels is made, nor upsampled, and what is
made for a few of them is still in the cache when it is read again.
"""
from typing import Callable, Optional, Tuple

import torch
from torch import Tensor

from ..grouped import kl_summands
from ..upsampled import Logits, leaf_of
from .autograd import with_gradient
from .parts import part_and_way_back, together_on

__all__ = ['channelwise_loss']


def channelwise_loss(student: Logits, teacher: Logits, valid: Tensor, weight: Optional[Tensor], divisor: Tensor,
                     temperature: float, plain: Callable[[], Tensor]) -> Tensor:
    """The sum over images and mean over channels of T^2 KL(teacher || student), divided by ``divisor``.

    Args:
        student, teacher: (N, C, *) logits of one type, or logits to be upsampled; gradients reach the student.
        valid: (N, *) bool, the positions that are in the distributions.
        weight: (N, *) factor of what a position contributes, or None.
        divisor: scalar.
        temperature: T.
        plain: the same by the plain form, for second derivatives.
    """
    leaf = leaf_of(student)

    def compute() -> Tuple[Tensor, Tensor]:
        with torch.no_grad():
            scale = temperature / (leaf.shape[1] * divisor)
            return _value_and_gradient(student, teacher, valid, weight, scale, temperature)

    return with_gradient(leaf, compute, plain)


def _value_and_gradient(student: Logits, teacher: Logits, valid: Tensor, weight: Optional[Tensor], scale: Tensor,
                        temperature: float) -> Tuple[Tensor, Tensor]:
    number, channels = student.shape[:2]
    together = max(1, together_on(student.device) // valid[0].numel())
    valid = valid.flatten(1)
    if weight is not None:
        # Weights of positions that do not count may be anything.
        weight = weight.detach().to(student.dtype).flatten(1).masked_fill(~valid, 0.)
    gradient = torch.empty_like(leaf_of(student))
    total = torch.zeros((), dtype=torch.float64, device=student.device)
    for n in range(number):
        for first in range(0, channels, together):
            some = slice(n, n + 1), slice(first, first + together)
            z, way_back = part_and_way_back(student, *some)
            v, _ = part_and_way_back(teacher, *some)
            value, slope = _of_channels(z[0].flatten(1), v[0].flatten(1), valid[n],
                                        None if weight is None else weight[n], temperature)
            total += value
            gradient[some] = way_back(slope.mul_(scale).view(z.shape))
    return (total * temperature * scale).to(student.dtype), gradient


def _of_channels(student: Tensor, teacher: Tensor, valid: Tensor, weight: Optional[Tensor],
                 temperature: float) -> Tuple[Tensor, Tensor]:
    """KL of (C, P) channels over the (P,) valid positions, summed, and T times its gradient.

    With w the weights, D = sum of w (p log(p / q) - p + q) has T dD/dz = w (q - p) + q sum(w (p - q)).
    """
    log_q, log_p = (_log_softmax(logits, valid, temperature) for logits in (student, teacher))
    difference = log_p - log_q
    p, q = log_p.exp_(), log_q.exp_()
    terms = kl_summands(p, q, difference)
    if weight is None:
        return terms.sum(1).sum(dtype=torch.float64), q.sub_(p)
    terms, slope = terms * weight, (q - p) * weight
    return terms.sum(1).sum(dtype=torch.float64), slope.sub_(q.mul_(slope.sum(1, keepdim=True)))


def _log_softmax(logits: Tensor, valid: Tensor, temperature: float) -> Tensor:
    """Over the valid positions; at the others so low that their probability is 0, and finite."""
    logits = logits.masked_fill(~valid, -1e30 * min(temperature, 1.))
    # The leader is subtracted before the division: two large logits are far apart only in rounding.
    return (logits - logits.amax(1, keepdim=True)).mul_(1 / temperature).log_softmax(1)

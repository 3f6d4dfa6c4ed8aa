"""An operator that computes value and gradient together, as a node of autograd's graph."""
from typing import Callable, Optional, Tuple

import torch
from torch import Tensor

__all__ = ['with_gradient']


class _WithGradient(torch.autograd.Function):

    @staticmethod
    def forward(ctx, student: Tensor, compute, plain) -> Tensor:
        value, ctx.gradient = compute()
        ctx.student, ctx.compute, ctx.plain = student, compute, plain
        return value

    @staticmethod
    def backward(ctx, upstream: Tensor):
        if torch.is_grad_enabled():
            return _with_graph(ctx, upstream), None, None
        if ctx.plain is None:
            return ctx.gradient * upstream, None, None
        # The one copy is handed over; a second backward pass through the same graph computes it anew.
        gradient, ctx.gradient = ctx.gradient, None
        if gradient is None:
            _, gradient = ctx.compute()
        return (gradient if upstream == 1 else gradient.mul_(upstream)), None, None


def _with_graph(ctx, upstream: Tensor) -> Tensor:
    """The gradient as something that can be differentiated again, which only the plain form can."""
    if ctx.plain is None:
        raise RuntimeError('a loss with a random draw has no second derivative by its operator; set '
                           'MMSEG_KD_KERNELS=naive')
    return torch.autograd.grad(ctx.plain(), ctx.student, upstream, create_graph=True)[0]


def with_gradient(student: Tensor, compute: Callable[[], Tuple[Tensor, Tensor]],
                  plain: Optional[Callable[[], Tensor]]) -> Tensor:
    """The value of ``compute()``, whose gradient with respect to ``student`` is the second thing that it returns.

    Args:
        student: what the value depends on.
        compute: returns (value, gradient of the shape of ``student``), without a graph.
        plain: the same value with a graph, for second derivatives; None where a second call of either would not return
            the same.
    """
    if not (torch.is_grad_enabled() and student.requires_grad):
        return compute()[0]
    return _WithGradient.apply(student, compute, plain)

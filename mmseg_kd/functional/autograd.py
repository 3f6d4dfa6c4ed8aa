"""An operator that computes value and gradient together, as a node of autograd's graph."""
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ['with_gradient']


class _WithGradient(torch.autograd.Function):

    @staticmethod
    def forward(ctx, student: Tensor, compute, plain, scaled) -> Tensor:
        value, ctx.gradient = compute()
        ctx.student, ctx.compute, ctx.plain, ctx.scaled = student, compute, plain, scaled
        return value

    @staticmethod
    def backward(ctx, upstream: Tensor):
        if torch.is_grad_enabled():
            return _with_graph(ctx, upstream), None, None, None
        if ctx.plain is None:
            return ctx.gradient * upstream, None, None, None
        # The one copy is handed over; a second backward pass through the same graph computes it anew.
        gradient, ctx.gradient = ctx.gradient, None
        if gradient is None:
            _, gradient = ctx.compute()
        return ctx.scaled(gradient, upstream), None, None, None


def _with_graph(ctx, upstream: Tensor) -> Tensor:
    """The gradient as something that can be differentiated again, which only the plain form can."""
    if ctx.plain is None:
        raise RuntimeError('a loss with a random draw has no second derivative by its operator; set '
                           'MMSEG_KD_KERNELS=naive')
    return torch.autograd.grad(ctx.plain(), ctx.student, upstream, create_graph=True)[0]


def _scaled(gradient: Tensor, upstream: Tensor) -> Tensor:
    # Only a CPU tells for free whether there is anything to do.
    return gradient if upstream.device.type == 'cpu' and upstream == 1 else gradient.mul_(upstream)


def with_gradient(student: Tensor,
                  compute: Callable[[], tuple[Tensor, Tensor]],
                  plain: Callable[[], Tensor] | None,
                  scaled: Callable[[Tensor, Tensor], Tensor] = _scaled) -> Tensor:
    """The value of ``compute()``, whose gradient with respect to ``student`` is the second thing that it returns.

    Args:
        student: what the value depends on.
        compute: returns (value, gradient of the shape of ``student``), without a graph. The gradient may have more
            digits than ``student``: it is rounded when the factor from above is in it.
        plain: the same value with a graph, for second derivatives; None where a second call of either would not return
            the same.
        scaled: multiplies a gradient by a scalar, in place if it likes.
    """
    if not (torch.is_grad_enabled() and student.requires_grad):
        return compute()[0]
    return _WithGradient.apply(student, compute, plain, scaled)

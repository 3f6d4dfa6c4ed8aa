"""Logits at a resolution that they do not have yet: bilinear upsampling that a loss may do inside itself.

And what the operators need: where the outputs lie (:func:`axis`), the way to full size and back for a part of a batch
(:func:`part_and_way_back`), and a node of autograd's graph for a gradient that they compute with the value
(:func:`with_gradient`).
"""
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ['Axis', 'Logits', 'TOGETHER', 'Upsampled', 'at_full_size', 'axis', 'leaf_of', 'part_and_way_back',
           'together_on', 'with_gradient']


class Upsampled(NamedTuple):
    """What ``F.interpolate(logits, size, mode='bilinear', align_corners=align_corners)`` returns, not yet computed.

    The losses take it in place of logits. Operators interpolate position by position, so that the map never exists;
    where there is no operator, the map is computed.

    Args:
        logits: (N, C, h, w).
        size: (H, W) of the labels.
        align_corners: as for ``F.interpolate``.

    Example:
        >>> import torch
        >>> from mmseg_kd.functional import kd_loss
        >>> student, teacher = torch.randn(2, 1, 3, 4, 4), torch.randn(1, 3, 2, 2)
        >>> small = kd_loss(Upsampled(student[0], (16, 16)), Upsampled(teacher, (16, 16)))
        >>> large = kd_loss(F.interpolate(student[0], size=(16, 16), mode='bilinear'),
        ...                 F.interpolate(teacher, size=(16, 16), mode='bilinear'))
        >>> bool((small - large).abs() < 1e-4)
        True
    """

    logits: Tensor
    size: tuple[int, int]
    align_corners: bool = False

    @property
    def shape(self) -> torch.Size:
        """(N, C, H, W), as if it were computed."""
        return torch.Size((*self.logits.shape[:2], *self.size))

    @property
    def dtype(self) -> torch.dtype:
        return self.logits.dtype

    @property
    def device(self) -> torch.device:
        return self.logits.device

    def to(self, dtype: torch.dtype) -> 'Upsampled':
        return self._replace(logits=self.logits.to(dtype))

    def check(self, name: str) -> None:
        """Refuse what cannot be upsampled.

        Raises:
            ValueError: the logits are not an (N, C, h, w) map, or the size is not (H, W).
        """
        if not isinstance(self.logits, Tensor) or self.logits.dim() != 4 or 0 in self.logits.shape[2:]:
            raise ValueError(f'`{name}`: Upsampled needs logits of shape (N, C, h, w), got '
                             f'{tuple(getattr(self.logits, "shape", ())) or type(self.logits).__name__}')
        is_pair = len(self.size) == 2 and isinstance(self.size[0], int) and isinstance(self.size[1], int)
        if not is_pair or min(self.size) < 1:
            raise ValueError(f'`{name}`: Upsampled needs size=(H, W), two positive integers, got {self.size!r}')

    def computed(self) -> Tensor:
        """The (N, C, H, W) map."""
        return F.interpolate(self.logits, self.size, mode='bilinear', align_corners=self.align_corners)


Logits = Tensor | Upsampled


def at_full_size(logits: Logits) -> Tensor:
    """The map of logits, computed if it is not yet."""
    return logits.computed() if isinstance(logits, Upsampled) else logits


def leaf_of(logits: Logits) -> Tensor:
    """The tensor behind logits, at its own size: what the gradient is of."""
    return logits.logits if isinstance(logits, Upsampled) else logits


class Axis(NamedTuple):
    """Where each output of one axis lies: between ``cell`` and ``cell + 1``, at ``share`` of the way."""

    cell: np.ndarray  #: (size,) int32, -1 .. small - 1
    share: np.ndarray  #: (size,) float32 in [0, 1)


def axis(small: int, size: int, align_corners: bool) -> Axis:
    """The geometry of ``F.interpolate(mode='bilinear')`` along one axis from ``small`` to ``size``."""
    index = np.arange(size, dtype=np.float64)
    if align_corners:
        position = index * ((small - 1) / (size - 1) if size > 1 else 0.)
    else:
        position = (index + .5) * (small / size) - .5
    cell = np.clip(np.floor(position), -1, small - 1)
    return Axis(cell.astype(np.int32), (position - cell).astype(np.float32))


#: Logits that an operator written in PyTorch works on together: what stays in a core's cache, and what keeps a GPU
#: busy.
TOGETHER = dict(cpu=2**20, cuda=2**24)


def together_on(device: torch.device) -> int:
    """How many logits to work on together."""
    return TOGETHER.get(device.type, TOGETHER['cuda'])


def part_and_way_back(logits: Logits, *index: slice) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Some images, or some of their channels, at full size, and what brings their gradient back to their own size."""
    part = leaf_of(logits)[index].detach()
    if not isinstance(logits, Upsampled):
        return part, lambda gradient: gradient
    with torch.enable_grad():
        # Upsampling is differentiated by autograd; here nothing else is.
        part.requires_grad_()
        full = logits._replace(logits=part).computed()
    return full.detach(), lambda gradient: torch.autograd.grad(full, part, gradient)[0]


class _WithGradient(torch.autograd.Function):

    @staticmethod
    def forward(ctx, student: Tensor, compute, plain, scaled) -> Tensor:
        value, ctx.gradient = compute()[:2]
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
            gradient = ctx.compute()[1]
        if ctx.scaled is not None:
            gradient = ctx.scaled(gradient, upstream)
        elif upstream.device.type != 'cpu' or upstream != 1:
            # Only a CPU tells for free whether there is anything to do.
            gradient = gradient.mul_(upstream)
        return gradient, None, None, None


def _with_graph(ctx, upstream: Tensor) -> Tensor:
    """The gradient as something that can be differentiated again, which only the plain form can."""
    if ctx.plain is None:
        raise RuntimeError('a loss with a random draw has no second derivative by its operator; set '
                           'MMSEG_KD_KERNELS=naive')
    return torch.autograd.grad(ctx.plain(), ctx.student, upstream, create_graph=True)[0]


def with_gradient(student: Tensor,
                  compute: Callable[[], tuple],
                  plain: Callable[[], Tensor] | None,
                  scaled: Callable[[Tensor, Tensor], Tensor] | None = None) -> Tensor:
    """The value of ``compute()``, whose gradient with respect to ``student`` is the second thing that it returns.

    Args:
        student: what the value depends on.
        compute: returns value, gradient of the shape of ``student``, and anything more, without a graph. The gradient
            may have more digits than ``student``: it is rounded when the factor from above is in it.
        plain: the same value with a graph, for second derivatives; None where a second call of either would not return
            the same.
        scaled: multiplies a gradient by a scalar, in place if it likes; None: in place.
    """
    if not (torch.is_grad_enabled() and student.requires_grad):
        return compute()[0]
    return _WithGradient.apply(student, compute, plain, scaled)

"""Logits at a resolution that they do not have yet: bilinear upsampling that a loss may do inside itself."""
from typing import NamedTuple, Tuple, Union

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ['Logits', 'Upsampled', 'at_full_size', 'leaf_of']


class Upsampled(NamedTuple):
    """What ``F.interpolate(logits, size, mode='bilinear', align_corners=align_corners)`` returns, not yet computed.

    The losses take it in place of logits. Those with an operator (:mod:`.kernels`) interpolate position by position, so
    that the map never exists; the others compute it, as do all where the operator does not work.

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
    size: Tuple[int, int]
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

    @property
    def requires_grad(self) -> bool:
        return self.logits.requires_grad

    def to(self, dtype: torch.dtype) -> 'Upsampled':
        return self._replace(logits=self.logits.to(dtype))

    def check(self, name: str) -> None:
        """Refuse what cannot be upsampled.

        Raises:
            ValueError: the logits are no (N, C, h, w) map, or the size is no (H, W).
        """
        if not isinstance(self.logits, Tensor) or self.logits.dim() != 4 or 0 in self.logits.shape[2:]:
            raise ValueError(f'`{name}`: Upsampled needs logits of shape (N, C, h, w), got '
                             f'{tuple(getattr(self.logits, "shape", ())) or type(self.logits).__name__}')
        if len(self.size) != 2 or not all(isinstance(side, int) and side > 0 for side in self.size):
            raise ValueError(f'`{name}`: Upsampled needs size=(H, W), two positive integers, got {self.size!r}')

    def computed(self) -> Tensor:
        """The (N, C, H, W) map."""
        return F.interpolate(self.logits, self.size, mode='bilinear', align_corners=self.align_corners)


Logits = Union[Tensor, Upsampled]


def at_full_size(logits: Logits) -> Tensor:
    """The map of logits, computed if it is not yet."""
    return logits.computed() if isinstance(logits, Upsampled) else logits


def leaf_of(logits: Logits) -> Tensor:
    """The tensor behind logits, at its own size: what the gradient is of."""
    return logits.logits if isinstance(logits, Upsampled) else logits

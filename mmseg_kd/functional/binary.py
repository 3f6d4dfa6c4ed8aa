"""Losses that see each class as a yes or no of its own: their descriptions, and their plain forms."""
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .grouped import kl_terms

__all__ = ['BinaryKL', 'BinaryKLNorm', 'log_cosh']


@dataclass(frozen=True)
class BinaryKL:
    """See :func:`.binary_kl.binary_kl_loss`."""

    temperature: float
    needs_target = False

    def map(self, student: Tensor, teacher: Tensor, target: Tensor | None = None) -> Tensor:
        """The loss per position, (N, *), of (N, C, *) logits of one type, float32 or float64."""
        z, v = student / self.temperature, teacher / self.temperature
        everywhere = torch.ones_like(z, dtype=torch.bool)
        yes = kl_terms(F.logsigmoid(v), F.logsigmoid(z), everywhere)
        no = kl_terms(F.logsigmoid(-v), F.logsigmoid(-z), everywhere)
        return self.temperature**2 * (yes + no).sum(1)


@dataclass(frozen=True)
class BinaryKLNorm:
    """See :func:`.binary_kl_norm.binary_kl_norm_loss`."""

    temperature: float
    needs_target = False

    def map(self, student: Tensor, teacher: Tensor, target: Tensor | None = None) -> Tensor:
        """As :meth:`BinaryKL.map`."""
        return self.temperature**2 * log_cosh((student - teacher) / (2 * self.temperature)).sum(1)


def log_cosh(x: Tensor) -> Tensor:
    """log(cosh(x)): finite for all x, and right near 0, where |x| + log1p(exp(-2 |x|)) - log(2) cancels."""
    small = x.abs() < 1
    near = 0.5 * torch.log1p(torch.sinh(x.masked_fill(~small, 0.)).square())
    size = x.abs()
    far = size + torch.log1p(torch.exp(-2 * size)) - math.log(2.)
    return torch.where(small, near, far)

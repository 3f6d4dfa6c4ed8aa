"""When two gradients are in conflict, and what it takes to end it."""
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ['Conflict', 'inner_products']


def inner_products(first: list[Tensor], second: list[Tensor]) -> Tensor:
    """(<first, second>, <first, first>, <second, second>) over lists of tensors, in float32 or better."""
    wide = [(_flat(one), _flat(other)) for one, other in zip(first, second, strict=True)]
    return torch.stack([
        torch.stack([torch.dot(one, other) for one, other in wide]).sum(),
        torch.stack([torch.dot(one, one) for one, _ in wide]).sum(),
        torch.stack([torch.dot(other, other) for _, other in wide]).sum()])


def _flat(gradient: Tensor) -> Tensor:
    return gradient.flatten().to(torch.promote_types(gradient.dtype, torch.float32))


class Conflict(NamedTuple):
    """How two gradients, supervised s and distillation d, stand to each other.

    Attributes:
        cosine: Scalar, cos(s, d).
        correction: Scalar c >= 0: d + c s is d without its component along s where <s, d> < 0; 0 where they agree.
            Kept on the device, so that no step waits for it.
    """

    cosine: Tensor
    correction: Tensor

    @classmethod
    def of(cls, dot: Tensor, supervised: Tensor, distillation: Tensor) -> 'Conflict':
        """From <s, d>, <s, s> and <d, d>."""
        tiny = torch.finfo(dot.dtype).tiny
        # sqrt before the product, which could underflow.
        cosine = dot / (supervised.sqrt() * distillation.sqrt()).clamp_min(tiny)
        return cls(cosine, torch.where(dot < 0, -dot / supervised.clamp_min(tiny), torch.zeros_like(dot)))

"""A part of a batch's logits at a time: for operators written in PyTorch, which run on any device."""
from typing import Callable, Tuple

import torch
from torch import Tensor

from ..upsampled import Logits, Upsampled, leaf_of

__all__ = ['TOGETHER', 'part_and_way_back', 'together_on']

#: Logits that are worked on together: what stays in a core's cache, and what keeps a GPU busy.
TOGETHER = dict(cpu=2**20, cuda=2**24)


def together_on(device: torch.device) -> int:
    """How many logits to work on together."""
    return TOGETHER.get(device.type, TOGETHER['cuda'])


def part_and_way_back(logits: Logits, *index: slice) -> Tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Some images, or some of their channels, at full size, and what brings their gradient back to their own size."""
    part = leaf_of(logits)[index].detach()
    if not isinstance(logits, Upsampled):
        return part, lambda gradient: gradient
    with torch.enable_grad():
        # Upsampling is differentiated by autograd; here it is the only thing that is.
        part.requires_grad_()
        full = logits._replace(logits=part).computed()
    return full.detach(), lambda gradient: torch.autograd.grad(full, part, gradient)[0]

"""The batch of a training step when several processes hold parts of it."""
from contextlib import AbstractContextManager, nullcontext

import torch
from mmengine.dist import all_reduce, get_world_size
from torch import Tensor

from mmseg_kd.functional.joined import joined_batch

__all__ = ['batch_of_all_processes']


def batch_of_all_processes() -> AbstractContextManager:
    """Around the losses of a training step: their means are those of the batch of all processes.

    Without gradient (a loss computed for its value, perhaps by one process alone) nothing is exchanged.
    """
    number = get_world_size()
    return joined_batch(_combine, number) if number > 1 and torch.is_grad_enabled() else nullcontext()


def _combine(value: Tensor, op: str) -> Tensor:
    value = value.clone()
    all_reduce(value, op=op)
    return value

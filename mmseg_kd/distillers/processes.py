"""The batch of a training step when several processes hold parts of it."""
from contextlib import AbstractContextManager, nullcontext

import torch
from mmengine.dist import all_reduce, get_world_size
from torch import Tensor

from mmseg_kd.functional.evaluate import joined_batch

__all__ = ['are_joined', 'batch_of_all_processes', 'share_of_all']


def batch_of_all_processes() -> AbstractContextManager:
    """Around the losses of a training step: their means are those of the batch of all processes.

    Without gradient (a loss computed for its value, perhaps by one process alone) nothing is exchanged.
    """
    return joined_batch(_combine, get_world_size()) if are_joined() else nullcontext()


def are_joined() -> bool:
    """Whether this is a training step of several processes, which average their gradients."""
    return get_world_size() > 1 and torch.is_grad_enabled()


def share_of_all(number: int, device: torch.device) -> Tensor | None:
    """Factor on a mean over ``number`` pictures here, so that the average over the processes is the mean over all.

    It is 1 where each process has as many; None without several processes. All of them must call it.
    """
    if not are_joined():
        return None
    total = _combine(torch.tensor(float(number), device=device), 'sum')
    return number * get_world_size() / total.clamp(min=1)


def _combine(value: Tensor, op: str) -> Tensor:
    value = value.clone()
    all_reduce(value, op=op)
    return value

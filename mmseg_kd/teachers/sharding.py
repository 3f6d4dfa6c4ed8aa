"""A frozen model whose weights the processes of a run share."""
from collections.abc import Iterator

import torch
import torch.distributed
from torch import nn

__all__ = ['shard']

# Smaller pieces are not worth a message of their own.
_LEAST = 100_000


def shard(model: nn.Module, device: torch.device) -> None:
    """Let each process hold a part of a model's weights; they are gathered piece by piece as the model runs.

    The pieces are the parts of backbone, neck and heads that are called as modules (the stages of a ResNet, the blocks
    of a transformer) and have at least 100000 parameters; the rest remains whole in each process. OpenMMLab calls heads
    by their methods, so that a whole model could not be sharded. All processes must run the model in the same steps.

    Args:
        model: A frozen model in eval mode, on ``device``.
        device: Where it runs.

    Raises:
        ValueError: there are not several processes, or torch is too old.
    """
    if not torch.distributed.is_initialized():
        raise ValueError('`teacher.shard`: there is one process, which needs the whole teacher; remove shard=True, or '
                         'start several (tools/dist_train.sh).')
    try:
        from torch.distributed.fsdp import fully_shard
    except ImportError as error:
        raise ValueError('`teacher.shard`: needs torch 2.6 or newer.') from error
    mesh = torch.distributed.init_device_mesh(device.type, (torch.distributed.get_world_size(), ))
    for piece in list(_pieces(model)):
        fully_shard(piece, mesh=mesh, reshard_after_forward=True)


def _pieces(model: nn.Module) -> Iterator[nn.Module]:
    for part in model.children():
        for piece in _called(part.children()):
            if sum(parameter.numel() for parameter in piece.parameters()) >= _LEAST:
                yield piece


def _called(modules) -> Iterator[nn.Module]:
    """Modules that are called as such; lists of modules are not, their members are."""
    for module in modules:
        if isinstance(module, (nn.ModuleList, nn.ModuleDict)) and 'forward' not in type(module).__dict__:
            yield from _called(module.children())
        else:
            yield module

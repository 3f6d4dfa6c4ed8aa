"""What FSDP writes for each process of a run: ``rank0.pth``, ``rank1.pth``, ... in a folder.

These files hold records of torch's own classes. Only torch can build them, and only in processes that know each
other. So torch's reader reads them, with ``weights_only=True`` and a list of what it may build. Unlike our own reader
it trusts the kinds of NumPy arrays that the file names; a run reads only what its own processes have written.
"""
import os.path as osp
import re
from pickle import UnpicklingError

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

__all__ = ['is_shard', 'read_shard']

_STATISTICS = ('min', 'max', 'current', 'mean')


def is_shard(path: str) -> bool:
    """Whether this process is one of several and ``path`` is what one of them wrote."""
    return bool(re.fullmatch(r'rank\d+\.pth', osp.basename(path))) and (
        torch.distributed.is_available() and torch.distributed.is_initialized())


def read_shard(path: str, map_location) -> object:
    """Load a file for which :func:`is_shard` is true.

    Raises:
        UnpicklingError: it holds more than data.
    """
    kinds = _records()

    def member(owner, name):
        of_a_shard = getattr(owner, '__name__', None) == 'ShardedTensor' and name == 'ProcessGroupState'
        if (owner is HistoryBuffer and name in _STATISTICS) or (of_a_shard and owner in kinds):
            return getattr(owner, name)
        raise UnpicklingError(f'the file wants getattr({owner!r}, {name!r})')

    allowed = [
        HistoryBuffer, slice, (member, 'builtins.getattr'), np.ndarray, np.dtype, np._core.multiarray._reconstruct,
        np._core.multiarray.scalar, *(type(np.dtype(kind)) for kind in (
            bool, np.uint8, np.int32, np.uint32, np.int64, np.float32, np.float64)), *kinds]
    with torch.serialization.safe_globals(allowed):
        return torch.load(path, map_location=map_location, weights_only=True)


def _records() -> list:
    """Plain records of which process holds what."""
    from torch.distributed import _remote_device
    from torch.distributed._shard import sharded_tensor
    from torch.distributed._shard.metadata import ShardMetadata
    from torch.distributed._shard.sharded_tensor.metadata import MEM_FORMAT_ENCODING
    from torch.distributed._shard.sharding_spec import ChunkShardingSpec
    return [_remote_device, ShardMetadata, MEM_FORMAT_ENCODING, ChunkShardingSpec, sharded_tensor.Shard,
            sharded_tensor.ShardedTensor, sharded_tensor.ShardedTensor.ProcessGroupState,
            sharded_tensor.ShardedTensorMetadata, sharded_tensor.TensorProperties]

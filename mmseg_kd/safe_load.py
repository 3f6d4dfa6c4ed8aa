"""Reading checkpoint files without executing what a pickle says."""
import hashlib
import logging
import os
import os.path as osp
import re
from pickle import UnpicklingError
from urllib.parse import urlparse

import numpy as np
import torch
from mmengine.dist import barrier, get_local_rank, get_world_size
from mmengine.logging import HistoryBuffer, print_log

__all__ = ['download', 'file_sha256', 'load_without_code', 'verify_sha256']

_STATISTICS = ('min', 'max', 'current', 'mean')
# 'name-0a1b2c3d.pth': the convention of torch.hub and OpenMMLab, the beginning of the file's SHA-256.
_HASH_IN_NAME = re.compile(r'-([0-9a-f]{8,64})\.[a-z]+$')


def _member(owner, name):
    """What pickled logs and shards need of ``getattr``; the real one would reach everything."""
    of_a_shard = getattr(owner, '__name__', None) == 'ShardedTensor' and name == 'ProcessGroupState'
    if (owner is HistoryBuffer and name in _STATISTICS) or (of_a_shard and owner in _shards()):
        return getattr(owner, name)
    raise UnpicklingError(f'the file wants getattr({owner!r}, {name!r})')


# What mmengine's Runner writes beside tensors. numpy 1 wrote its functions under an older path.
_ALLOWED = [
    HistoryBuffer, slice, (_member, 'builtins.getattr'), (_member, '__builtin__.getattr'),
    np.ndarray, np.dtype, np._core.multiarray._reconstruct, np._core.multiarray.scalar,
    (np._core.multiarray._reconstruct, 'numpy.core.multiarray._reconstruct'),
    (np._core.multiarray.scalar, 'numpy.core.multiarray.scalar'),
    *(type(np.dtype(kind)) for kind in (bool, np.uint8, np.int32, np.uint32, np.int64, np.float32, np.float64))]


def _shards() -> list:
    """Plain records of which process holds what, in the checkpoints that FSDP writes per process."""
    from torch.distributed import _remote_device
    from torch.distributed._shard import sharded_tensor
    from torch.distributed._shard.metadata import ShardMetadata
    from torch.distributed._shard.sharded_tensor.metadata import MEM_FORMAT_ENCODING
    from torch.distributed._shard.sharding_spec import ChunkShardingSpec
    return [_remote_device, ShardMetadata, MEM_FORMAT_ENCODING, ChunkShardingSpec, sharded_tensor.Shard,
            sharded_tensor.ShardedTensor, sharded_tensor.ShardedTensor.ProcessGroupState,
            sharded_tensor.ShardedTensorMetadata, sharded_tensor.TensorProperties]


def load_without_code(path: str, map_location='cpu', setting: str = 'checkpoint', trusted: bool = False):
    """Load what ``torch.save`` wrote, with ``weights_only=True`` and what mmengine's Runner adds to a checkpoint.

    Args:
        path: A local file.
        map_location: As for ``torch.load``.
        setting: Name of the setting that ``path`` came from, for the error messages.
        trusted: Unpickle everything, which can run code that the file contains; said in the log.

    Raises:
        ValueError: the file does not exist, is no checkpoint, or holds objects that would run code.
    """
    path = osp.expanduser(path)
    if not osp.isfile(path):
        raise ValueError(f'`{setting}`: expected an existing checkpoint file, got {path!r} (looked in '
                         f'{osp.abspath(path)}). Train first, correct the path, or remove the setting.')
    if trusted:
        print_log(f'`{setting}`: {path} is unpickled as a whole, which runs whatever code it contains.',
                  logger='current', level=logging.WARNING)
    try:
        allowed = _ALLOWED + (_shards() if torch.distributed.is_initialized() else [])
        with torch.serialization.safe_globals(allowed):
            return torch.load(path, map_location=map_location, weights_only=not trusted)
    except UnpicklingError as error:
        raise ValueError(
            f'`{setting}`: {path!r} is not a checkpoint, or holds more than weights, which is not unpickled since a '
            'pickle can run code. If you trust the file, say so (teacher.trusted=True for a teacher, '
            'trust_checkpoints=True in the config for all others). '
            f'The reader said: {_reason(error)}') from error
    except (RuntimeError, EOFError) as error:
        raise ValueError(f'`{setting}`: {path!r} could not be read as a checkpoint (truncated?): {error}') from error


def _reason(error: Exception) -> str:
    """What torch's reader did not take, out of a page of advice."""
    found = re.search(r'GLOBAL \S+|the file wants .*', str(error))
    return found[0] if found else str(error).splitlines()[0]


def file_sha256(path: str) -> str:
    """SHA-256 of a file, in hexadecimal digits; the file is never whole in memory."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def verify_sha256(path: str, expected: str, setting: str = 'checkpoint') -> None:
    """Compare a file's SHA-256 with one, or with the beginning of one, that is at least 8 digits long.

    Raises:
        ValueError: they differ, or ``expected`` is no such number.
    """
    if not isinstance(expected, str) or not re.fullmatch(r'[0-9a-f]{8,64}', expected.lower()):
        raise ValueError(f'`{setting}`: expected 8 to 64 hexadecimal digits of a SHA-256, got {expected!r}.')
    found = file_sha256(path)
    if not found.startswith(expected.lower()):
        raise ValueError(f'`{setting}`: {path} has the SHA-256 {found}, expected {expected}: the file is damaged or '
                         'another one. Remove it and download again, or correct the number.')


def download(url: str, sha256: str | None = None, setting: str = 'checkpoint') -> str:
    """Download a file once into torch hub's cache and check it.

    Args:
        url: ``http(s)://...``.
        sha256: Its SHA-256, or the beginning; None: what its name ends with, as in ``name-0a1b2c3d.pth``, if it does.
        setting: Name of the setting that ``url`` came from, for the error messages.

    Returns:
        Path of the file. With several processes the first of every node downloads.

    Raises:
        ValueError: the file is not the one that was meant.
    """
    folder = osp.join(torch.hub.get_dir(), 'checkpoints')
    path = osp.join(folder, osp.basename(urlparse(url).path))
    if get_local_rank() == 0 and not osp.isfile(path):
        os.makedirs(folder, exist_ok=True)
        torch.hub.download_url_to_file(url, path, progress=False)
    if get_world_size() > 1:
        barrier()
    named = _HASH_IN_NAME.search(osp.basename(path))
    if sha256 or named:
        verify_sha256(path, sha256 or named[1], setting)
    return path

"""Reading a teacher's weights without executing what a pickle says."""
import os.path as osp
from pickle import UnpicklingError

import numpy as np
import torch
from mmengine.dist import barrier, get_dist_info

__all__ = ['read_weights']


class _Discarded:
    """Stands in for whatever a Runner pickles beside the weights (logs, metrics); holds and does nothing."""

    def __init__(self, *args, **kwargs):
        pass

    def __setstate__(self, state):
        pass


def _discard(*args, **kwargs):
    return _Discarded()


# What mmengine's Runner leaves in a checkpoint beside tensors. `getattr` is in the pickles of HistoryBuffer; allowing
# the real one would allow everything, so an inert function takes its name.
_STAND_INS = [
    (_Discarded, 'mmengine.logging.history_buffer.HistoryBuffer'),
    (_discard, 'builtins.getattr'),
    (_discard, '__builtin__.getattr'),
]
_NUMPY = [np.ndarray, np.dtype, np._core.multiarray._reconstruct, np._core.multiarray.scalar] + [
    type(np.dtype(kind)) for kind in (bool, np.uint8, np.int32, np.uint32, np.int64, np.float32, np.float64)]
# Checkpoints written with numpy 1 name the same functions by their old path.
_NUMPY += [(np._core.multiarray._reconstruct, 'numpy.core.multiarray._reconstruct'),
           (np._core.multiarray.scalar, 'numpy.core.multiarray.scalar')]


def read_weights(path: str, setting: str = 'teacher.checkpoint') -> dict[str, torch.Tensor]:
    """Read the state dict out of a checkpoint file or URL, on the CPU, with ``weights_only=True``.

    Takes what mmengine's Runner writes, what older OpenMMLab wrote (``state_dict``) and a bare state dict; a leading
    ``module.`` of every key is removed.

    Args:
        path: A local file, or an ``http(s)://`` URL (downloaded once into torch hub's cache).
        setting: Name of the setting that ``path`` came from, for the error messages.

    Returns:
        The state dict: parameter name to tensor.

    Raises:
        ValueError: the file does not exist, is no checkpoint, or holds objects other than weights.
    """
    try:
        with torch.serialization.safe_globals(_STAND_INS + _NUMPY):
            if path.startswith(('http://', 'https://')):
                checkpoint = _download(path)
            else:
                path = osp.expanduser(path)
                if not osp.isfile(path):
                    raise ValueError(
                        f'`{setting}`: expected an existing checkpoint file, got {path!r} (looked in '
                        f'{osp.abspath(path)}). Train the teacher first, correct the path, or remove the setting to '
                        'distil from random weights.')
                checkpoint = torch.load(path, map_location='cpu', weights_only=True)
    except UnpicklingError as error:
        raise ValueError(
            f'`{setting}`: {path!r} is not a checkpoint, or holds more than weights, which is not unpickled since a '
            'pickle can run code. If you trust the file, save its weights alone: '
            "torch.save(torch.load(path, weights_only=False)['state_dict'], new_path). "
            f'The reader said: {str(error).splitlines()[0]}') from error
    except (RuntimeError, EOFError) as error:
        raise ValueError(f'`{setting}`: {path!r} could not be read as a checkpoint (truncated?): {error}') from error
    for key in ('state_dict', 'model'):
        if isinstance(checkpoint, dict) and isinstance(checkpoint.get(key), dict):
            checkpoint = checkpoint[key]
            break
    if not isinstance(checkpoint, dict) or not any(isinstance(value, torch.Tensor) for value in checkpoint.values()):
        raise ValueError(f'`{setting}`: {path!r} holds no state dict (a dict of tensors, or one under "state_dict").')
    if all(key.startswith('module.') for key in checkpoint):
        checkpoint = {key[len('module.'):]: value for key, value in checkpoint.items()}
    return {key: value for key, value in checkpoint.items() if isinstance(value, torch.Tensor)}


def _download(url: str) -> dict:
    """Load from a URL; in a process group rank 0 downloads first and the others read its cache."""
    rank, world_size = get_dist_info()
    if rank != 0:
        barrier()
    checkpoint = torch.hub.load_state_dict_from_url(url, map_location='cpu', progress=rank == 0, weights_only=True)
    if rank == 0 and world_size > 1:
        barrier()
    return checkpoint

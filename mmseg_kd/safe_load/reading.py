"""The one door for every file that may hold a pickle."""
import errno
import logging
import os
import os.path as osp
import zipfile
from collections.abc import Callable

import torch
from mmengine.logging import print_log
from torch import Tensor

from .checkpoints import is_legacy, read_archive, read_legacy
from .description import describe_file
from .pickles import Refused
from .safetensors import is_safetensors, read_safetensors

__all__ = ['load_without_code']


def load_without_code(path: str, map_location='cpu', setting: str = 'checkpoint', trusted: bool = False):
    """Load what ``torch.save`` or safetensors wrote: tensors, numbers, words, and the logs of mmengine's Runner.

    No code of the file runs: neither torch's reader nor Python's is asked, see :mod:`~.pickles`. The checksums inside
    of the file are compared, and no more memory is taken than the file justifies.

    Args:
        path: A local file.
        map_location: A device; None or a function: the CPU.
        setting: Name of the setting that ``path`` came from, for the error messages.
        trusted: Unpickle everything, which can run code that the file contains; said in the log.

    Raises:
        ValueError: the file does not exist, is not a checkpoint (the message says what it is), is damaged, or holds
            objects that would run code.
    """
    path = osp.expanduser(path)
    if not osp.isfile(path):
        what = f'the folder {path!r}' if osp.isdir(path) else repr(path)
        raise ValueError(f'`{setting}`: expected an existing checkpoint file, got {what} (looked in '
                         f'{osp.abspath(path)}). Train first, correct the path, or remove the setting.')
    try:
        if trusted:
            print_log(f'`{setting}`: {path} is unpickled as a whole, which runs whatever code it contains.',
                      logger='current', level=logging.WARNING)
            if _form(path) != 'safetensors':
                return torch.load(path, map_location=map_location, weights_only=False)
        return _read(path, _placer(map_location))
    except Refused as error:
        _refuse_other_files(path, setting, error)
        raise ValueError(
            f'`{setting}`: {path!r} holds more than weights, which is not unpickled since a pickle can run code. If '
            'you trust the file, say so (teacher.trusted=True for a teacher, trust_checkpoints=True in the config for '
            f'all others). It wants {error}') from error
    except Exception as error:  # a damaged file leads to an error of any kind
        # What the disk says is not about the file's content; a place that there cannot be (EINVAL) is.
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno != errno.EINVAL):
            raise
        _refuse_other_files(path, setting, error)
        raise ValueError(f'`{setting}`: {path!r} is a damaged checkpoint ({_in_words(error)}). Copy or download it '
                         'again, or take another one.') from error


def _refuse_other_files(path: str, setting: str, error: Exception) -> None:
    found = describe_file(path)
    if found != 'a checkpoint':
        raise ValueError(f'`{setting}`: expected a checkpoint of torch.save or a .safetensors file, but {path!r} is '
                         f'{found}.') from error


def _form(path: str) -> str | None:
    with open(path, 'rb') as file:
        start = file.read(64)
    if start.startswith(b'PK'):
        return 'zip'
    if is_legacy(start):
        return 'legacy'
    return 'safetensors' if is_safetensors(start, os.path.getsize(path)) else None


def _read(path: str, place: Callable[[Tensor], Tensor]):
    size, form = os.path.getsize(path), _form(path)
    if form == 'zip':
        with zipfile.ZipFile(path) as archive:
            return read_archive(archive, size, place)
    with open(path, 'rb') as file:
        if form == 'legacy':
            return read_legacy(file, size, place)
        if form == 'safetensors':
            return read_safetensors(file, size, place)
    raise zipfile.BadZipFile('no known format')


def _placer(map_location) -> Callable[[Tensor], Tensor]:
    if map_location is None or callable(map_location):
        return lambda data: data
    return lambda data: data.to(map_location)


def _in_words(error: Exception) -> str:
    words = ' '.join(str(error).split())[:300]
    return words if type(error).__module__ in ('pickle', '_pickle', 'zipfile') else f'{type(error).__name__}: {words}'

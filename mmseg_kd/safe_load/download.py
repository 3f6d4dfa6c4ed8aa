"""Downloads, and whether a file is the one that was meant."""
import hashlib
import os
import os.path as osp
import re
from urllib.error import HTTPError, URLError
from urllib.parse import urlparse

import torch
from mmengine.dist import barrier, get_local_rank, get_world_size

__all__ = ['download', 'download_path', 'file_sha256', 'sha256_in_name', 'verify_sha256']

# 'name-0a1b2c3d.pth': the convention of torch.hub and OpenMMLab, the beginning of the file's SHA-256.
_HASH_IN_NAME = re.compile(r'-([0-9a-f]{8,64})\.[a-z]+$')


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
        ValueError: they differ, or ``expected`` is not such a number.
    """
    if not isinstance(expected, str) or not re.fullmatch(r'[0-9a-f]{8,64}', expected.lower()):
        raise ValueError(f'`{setting}`: expected 8 to 64 hexadecimal digits of a SHA-256, got {expected!r}.')
    found = file_sha256(path)
    if not found.startswith(expected.lower()):
        raise ValueError(f'`{setting}`: {path} has the SHA-256 {found}, expected {expected}: the file is damaged or '
                         'another one. Remove it and download again, or correct the number.')


def download_path(url: str) -> str:
    """Where :func:`download` puts the file of an address, whether or not it is there."""
    return osp.join(torch.hub.get_dir(), 'checkpoints', osp.basename(urlparse(url).path))


def sha256_in_name(path: str) -> str | None:
    """The beginning of the SHA-256 that a file's name ends with, as in ``name-0a1b2c3d.pth``; None: it has none."""
    named = _HASH_IN_NAME.search(osp.basename(path))
    return named[1] if named else None


def download(url: str, sha256: str | None = None, setting: str = 'checkpoint') -> str:
    """Download a file once into torch hub's cache and check it.

    Args:
        url: ``http(s)://...``.
        sha256: Its SHA-256, or the beginning; None: what its name ends with, as in ``name-0a1b2c3d.pth``, if it does.
        setting: Name of the setting that ``url`` came from, for the error messages.

    Returns:
        Path of the file. With several processes the first of every node downloads.

    Raises:
        ValueError: the address gives no file, or one that is not the one that was meant.
    """
    path = download_path(url)
    if get_local_rank() == 0 and not osp.isfile(path):
        os.makedirs(osp.dirname(path), exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, path, progress=False)
        except HTTPError as error:
            raise ValueError(f'`{setting}`: {url} cannot be downloaded: the server says {error.code} {error.reason}. '
                             'Correct the address, or download the file by hand and name its path.') from error
        except URLError as error:
            raise ValueError(f'`{setting}`: {url} cannot be downloaded: {error.reason}. Without network, copy the file '
                             f'to {path}.') from error
    if get_world_size() > 1:
        barrier()
    expected = sha256 or sha256_in_name(path)
    if expected:
        verify_sha256(path, expected, setting)
    return path

"""Pictures in a folder, whatever their names end with."""
import os
import os.path as osp
from collections import Counter
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2

from .file_checks import printable

__all__ = ['check_pictures', 'listed_pictures', 'pictures_below']

#: A file that ends like this must be a picture; any other file may be one, which its first bytes say.
PICTURES = ('.avif', '.bmp', '.dib', '.gif', '.jp2', '.jpe', '.jpeg', '.jpg', '.pbm', '.pgm', '.png', '.ppm', '.tif',
            '.tiff', '.webp')
_READERS = 16


def pictures_below(folder: str, setting: str) -> tuple[list[str], Counter]:
    """All pictures at any depth below a folder, sorted by path; names that begin with a dot are passed over.

    Args:
        folder: Where to look. Symbolic links are followed.
        setting: Name of the setting that ``folder`` came from, for messages.

    Returns:
        The paths, and how many files of each suffix are not pictures.

    Raises:
        ValueError: no such folder, or no picture in it.
    """
    if not osp.isdir(folder):
        raise ValueError(f'`{setting}`: expected a folder of pictures, {osp.abspath(folder)} '
                         f'{"is a file" if osp.exists(folder) else "does not exist"}. Correct the path.')
    files, seen = [], set()
    for here, folders, names in os.walk(folder, followlinks=True):
        # A link that leads back to a folder above would be walked without end.
        real = osp.realpath(here)
        folders[:] = [] if real in seen else sorted(name for name in folders if not name.startswith('.'))
        names = [] if real in seen else names
        seen.add(real)
        files += [osp.join(here, name) for name in names if not name.startswith('.')]
    named = [path for path in files if path.lower().endswith(PICTURES)]
    others = [path for path in files if not path.lower().endswith(PICTURES)]
    readable = _readable(others)
    pictures = sorted(named + [path for path, is_picture in zip(others, readable, strict=True) if is_picture])
    left = Counter(osp.splitext(path)[1] or osp.basename(path)
                   for path, is_picture in zip(others, readable, strict=True) if not is_picture)
    if not pictures:
        there = f'only {dict(left.most_common(5))}' if left else 'nothing'
        raise ValueError(f'`{setting}`: {osp.abspath(folder)} holds no picture at any depth, {there}. Name the folder '
                         'with the pictures.')
    return pictures, left


def listed_pictures(files: str | Sequence[str], root: str | None, setting: str) -> list[str]:
    """Paths of a list, or of a text file with one path a line; relative ones are below ``root``.

    Raises:
        ValueError: no such list, nothing in it, or a file that is not there.
    """
    if isinstance(files, str):
        if not osp.isfile(files):
            raise ValueError(f'`{setting}`: expected a list of paths or a text file with one path a line, '
                             f'{osp.abspath(files)} does not exist.')
        with open(files, encoding='utf-8') as lines:
            files = [line.strip() for line in lines if line.strip()]
    paths = [osp.join(root or '', path) for path in files]
    if not paths:
        raise ValueError(f'`{setting}`: expected paths of pictures, got an empty list.')
    missing = [path for path in paths if not osp.isfile(path)]
    if missing:
        raise ValueError(f'`{setting}`: {len(missing)} of {len(paths)} files do not exist, for instance '
                         f'{printable(missing[0])}. Relative paths are below `data_root`, {root!r}.')
    return paths


def check_pictures(paths: Collection[str], setting: str) -> None:
    """Refuse files that begin like no picture: a download that is an error page, a file of size 0.

    Only the first bytes are read. A picture that is cut off is found where it is loaded.

    Raises:
        ValueError: there is such a file; the message names the first ones.
    """
    wrong = [path for path, is_picture in zip(paths, _readable(paths), strict=True) if not is_picture]
    if wrong:
        raise ValueError(f'`{setting}`: {len(wrong)} of {len(paths)} files are no pictures that OpenCV reads: '
                         f'{[printable(path) for path in wrong[:3]]}. Remove or replace them.')


def _readable(paths: Collection[str]) -> list[bool]:
    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(cv2.haveImageReader, paths))

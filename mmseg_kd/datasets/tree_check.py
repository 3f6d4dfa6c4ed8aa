"""What can be wrong with a whole tree in the layout of Cityscapes."""
import multiprocessing
import os
import os.path as osp
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from .file_checks import PairCheck, check_pair, printable

__all__ = ['SplitCheck', 'check_tree', 'find_pairs', 'mapped']

IMAGES, LABELS = 'leftImg8bit', 'gtFine'
LABEL_SUFFIX = '_gtFine_labelTrainIds.png'
#: What the names of pictures may end with.
IMAGE_SUFFIXES = tuple(f'_leftImg8bit{ending}' for ending in (
    '.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff', '.webp'))


@dataclass
class SplitCheck:
    """What was found in one split.

    Attributes:
        pairs: How many pictures have a label map.
        problems: One line each, with the file's name.
        sizes: Pictures of each (height, width).
        labels: Pixels of each label.
        pictures_with: Pictures in which a label occurs.
    """

    pairs: int = 0
    problems: list[str] = field(default_factory=list)
    sizes: Counter = field(default_factory=Counter)
    labels: Counter = field(default_factory=Counter)
    pictures_with: Counter = field(default_factory=Counter)

    def add(self, pair: PairCheck) -> None:
        """Count one picture."""
        self.problems += pair.problems
        if pair.size is not None:
            self.sizes[pair.size] += 1
        self.labels.update(pair.labels)
        self.pictures_with.update(pair.labels.keys())


def _files(folder: str, suffix: tuple[str, ...], problems: list[str], above: tuple[str, ...] = ()) -> Iterator[str]:
    """Files below a folder that end with one of ``suffix``; what is odd on the way goes to ``problems``."""
    real = osp.realpath(folder)
    if real in above:
        problems.append(f'{printable(folder)}: a symbolic link that leads back to {printable(real)}, a loop')
        return
    for name in sorted(os.listdir(folder)):
        path = osp.join(folder, name)
        try:
            name.encode('utf-8')
        except UnicodeEncodeError:
            problems.append(f'{printable(path)}: the name is not UTF-8; rename it')
            continue
        if osp.isdir(path):
            yield from _files(path, suffix, problems, (*above, real))
        elif name.endswith(suffix):
            if osp.exists(path):
                yield path
            else:
                problems.append(f'{printable(path)}: a symbolic link to a file that is not there')
        elif osp.islink(path) and not osp.exists(path):
            problems.append(f'{printable(path)}: a symbolic link that leads nowhere, or to itself')


def find_pairs(root: str, split: str, label_suffix: str = LABEL_SUFFIX,
               image_suffixes: tuple[str, ...] = IMAGE_SUFFIXES) -> tuple[list[tuple[str, str]], list[str]]:
    """Pictures and label maps of a split, paired as mmseg's ``CityscapesDataset`` does: by their relative path.

    Args:
        root: The folder with ``leftImg8bit`` and ``gtFine``.
        split: Name of the split.
        label_suffix: What the names of label maps end with.
        image_suffixes: What the names of pictures may end with.

    Returns:
        The pairs, and what is wrong: missing folders, no picture at all, missing partners, links that loop or lead
        nowhere, names that are not UTF-8.
    """
    problems, found = [], []
    for kind, suffixes in ((IMAGES, image_suffixes), (LABELS, (label_suffix, ))):
        folder = osp.join(root, kind, split)
        if not osp.isdir(folder):
            problems.append(f'{printable(folder)}: no such folder')
            found.append({})
            continue
        found.append({_stem(osp.relpath(path, folder), suffixes): path for path in _files(folder, suffixes, problems)})
        if not found[-1]:
            problems.append(f'{printable(folder)}: holds no file *{suffixes[0]}')
    images, labels = found
    if images and labels:
        problems += [f'{printable(images[name])}: has no label map {LABELS}/{split}/{printable(name)}{label_suffix}'
                     for name in sorted(images.keys() - labels.keys())]
        problems += [f'{printable(labels[name])}: has no picture {IMAGES}/{split}/{printable(name)}{image_suffixes[0]}'
                     for name in sorted(labels.keys() - images.keys())]
    return [(images[name], labels[name]) for name in sorted(images.keys() & labels.keys())], problems


def _stem(path: str, suffixes: tuple[str, ...]) -> str:
    return path[:-len(next(suffix for suffix in suffixes if path.endswith(suffix)))]


def _check(pair: tuple[str, str], num_classes: int | None, ignore_index: int):
    return check_pair(*pair, num_classes, ignore_index)


def check_tree(root: str, splits: Iterable[str] = ('train', 'val'), num_classes: int | None = 19,
               ignore_index: int = 255, label_suffix: str = LABEL_SUFFIX, workers: int = 1,
               progress: Callable = lambda results, total, split: results,
               image_suffixes: tuple[str, ...] = IMAGE_SUFFIXES) -> dict[str, SplitCheck]:
    """Check every file of a tree in the layout of Cityscapes; nothing stops at the first problem.

    Args:
        root: The folder with ``leftImg8bit`` and ``gtFine``.
        splits: Names of the splits.
        num_classes: Labels must be 0 .. num_classes - 1 or ``ignore_index``; None: any label may be.
        ignore_index: The label of pixels that do not count.
        label_suffix: What the names of label maps end with.
        workers: Processes that read.
        progress: Called as ``progress(results, total, split)`` around the results of a split, for a progress bar.
        image_suffixes: What the names of pictures may end with.

    Returns:
        Split to what was found.
    """
    checks = {}
    for split in splits:
        pairs, problems = find_pairs(root, split, label_suffix, image_suffixes)
        checks[split] = found = SplitCheck(len(pairs), problems)
        check = partial(_check, num_classes=num_classes, ignore_index=ignore_index)
        with mapped(check, pairs, workers) as results:
            for result in progress(results, len(pairs), split):
                found.add(result)
    return checks


@contextmanager
def mapped(function: Callable, items: list, workers: int) -> Iterator[Iterable]:
    """``map`` over processes, or in this one."""
    if workers == 1:
        yield map(function, items)
        return
    method = 'fork' if 'fork' in multiprocessing.get_all_start_methods() else 'spawn'
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context(method))
    try:
        yield pool.map(function, items, chunksize=8)
    finally:
        pool.shutdown(cancel_futures=True)

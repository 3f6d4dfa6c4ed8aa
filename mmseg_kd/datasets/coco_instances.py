"""Instances of Cityscapes, or of mini-Cityscapes, as COCO annotations."""
import json
import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from cityscapesscripts.helpers.labels import labels, name2label

__all__ = ['THINGS', 'run_lengths', 'write_coco_instances']

#: The classes of Cityscapes that have instances, in the order of its training ids.
THINGS = tuple(label.name for label in labels if label.hasInstances and not label.ignoreInEval)
_SUFFIX = '_gtFine_instanceIds.png'


def run_lengths(mask: np.ndarray) -> list[int]:
    """Run lengths of COCO's uncompressed masks: column by column, beginning with the zeros.

    Args:
        mask: Boolean (H, W).
    """
    flat = np.concatenate([[False], mask.ravel(order='F'), [False]])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    # What follows the last one.
    ends = [*changes.tolist(), mask.size] if not len(changes) or changes[-1] != mask.size else changes.tolist()
    return np.diff([0, *ends]).tolist()


def write_coco_instances(root: str | Path, classes: Sequence[str] = THINGS, min_pixels: int = 12) -> list[Path]:
    """Write ``root/annotations/instances_<split>.json`` for every split with ``gtFine/<split>/*/*_instanceIds.png``.

    Boxes and masks are those of the visible pixels. A group (an area of a class with instances that has none) and an
    instance of fewer than ``min_pixels`` visible pixels are ``iscrowd``: COCO's evaluation takes them neither for found
    nor for missed, and mmdet's assigners can leave them out.

    Args:
        root: Folder of Cityscapes' layout.
        classes: Names of Cityscapes classes with instances; their order is that of the categories, counted from 1.
        min_pixels: Visible pixels that make an instance.

    Returns:
        The files.

    Raises:
        ValueError: a class without instances, or no annotations below ``root``.
    """
    root = Path(root)
    wrong = [name for name in classes if name not in THINGS]
    if wrong or not classes or len(set(classes)) < len(classes):
        raise ValueError(f'`classes`: expected some of {list(THINGS)}, each once, got {list(classes)}.')
    splits = sorted(path for path in (root / 'gtFine').glob('*') if any(path.glob(f'*/*{_SUFFIX}')))
    if not splits:
        raise ValueError(f'`root`: expected {root / "gtFine"}/<split>/<city>/*{_SUFFIX}, found none.')
    (root / 'annotations').mkdir(exist_ok=True)
    return [_write_split(root, split, classes, min_pixels) for split in splits]


def _write_split(root: Path, split: Path, classes: Sequence[str], min_pixels: int) -> Path:
    images, found = [], []
    for path in sorted(split.glob(f'*/*{_SUFFIX}')):
        ids = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if ids is None:
            raise ValueError(f'`root`: {path} is not a picture.')
        name = path.name[:-len(_SUFFIX)]
        images.append(dict(id=len(images) + 1, width=ids.shape[1], height=ids.shape[0],
                           file_name=f'{path.parent.name}/{name}_leftImg8bit.png'))
        for each in _instances(ids, classes, min_pixels):
            found.append(dict(id=len(found) + 1, image_id=len(images), **each))
    categories = [dict(id=number, name=name) for number, name in enumerate(classes, 1)]
    path = root / 'annotations' / f'instances_{split.name}.json'
    partial = path.with_suffix(f'.partial{os.getpid()}')
    partial.write_text(json.dumps(dict(images=images, annotations=found, categories=categories)))
    partial.rename(path)
    return path


def _instances(ids: np.ndarray, classes: Sequence[str], min_pixels: int) -> list[dict]:
    category = {name2label[name].id: number for number, name in enumerate(classes, 1)}
    result = []
    for value in np.unique(ids).tolist():
        label = value // 1000 if value >= 1000 else value
        if label not in category:
            continue
        mask = ids == value
        area = int(mask.sum())
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        left, top = int(columns[0]), int(rows[0])
        result.append(dict(
            category_id=category[label], iscrowd=int(value < 1000 or area < min_pixels), area=area,
            bbox=[left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top],
            segmentation=dict(size=list(mask.shape), counts=run_lengths(mask))))
    return result

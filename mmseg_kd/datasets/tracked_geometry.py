"""What resizing, cropping and flipping did to an image, read off a map of positions that went along.

mmseg's transforms do not write down their crop. They do treat every array of ``seg_fields`` as they treat the labels,
so an array that holds its own positions comes out as a record of what happened, whatever transforms there were. In the
same way an array of class indices shows which classes became which (``RandomFlip(swap_seg_labels=...)``).
"""
from typing import NamedTuple

import numpy as np

__all__ = ['AxisGeometry', 'axis_geometry', 'class_witness', 'image_geometry', 'new_classes', 'positions']

_REFUSAL = ('`teacher.cache`: the augmentation of the images is more than resizing, cropping and flipping, which are '
            'all that cached logits of a teacher can follow. Remove the rest (rotation, mosaic, ...) from the '
            'pipeline, or train with the teacher itself (`teacher.config` and `checkpoint` without `cache`).')

_CLASS_REFUSAL = ('`teacher.cache`: the augmentation of the images changes labels in a way that cached logits of a '
                  'teacher cannot follow; they follow only an exchange of classes, as RandomFlip with '
                  '`swap_seg_labels` makes it. Remove the transform, or train with the teacher itself.')


class AxisGeometry(NamedTuple):
    """Output x of one axis lies at (x + offset + 0.5) * scale - 0.5 of the original; reversed where ``flipped``."""

    scale: float
    offset: int
    flipped: bool

    def is_whole(self, size: int, original: int) -> bool:
        """Whether an output of ``size`` pixels shows all of the ``original``."""
        return self.offset == 0 and round(original / self.scale) == size

    def source(self, x: np.ndarray, size: int) -> np.ndarray:
        """Positions in the original, in pixels, of positions ``x`` of an output of ``size`` pixels."""
        x = size - 1 - x if self.flipped else x
        return (x + self.offset + .5) * self.scale - .5


def positions(height: int, width: int) -> np.ndarray:
    """(H, W, 2) int16: row and column of each pixel, to go through the transforms like labels.

    Position x is stored as -1 - x, which no label is, so that a transform that exchanges labels leaves it alone.
    """
    rows, columns = np.arange(height, dtype=np.int16), np.arange(width, dtype=np.int16)
    return -1 - np.stack(np.broadcast_arrays(rows[:, None], columns[None]), 2)


def class_witness(height: int, width: int, classes: int) -> np.ndarray:
    """(H, W) int16: class (row + column) mod ``classes`` at each pixel, to go through the transforms like labels."""
    rows, columns = np.arange(height), np.arange(width)
    return ((rows[:, None] + columns[None]) % classes).astype(np.int16)


def new_classes(witness: np.ndarray, seen: np.ndarray, classes: int) -> np.ndarray:
    """Which class became which.

    Args:
        witness: (h, w), what became of :func:`class_witness`.
        seen: (h, w, 2), what became of :func:`positions`, of which :func:`image_geometry` could make something.
        classes: C.

    Returns:
        (C,) int64: entry c is the class that c became. A class that no pixel shows became what undoes another's change,
        or stayed.

    Raises:
        ValueError: a class became several, or several became one.
    """
    if witness.min() < 0 or witness.max() >= classes:
        raise ValueError(_CLASS_REFUSAL)
    rows, columns = (-1 - each.astype(np.int64) for each in (seen[:, 0, 0], seen[0, :, 1]))
    was = (rows[:, None] + columns) % classes
    before, after = np.divmod(np.flatnonzero(np.bincount((classes * was + witness).ravel())), classes)
    found = dict(zip(before.tolist(), after.tolist(), strict=True))
    back = {new: old for old, new in found.items()}
    if len(found) < len(before) or len(back) < len(found):
        raise ValueError(_CLASS_REFUSAL)
    result = np.array([found.get(c, back.get(c, c)) for c in range(classes)])
    if len(set(result.tolist())) < classes:
        raise ValueError(_CLASS_REFUSAL)
    return result


def axis_geometry(seen: np.ndarray, size: int) -> AxisGeometry:
    """Find the geometry of one axis from the original positions that its outputs hold.

    Args:
        seen: (n,) positions, as nearest-neighbour resizing, cropping and flipping left them.
        size: Length of the axis in the original.

    Raises:
        ValueError: no resizing, crop and flip gives these positions.
    """
    seen = seen.astype(np.int64)
    flipped = len(seen) > 1 and seen[0] > seen[-1]
    ordered = seen[::-1] if flipped else seen
    slope = (ordered[-1] - ordered[0]) / max(len(ordered) - 1, 1) or 1.
    best = None
    # The resized length is a whole number near size / slope; nearest-neighbour resizing takes floor(x * size / length).
    spread = 2 + int(2 * size / slope / max(len(ordered), 1))
    guess = round(size / slope)
    for length in sorted(range(max(1, guess - spread), guess + spread + 1), key=lambda length: abs(length - guess)):
        scale = size / length
        start = int(ordered[0] / scale)
        for offset in range(max(start - 2, 0), start + 3):
            expected = np.minimum(((np.arange(len(ordered)) + offset) * scale + 1e-9).astype(np.int64), size - 1)
            wrong = np.abs(expected - ordered)
            error = (wrong.max(), wrong.sum())
            if best is None or error < best[0]:
                best = error, AxisGeometry(scale, offset, bool(flipped))
        if best[0][1] == 0:
            break
    if best[0][0] > 1:
        raise ValueError(_REFUSAL)
    return best[1]


def image_geometry(seen: np.ndarray, original: tuple[int, int]) -> tuple[AxisGeometry, AxisGeometry]:
    """Geometry of rows and columns from what became of :func:`positions`.

    Args:
        seen: (h, w, 2) positions behind all transforms.
        original: (H, W) before them.

    Raises:
        ValueError: something else than resizing, cropping and flipping happened.
    """
    seen = -1 - seen
    rows, columns = seen[:, 0, 0], seen[0, :, 1]
    if (seen[..., 0] != rows[:, None]).any() or (seen[..., 1] != columns).any():
        raise ValueError(_REFUSAL)
    return axis_geometry(rows, original[0]), axis_geometry(columns, original[1])

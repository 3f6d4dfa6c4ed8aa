"""What resizing, cropping and flipping did to an image, read off a map of positions that went along.

mmseg's transforms do not write down their crop. They do treat every array of ``seg_fields`` as they treat the labels,
so an array that holds its own positions comes out as a record of what happened, whatever transforms there were.
"""
from typing import NamedTuple, Tuple

import numpy as np

__all__ = ['AxisGeometry', 'axis_geometry', 'image_geometry', 'positions']

_REFUSAL = ('`teacher.cache`: the augmentation of the images is more than resizing, cropping and flipping, which are '
            'all that cached logits of a teacher can follow. Remove the rest (rotation, mosaic, ...) from the '
            'pipeline, or train with the teacher itself (`teacher.config` and `checkpoint` without `cache`).')


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
    """(H, W, 2) int16: row and column of each pixel, to go through the transforms like labels."""
    rows, columns = np.arange(height, dtype=np.int16), np.arange(width, dtype=np.int16)
    return np.stack(np.broadcast_arrays(rows[:, None], columns[None]), 2)


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


def image_geometry(seen: np.ndarray, original: Tuple[int, int]) -> Tuple[AxisGeometry, AxisGeometry]:
    """Geometry of rows and columns from what became of :func:`positions`.

    Args:
        seen: (h, w, 2) positions behind all transforms.
        original: (H, W) before them.

    Raises:
        ValueError: something else than resizing, cropping and flipping happened.
    """
    rows, columns = seen[:, 0, 0], seen[0, :, 1]
    if (seen[..., 0] != rows[:, None]).any() or (seen[..., 1] != columns).any():
        raise ValueError(_REFUSAL)
    return axis_geometry(rows, original[0]), axis_geometry(columns, original[1])

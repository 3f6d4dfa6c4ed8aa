"""Shapes of tiles: how many classes and positions one program holds, and with how many warps."""
from typing import NamedTuple

__all__ = ['MOST_CLASSES', 'Tiling', 'same_resolution_tiling', 'upsampling_tiling']

MOST_CLASSES = 256


class Tiling(NamedTuple):
    """See :mod:`.grouped` for the two parts of the classes."""

    head: int  #: rows of the first part, a power of two below the number of classes
    tail: int  #: rows of the second part, a power of two
    width: int  #: positions
    warps: int


def _tiling(num_classes: int, most_rows: int, narrowest: int) -> Tiling:
    """A thread has up to ``most_rows`` classes of one position; other threads have the rest."""
    head = 1 << max((num_classes - 1).bit_length() - 1, 0)
    tail = 1 << max(num_classes - head - 1, 0).bit_length()
    sharing = 1
    while head + tail > most_rows * sharing:
        sharing *= 2
    width = max(narrowest, 128 // sharing)
    return Tiling(head, tail, width, sharing * width // 32)


def same_resolution_tiling(num_classes: int) -> Tiling:
    """Tiles whose classes stay in registers.

    The lanes of a warp are neighbouring positions, so that a warp reads and writes whole lines of memory (half a line
    beyond 192 classes). Up to about 24 classes a thread holds one position, so that sums over its classes need nobody
    else; more are shared by warps. A thread holds about eight numbers per class at a time and may have 255.
    """
    return _tiling(num_classes, 24, 32 if num_classes <= 192 else 16)


def upsampling_tiling(num_classes: int) -> Tiling:
    """As :func:`same_resolution_tiling`, for a thread that holds six numbers more per class.

    These are two rows of the student, the teacher and the gradient. The small maps are read from caches, where a part
    of a warp's lanes as neighbours does as well as all; more than 256 threads would have too few registers each.
    """
    return _tiling(num_classes, 10, 16 if num_classes <= 160 else 8)

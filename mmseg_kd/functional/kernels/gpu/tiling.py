"""Shapes of tiles: how many classes and positions one program holds, and with how many warps."""
from typing import NamedTuple, Tuple

__all__ = ['MOST_CLASSES', 'MOST_CLASSES_UPSAMPLED', 'Tiling', 'same_resolution_tiling', 'upsampling_tiling']

MOST_CLASSES, MOST_CLASSES_UPSAMPLED = 512, 256


class Tiling(NamedTuple):
    """See :mod:`.grouped` for the two parts of the classes."""

    head: int  #: rows of the first part, a power of two below the number of classes
    tail: int  #: rows of the second part, a power of two
    width: int  #: positions
    warps: int


def _parts(num_classes: int) -> Tuple[int, int]:
    head = 1 << max((num_classes - 1).bit_length() - 1, 0)
    return head, 1 << max(num_classes - head - 1, 0).bit_length()


def same_resolution_tiling(num_classes: int) -> Tiling:
    """Tiles whose classes stay in registers.

    The lanes of a warp are neighbouring positions, so that a warp reads and writes whole lines of memory. Up to 32
    classes a thread holds one position, so that sums over its classes need nobody else; more are shared by warps, 16
    to 32 for each. A thread holds about four numbers per class at a time, which leaves registers for several programs
    on a multiprocessor to hide one another's waiting.
    """
    head, tail = _parts(num_classes)
    sharing = max(1, head // 16)
    together = max(1, 4 // sharing)
    return Tiling(head, tail, 32 * together, sharing * together)


def upsampling_tiling(num_classes: int) -> Tiling:
    """As :func:`same_resolution_tiling`, for a thread that holds six numbers more per class, of 8 to 16 classes.

    These are two rows of the student, the teacher and the gradient. The small maps are read from caches, where half a
    warp of neighbours does as well as a whole one, and a program of fewer threads may have more registers for each.
    """
    head, tail = _parts(num_classes)
    if num_classes > 64:
        return Tiling(head, tail, 16, head // 16)
    sharing = max(1, head // 8)
    return Tiling(head, tail, 32 * (4 // sharing), 4)

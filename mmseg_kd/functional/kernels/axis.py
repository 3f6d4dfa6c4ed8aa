"""Where the outputs of bilinear upsampling lie along one axis."""
from typing import NamedTuple

import numpy as np

__all__ = ['Axis', 'axis']


class Axis(NamedTuple):
    """Where each output of one axis lies: between ``cell`` and ``cell + 1``, at ``share`` of the way."""

    cell: np.ndarray  #: (size,) int32, -1 .. small - 1
    share: np.ndarray  #: (size,) float32 in [0, 1)


def axis(small: int, size: int, align_corners: bool) -> Axis:
    """The geometry of ``F.interpolate(mode='bilinear')`` along one axis from ``small`` to ``size``."""
    index = np.arange(size, dtype=np.float64)
    if align_corners:
        position = index * ((small - 1) / (size - 1) if size > 1 else 0.)
    else:
        position = (index + .5) * (small / size) - .5
    cell = np.clip(np.floor(position), -1, small - 1)
    return Axis(cell.astype(np.int32), (position - cell).astype(np.float32))

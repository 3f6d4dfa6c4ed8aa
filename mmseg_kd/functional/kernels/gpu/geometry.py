"""How the outputs of an upsampling lie in the small maps, as tables on the device."""
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..axis import axis

__all__ = ['CELL_LIMIT', 'Cells', 'Places', 'cells', 'outputs_of_a_cell', 'places']

#: The most outputs along one axis between two neighbours of the small map.
CELL_LIMIT = 64


class Cells(NamedTuple):
    """The outputs of one axis, sorted by cell: cell ``i`` lies between the neighbours i and i + 1, from i = -1 on."""

    first: Tensor  #: (small + 2,) int32, the first output of cell -1, 0, ...; the last entry is the number of outputs
    share: Tensor  #: (size,) float32, how far an output is from the lower neighbour to the upper


class Places(NamedTuple):
    """The neighbours of each output of one axis."""

    lower: Tensor  #: (size,) int32
    upper: Tensor  #: (size,) int32
    share: Tensor  #: (size,) float32


def _share(small: int, cell: np.ndarray, share: np.ndarray) -> np.ndarray:
    # Beyond the border there is one neighbour alone, the border.
    return np.where(cell < 0, 1, np.where(cell == small - 1, 0, share)).astype(np.float32)


@lru_cache(maxsize=64)
def cells(small: int, size: int, align_corners: bool, device: torch.device) -> Cells:
    """For ``F.interpolate(mode='bilinear')`` from ``small`` to ``size``."""
    outputs = axis(small, size, align_corners)
    first = np.searchsorted(outputs.cell, np.arange(-1, small + 1)).astype(np.int32)
    return Cells(*(torch.from_numpy(table).to(device) for table in (first, _share(small, *outputs))))


@lru_cache(maxsize=64)
def places(small: int, size: int, align_corners: bool, device: torch.device) -> Places:
    """As :func:`cells`, output by output."""
    outputs = axis(small, size, align_corners)
    lower, upper = np.maximum(outputs.cell, 0), np.minimum(outputs.cell + 1, small - 1)
    return Places(*(torch.from_numpy(table).to(device)
                    for table in (lower.astype(np.int32), upper.astype(np.int32), _share(small, *outputs))))


@lru_cache(maxsize=64)
def outputs_of_a_cell(small: int, size: int, align_corners: bool) -> int:
    """The most outputs that any cell has."""
    return int(np.bincount(axis(small, size, align_corners).cell + 1).max())

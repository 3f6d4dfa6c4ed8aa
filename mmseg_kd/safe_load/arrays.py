"""NumPy arrays and numbers in a pickle: plain numeric ones."""
import re
from pickle import UnpicklingError

import numpy as np

from .pickles import Refused

__all__ = ['ArrayToBe', 'Kind', 'array_from_buffer', 'number', 'unfinished_array']


class Kind:
    """A dtype, as a pickle says it in two steps: its name, then its byte order.

    Only numbers (bool, signed, unsigned, real, complex): an object is an address in memory, which no file may choose.
    """

    def __init__(self, name, *_):
        if not isinstance(name, str) or not re.fullmatch(r'[<>=|]?[biufc]\d{1,2}', name):
            raise Refused(f'a NumPy array of the kind {name!r}, which is not numeric')
        self.dtype = np.dtype(name)

    def build(self, state) -> 'Kind':
        """Take the byte order; every other state makes another type of it."""
        order = state[1] if isinstance(state, tuple) and len(state) == 8 else None
        if order not in ('<', '>', '|', '=') or state[2:] != (None, None, None, -1, -1, 0):
            raise Refused('a NumPy dtype with a state of its own')
        self.dtype = self.dtype.newbyteorder(order)
        return self


class ArrayToBe:
    """An array that a pickle has begun."""

    def build(self, state) -> np.ndarray:
        """The array of ``(version, shape, kind, Fortran order, bytes)``."""
        _, shape, kind, fortran, content = state
        return _array(content, kind, shape, bool(fortran))


def unfinished_array(*_) -> ArrayToBe:
    """In the place of ``numpy._core.multiarray._reconstruct``."""
    return ArrayToBe()


def number(kind, content=None) -> np.generic:
    """In the place of ``numpy._core.multiarray.scalar``."""
    return _array(content, kind, (), False)[()]


def array_from_buffer(content, kind, shape, order='C') -> np.ndarray:
    """In the place of ``numpy._core.numeric._frombuffer``."""
    return _array(content, kind, shape, order == 'F')


def _array(content, kind, shape, fortran: bool) -> np.ndarray:
    if not isinstance(kind, Kind):
        raise Refused(f'a NumPy array whose dtype is a {type(kind).__name__}')
    content = content.encode('latin-1') if isinstance(content, str) else content
    if not isinstance(content, (bytes, bytearray)):
        raise Refused(f'a NumPy array whose content is a {type(content).__name__}')
    if not isinstance(shape, tuple) or not all(type(size) is int and size >= 0 for size in shape) or len(shape) > 32:
        raise UnpicklingError('a NumPy array without a shape')
    flat = np.frombuffer(bytes(content), kind.dtype)
    array = flat.reshape(shape, order='F' if fortran else 'C')
    return array.astype(kind.dtype.newbyteorder('='))

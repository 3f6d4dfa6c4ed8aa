"""Files in the format of safetensors: the length of a header, the header as JSON, then the numbers."""
import json
from math import prod
from pickle import UnpicklingError
from typing import BinaryIO

import torch
from torch import Tensor

__all__ = ['is_safetensors', 'read_safetensors']

# As the format's own reader has it.
_MAX_HEADER = 100_000_000
_DTYPES = dict(BOOL=torch.bool, U8=torch.uint8, I8=torch.int8, I16=torch.int16, I32=torch.int32, I64=torch.int64,
               F16=torch.float16, BF16=torch.bfloat16, F32=torch.float32, F64=torch.float64, C64=torch.complex64,
               F8_E4M3=torch.float8_e4m3fn, F8_E5M2=torch.float8_e5m2)


def is_safetensors(start: bytes, file_size: int) -> bool:
    """Whether a file that begins with these (at least 9) bytes has such a header."""
    return len(start) >= 9 and start[8:9] == b'{' and 2 <= int.from_bytes(start[:8], 'little') <= min(
        file_size - 8, _MAX_HEADER)


def read_safetensors(file: BinaryIO, file_size: int, place) -> dict[str, Tensor]:
    """Read all tensors, name to tensor; the header's ``__metadata__`` is left out.

    Args:
        file: At its beginning.
        file_size: Of the file, in bytes.
        place: Puts (n,) uint8 where it shall be.

    Raises:
        UnpicklingError: the header is not one, or names bytes that the file does not have.
    """
    length = int.from_bytes(file.read(8), 'little')
    header = json.loads(file.read(length).decode('utf-8'))
    begin, found, covered = 8 + length, {}, 0
    entries = [(name, entry) for name, entry in header.items() if name != '__metadata__']
    for name, entry in sorted(entries, key=lambda item: item[1]['data_offsets'][0]):
        dtype, shape, (first, last) = _DTYPES.get(entry['dtype']), entry['shape'], entry['data_offsets']
        if dtype is None:
            raise UnpicklingError(f'{name!r} has the dtype {entry["dtype"]!r}, which is not known')
        if not isinstance(shape, list) or not all(type(each) is int and each >= 0 for each in (*shape, first, last)):
            raise UnpicklingError(f'{name!r} has no proper size')
        # The format has no holes and no overlaps.
        if first != covered or last - first != prod(shape) * dtype.itemsize or begin + last > file_size:
            raise UnpicklingError(f'{name!r} does not lie where its header says, the file is cut off or damaged')
        covered = last
        content = bytearray(last - first)
        file.seek(begin + first)
        file.readinto(content)
        data = torch.frombuffer(content, dtype=torch.uint8) if content else torch.empty(0, dtype=torch.uint8)
        found[name] = place(data).view(dtype).view(shape)
    if begin + covered != file_size:
        raise UnpicklingError(f'it has {file_size} bytes, its header speaks of {begin + covered}')
    return found

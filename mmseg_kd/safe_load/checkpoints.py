"""What ``torch.save`` writes: a zip archive, or before torch 1.6 a row of pickles with the memory behind them."""
import io
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable
from enum import Enum
from functools import cache
from pickle import UnpicklingError
from typing import BinaryIO

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
from torch import Tensor

from .arrays import ArrayToBe, Kind, array_from_buffer, number, unfinished_array
from .description import LEGACY_START
from .pickles import Builder, Refused, read_pickle
from .tensors import STORAGES, TENSOR_BUILDERS, Storage, check_unpacked

__all__ = ['is_legacy', 'read_archive', 'read_legacy']

_PIECE = 16 << 20
_LEGACY_MAGIC, _LEGACY_PROTOCOL = 0x1950a86a20f9469cfc6c, 1001
_STATISTICS = ('min', 'max', 'current', 'mean')
_ANNEALING = ('_annealing_cos', '_annealing_linear')


def read_archive(archive: zipfile.ZipFile, file_size: int, place: Callable[[Tensor], Tensor]) -> object:
    """Read a checkpoint in the zip form; every byte is compared with the archive's checksums.

    Args:
        archive: Opened.
        file_size: Of the file, in bytes.
        place: Puts (n,) uint8 where it shall be.

    Raises:
        Refused: it holds more than data.
        Exception: of whatever kind, for a damaged file.
    """
    entries = archive.infolist()
    check_unpacked(sum(entry.file_size for entry in entries), file_size, 'its content')
    prefix = next(entry.filename for entry in entries if entry.filename.endswith('data.pkl'))[:-len('data.pkl')]
    names = {entry.filename for entry in entries}
    # torch.serialization.set_crc32_options(False) leaves them out, all of them.
    has_checksums = any(entry.CRC for entry in entries)

    def read(name: str) -> np.ndarray:
        entry = archive.getinfo(prefix + name)
        content = np.empty(entry.file_size, np.uint8)
        if not has_checksums:
            del entry.CRC
        with archive.open(entry) as file:
            start = 0
            while piece := file.read(_PIECE):
                content[start:start + len(piece)] = np.frombuffer(piece, np.uint8)
                start += len(piece)
        if start != entry.file_size:
            raise UnpicklingError(f'{name} is cut off')
        return content

    if f'{prefix}byteorder' in names and bytes(read('byteorder')) != b'little':
        raise UnpicklingError('it was written on a machine of the other byte order')
    loaded: dict[str, Tensor] = {}

    def storage(identifier) -> Storage:
        dtype, key, count = _storage_id(identifier)
        if key not in loaded:
            loaded[key] = place(torch.from_numpy(read(f'data/{key}')))
        # Two tensors of one memory can see it as different dtypes.
        if count * dtype.itemsize > loaded[key].numel():
            raise UnpicklingError(f'data/{key} has {loaded[key].numel()} bytes, {count} elements of {dtype} need more')
        return Storage(loaded[key], dtype)

    return read_pickle(io.BytesIO(bytes(read('data.pkl'))), _find, storage, _build)


def is_legacy(start: bytes) -> bool:
    """Whether a file that begins with these bytes is a checkpoint in the form before torch 1.6."""
    return start.startswith(LEGACY_START)


def read_legacy(file: BinaryIO, file_size: int, place: Callable[[Tensor], Tensor]) -> object:
    """Read a checkpoint in the form before torch 1.6; arguments and errors are those of :func:`read_archive`."""
    pickles = _Bounded(file, file_size)
    magic, protocol, system = (read_pickle(pickles, _find, _no_storage, _build) for _ in range(3))
    if magic != _LEGACY_MAGIC or protocol != _LEGACY_PROTOCOL:
        raise UnpicklingError('its beginning is not that of a checkpoint')
    if isinstance(system, dict) and system.get('little_endian') is False:
        raise UnpicklingError('it was written on a machine of the other byte order')
    loaded: dict[str, tuple[Tensor, torch.dtype]] = {}

    def storage(identifier) -> Storage:
        dtype, key, count = _storage_id(identifier)
        if key not in loaded:
            check_unpacked(sum(data.numel() for data, _ in loaded.values()) + count * dtype.itemsize, file_size,
                           'its content')
            loaded[key] = place(torch.zeros(count * dtype.itemsize, dtype=torch.uint8)), dtype
        view = identifier[5] if len(identifier) > 5 else None
        if view is not None:
            _, first, count = view
            if type(first) is not int or type(count) is not int or min(first, count) < 0:
                raise UnpicklingError('a view without a proper size')
            return Storage(loaded[key][0], dtype, first)
        return Storage(loaded[key][0], dtype)

    result = read_pickle(pickles, _find, storage, _build)
    keys = read_pickle(pickles, _find, _no_storage, _build)
    if not isinstance(keys, list) or {str(key) for key in keys} != set(loaded):
        raise UnpicklingError('its list of memories is not that of its tensors')
    for key in keys:
        data, dtype = loaded[str(key)]
        count = int.from_bytes(_exactly(file, 8), 'little')
        if count * dtype.itemsize != data.numel():
            raise UnpicklingError(f'memory {key} has {count} elements, expected {data.numel() // dtype.itemsize}')
        for start in range(0, data.numel(), _PIECE):
            piece = _exactly(file, min(_PIECE, data.numel() - start))
            data[start:start + len(piece)].copy_(torch.frombuffer(bytearray(piece), dtype=torch.uint8))
    return result


class _Bounded:
    """A file that takes no memory for bytes that it does not have, whatever number of them is asked for."""

    def __init__(self, file: BinaryIO, size: int):
        self.file, self.size = file, size
        self.readline, self.tell = file.readline, file.tell

    def read(self, size: int) -> bytes:
        return self.file.read(min(size, self.size - self.file.tell()))


def _exactly(file: BinaryIO, size: int) -> bytes:
    content = file.read(size)
    if len(content) != size:
        raise UnpicklingError('it is cut off')
    return content


def _no_storage(identifier):
    raise Refused('memory where there is none')


def _storage_id(identifier) -> tuple[torch.dtype, str, int]:
    """Dtype, key and number of elements of ``('storage', type, key, device, number, ...)``."""
    if not isinstance(identifier, tuple) or len(identifier) < 5 or identifier[0] not in ('storage', b'storage'):
        raise Refused('a persistent id that is not a storage')
    dtype, key, count = identifier[1], identifier[2], identifier[4]
    if not isinstance(dtype, torch.dtype) or type(count) is not int or count < 0 or not isinstance(key, (str, int)):
        raise UnpicklingError('memory without a proper type')
    return dtype, str(key), count


def _ordered(items=()) -> OrderedDict:
    return OrderedDict(items if isinstance(items, (list, dict)) else [])


def _counted(items=None) -> Counter:
    """The milestones of a schedule."""
    items = {} if items is None else items
    if type(items) is not dict or not all(type(each) is int for pair in items.items() for each in pair):
        raise Refused('a Counter of something else than whole numbers')
    return Counter(items)


def _encoded(text, encoding='latin1') -> bytes:
    if not isinstance(text, str) or encoding not in ('latin1', 'latin-1'):
        raise Refused(f'_codecs.encode to {encoding!r}')
    return text.encode('latin-1')


def _member(owner, name):
    """The statistics of a log, the form of a schedule, and an inner class of a shard are pickled as members."""
    if owner is _HISTORY and name in _STATISTICS:
        return getattr(HistoryBuffer, name)
    if owner is _ONE_CYCLE and name in _ANNEALING:
        return getattr(OneCycleParamScheduler, name)
    shards = _shards()
    if owner is shards.get(f'{_SHARDED}.ShardedTensor') and f'{_SHARDED}.ShardedTensor.{name}' in shards:
        return shards[f'{_SHARDED}.ShardedTensor.{name}']
    raise Refused(f'getattr(..., {name!r})')


def _find(name: str) -> object:
    """What a name in a pickle stands for."""
    # Python 2 and NumPy 1 called some of them otherwise.
    plain = name.replace('__builtin__.', 'builtins.', 1).replace('numpy._core.', 'numpy.core.', 1)
    shards = _shards()
    if plain in shards or plain in _TABLE:
        return shards[plain] if plain in shards else _TABLE[plain]
    raise Refused(f'GLOBAL {name}')


def _build(target, state):
    """Give an object of a pickle its state."""
    if type(target) is OrderedDict:
        # Versions of a state dict's modules; nothing else has a place there.
        metadata = state.get('_metadata') if isinstance(state, dict) else None
        if isinstance(metadata, dict) and all(
                isinstance(key, str) and isinstance(value, dict) for key, value in metadata.items()):
            target._metadata = OrderedDict(metadata)
        return target
    if isinstance(target, (ArrayToBe, Kind)):
        return target.build(state)
    if type(target) is HistoryBuffer:
        return _history(state)
    if any(isinstance(builder, _Shard) and type(target) is builder.kind for builder in _shards().values()):
        _fill_shard(target, state)
        return target
    raise Refused(f'a state for a {type(target).__name__}')


def _fill_shard(target, state) -> None:
    if hasattr(target, '__setstate__'):
        target.__setstate__(state)
        return
    # As pickle does it: attributes, and those that have a slot.
    attributes, slots = state if isinstance(state, tuple) and len(state) == 2 else (state, None)
    for name, value in {**(attributes or {}), **(slots or {})}.items():
        setattr(target, name, value)


def _history(state) -> HistoryBuffer:
    values, counts, length = (state.get(key) for key in ('_log_history', '_count_history', 'max_length'))
    if not all(isinstance(each, np.ndarray) and each.ndim == 1 for each in (values, counts)) or (
            len(values) != len(counts) or type(length) is not int or length < 1):
        raise UnpicklingError('a log without its numbers')
    return HistoryBuffer(values, counts, length)


class _Shard(Builder):
    """A plain record of which process holds what, in the checkpoints that FSDP writes per process."""

    __slots__ = ('kind', )

    def __init__(self, kind: type):
        super().__init__(lambda *arguments: kind(*arguments) if issubclass(kind, Enum) else kind.__new__(
            kind, *arguments))
        self.kind = kind


def _shards() -> dict[str, Builder]:
    """They mean something only to processes that know each other."""
    return _shard_builders() if torch.distributed.is_available() and torch.distributed.is_initialized() else {}


def _sharded_tensor(builder, kind, arguments, state) -> Tensor:
    """In the place of ``torch._tensor._rebuild_from_type_v2`` where processes share a checkpoint."""
    shards = _shard_builders()
    if builder is not shards['torch._utils._rebuild_wrapper_subclass']:
        return TENSOR_BUILDERS['_rebuild_from_type_v2'].call(builder, kind, arguments, state)
    if kind is not shards[f'{_SHARDED}.ShardedTensor'] or arguments[0] is not kind:
        raise Refused('a tensor of a class of its own')
    tensor = torch._utils._rebuild_wrapper_subclass(kind.kind, *arguments[1:])
    tensor.__setstate__(state)
    return tensor


def _layout(name) -> torch.layout:
    if name != 'torch.strided':
        raise UnpicklingError(f'it holds a sparse tensor ({name}), which is not a weight of a network')
    return torch.strided


@cache
def _shard_builders() -> dict[str, Builder]:
    from torch.distributed import _remote_device
    from torch.distributed._shard import sharded_tensor
    from torch.distributed._shard.metadata import ShardMetadata
    from torch.distributed._shard.sharded_tensor.metadata import MEM_FORMAT_ENCODING
    from torch.distributed._shard.sharding_spec import ChunkShardingSpec
    kinds = [_remote_device, ShardMetadata, MEM_FORMAT_ENCODING, ChunkShardingSpec, sharded_tensor.Shard,
             sharded_tensor.ShardedTensor, sharded_tensor.ShardedTensor.ProcessGroupState,
             sharded_tensor.ShardedTensorMetadata, sharded_tensor.TensorProperties]
    return {f'{kind.__module__}.{kind.__qualname__}': _Shard(kind) for kind in kinds} | {
        'torch._utils._rebuild_wrapper_subclass': Builder(lambda *_: None),
        'torch._tensor._rebuild_from_type_v2': Builder(_sharded_tensor)}


_SHARDED = 'torch.distributed._shard.sharded_tensor.api'
_HISTORY = Builder(lambda *_: HistoryBuffer())
# Only its members have a meaning; it cannot be called.
_ONE_CYCLE = object()
_DTYPES = {f'torch.{name}': value for name, value in vars(torch).items() if isinstance(value, torch.dtype)}
# All that a file can name. None stands for a type that is only an argument of something else here.
_TABLE: dict[str, object] = {
    'builtins.set': Builder(set), 'builtins.frozenset': Builder(frozenset), 'builtins.slice': Builder(slice),
    'builtins.complex': Builder(complex), 'builtins.getattr': Builder(_member),
    'collections.OrderedDict': Builder(_ordered), 'collections.Counter': Builder(_counted),
    f'{OneCycleParamScheduler.__module__}.OneCycleParamScheduler': _ONE_CYCLE, '_codecs.encode': Builder(_encoded),
    'mmengine.logging.history_buffer.HistoryBuffer': _HISTORY,
    'numpy.ndarray': None, 'numpy.dtype': Builder(Kind), 'numpy.core.multiarray.scalar': Builder(number),
    'numpy.core.multiarray._reconstruct': Builder(unfinished_array),
    'numpy.core.numeric._frombuffer': Builder(array_from_buffer),
    'torch.Tensor': None, 'torch.Size': Builder(torch.Size), 'torch.device': Builder(torch.device),
    'torch.nn.parameter.Parameter': TENSOR_BUILDERS['_rebuild_parameter'],
    'torch.serialization._get_layout': Builder(_layout), 'torch.storage.UntypedStorage': torch.uint8,
    'torch._tensor._rebuild_from_type_v2': TENSOR_BUILDERS['_rebuild_from_type_v2'],
    **{f'torch._utils.{name}': builder for name, builder in TENSOR_BUILDERS.items()},
    **{f'{module}.{name}': dtype for module in ('torch', 'torch.cuda') for name, dtype in STORAGES.items()}, **_DTYPES}

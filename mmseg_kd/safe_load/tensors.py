"""Tensors in a pickle: memory that the file really holds, and views that stay inside of it."""
from math import prod
from pickle import UnpicklingError

import torch
from torch import Tensor, nn

from .pickles import Builder, Refused

__all__ = ['STORAGES', 'TENSOR_BUILDERS', 'Storage', 'check_unpacked']

_MAX_DIMENSIONS = 25
#: A file may become this many times as large in memory, and 64 MiB more; torch.save does not compress.
_MAX_UNPACKED = 4
#: What a pickle calls the memory of each dtype.
STORAGES = {f'{name}Storage': dtype for name, dtype in dict(
    Double=torch.float64, Float=torch.float32, Half=torch.float16, BFloat16=torch.bfloat16, Long=torch.int64,
    Int=torch.int32, Short=torch.int16, Char=torch.int8, Byte=torch.uint8, Bool=torch.bool,
    ComplexDouble=torch.complex128, ComplexFloat=torch.complex64, Untyped=torch.uint8).items()}


def check_unpacked(size: int, file_size: int, what: str) -> None:
    """Refuse what would take much more memory than its file is long.

    Raises:
        UnpicklingError: it would.
    """
    if size > _MAX_UNPACKED * file_size + (64 << 20):
        raise UnpicklingError(f'{what} would take {size / 1e6:.0f} MB of memory, the file has {file_size / 1e6:.3f} '
                              'MB; it was not unpacked')


class Storage:
    """Memory of one dtype.

    Args:
        data: (n,) uint8.
        dtype: Of its elements.
        first: The element that counts as the first one.
    """

    def __init__(self, data: Tensor, dtype: torch.dtype, first: int = 0):
        self.data = data
        self.dtype = dtype
        self.first = first

    def view(self, offset, size, stride, dtype: torch.dtype | None = None) -> Tensor:
        """A tensor in this memory; offset and strides count elements.

        Raises:
            UnpicklingError: it is not inside.
        """
        dtype = dtype or self.dtype
        plain = isinstance(size, tuple) and isinstance(stride, tuple) and len(size) == len(stride) <= _MAX_DIMENSIONS
        if not plain or not all(type(each) is int and each >= 0 for each in (offset, *size, *stride)):
            raise UnpicklingError('a tensor without a proper size')
        offset += self.first
        last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
        end = last + 1 if prod(size) else 0
        if end * dtype.itemsize > self.data.numel():
            raise UnpicklingError(f'a tensor of size {size} reaches beyond its {self.data.numel()} bytes')
        check_unpacked(prod(size) * dtype.itemsize, self.data.numel(), f'a tensor of size {size}')
        if not prod(size):
            return torch.empty(size, dtype=dtype, device=self.data.device)
        return torch.empty(0, dtype=dtype, device=self.data.device).set_(
            self.data.untyped_storage(), offset, size, stride)


def _tensor(storage, offset, size, stride, requires_grad=False, hooks=None, *_) -> Tensor:
    if not isinstance(storage, Storage):
        raise UnpicklingError('a tensor without memory')
    return _asking_for_gradients(storage.view(offset, size, stride), requires_grad)


def _tensor_of_dtype(storage, offset, size, stride, requires_grad, hooks, dtype, *_) -> Tensor:
    if not isinstance(storage, Storage) or not isinstance(dtype, torch.dtype):
        raise UnpicklingError('a tensor without memory')
    return _asking_for_gradients(storage.view(offset, size, stride, dtype), requires_grad)


def _asking_for_gradients(tensor: Tensor, wanted) -> Tensor:
    return tensor.requires_grad_(wanted is True and (tensor.is_floating_point() or tensor.is_complex()))


def _parameter(data, requires_grad=True, *_) -> nn.Parameter:
    if not isinstance(data, Tensor):
        raise UnpicklingError('a parameter without a tensor')
    return nn.Parameter(data.detach(), requires_grad is True and (data.is_floating_point() or data.is_complex()))


def _of_type(builder, kind, arguments, *_) -> Tensor:
    """A tensor with attributes, which are left out."""
    if not isinstance(builder, Builder) or builder not in TENSOR_BUILDERS.values() or not isinstance(arguments, tuple):
        raise Refused('a tensor of a class of its own')
    return builder.call(*arguments)


def _no(what: str) -> Builder:
    def refuse(*_):
        raise UnpicklingError(f'{what}, which is not a weight of a network')
    return Builder(refuse)


TENSOR_BUILDERS: dict[str, Builder] = {
    '_rebuild_tensor': Builder(_tensor), '_rebuild_tensor_v2': Builder(_tensor),
    '_rebuild_tensor_v3': Builder(_tensor_of_dtype), '_rebuild_parameter': Builder(_parameter),
    '_rebuild_parameter_with_state': Builder(_parameter), '_rebuild_from_type_v2': Builder(_of_type),
    '_rebuild_sparse_tensor': _no('it holds a sparse tensor'),
    '_rebuild_sparse_csr_tensor': _no('it holds a sparse tensor'),
    '_rebuild_qtensor': _no('it holds a quantised tensor'),
    '_rebuild_meta_tensor_no_storage': _no('it holds a tensor without values (on the device "meta")'),
    '_rebuild_nested_tensor': _no('it holds a nested tensor'),
    '_rebuild_wrapper_subclass': _no('it holds a tensor of a class of its own')}

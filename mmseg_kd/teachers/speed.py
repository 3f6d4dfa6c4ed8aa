"""How a frozen teacher may run faster than it was trained: precision, memory format, compilation."""
from typing import NamedTuple

import torch
from torch import Tensor, nn

__all__ = ['AS_TRAINED', 'TeacherSpeed', 'read_speed']

_DTYPES = dict(fp16=torch.float16, bf16=torch.bfloat16, fp32=None)


class TeacherSpeed(NamedTuple):
    """Settings of ``teacher`` that change its speed and, but for rounding, nothing else."""

    dtype: torch.dtype | None = None
    channels_last: bool = False
    compile: dict | None = None  #: arguments of ``torch.compile``; None: not compiled

    def prepare_model(self, model: nn.Module) -> nn.Module:
        """Bring the weights into precision and memory format."""
        if self.dtype is not None:
            model = model.to(self.dtype)
        return model.to(memory_format=torch.channels_last) if self.channels_last else model

    def prepare_function(self, function):
        """``function(model, images)``, compiled if asked for."""
        return function if self.compile is None else torch.compile(function, **self.compile)

    def prepare_images(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) images for that model."""
        if self.dtype is not None:
            images = images.to(self.dtype)
        return images.contiguous(memory_format=torch.channels_last) if self.channels_last else images


#: No setting at all.
AS_TRAINED = TeacherSpeed()


def read_speed(settings: dict) -> TeacherSpeed:
    """Read ``teacher=dict(dtype=..., channels_last=..., compile=...)``; other settings are left alone.

    Raises:
        ValueError: a value that is none of a setting's.
    """
    dtype = settings.get('dtype')
    if dtype is not None and dtype not in _DTYPES:
        raise ValueError(f"`teacher.dtype`: expected 'bf16', 'fp16' or 'fp32', got {dtype!r}.")
    channels_last = settings.get('channels_last', False)
    if not isinstance(channels_last, bool):
        raise ValueError(f'`teacher.channels_last`: expected True or False, got {channels_last!r}.')
    compiled = settings.get('compile', False)
    if not isinstance(compiled, (bool, dict)):
        raise ValueError('`teacher.compile`: expected True, False or a dict of arguments of torch.compile, got '
                         f'{compiled!r}.')
    compile_settings = dict(compiled) if isinstance(compiled, dict) else {} if compiled else None
    return TeacherSpeed(_DTYPES.get(dtype), channels_last, compile_settings)

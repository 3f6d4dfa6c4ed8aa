"""Trained layers between the student's features and the teacher's, which exist only while training."""
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .random_stream import own_random_stream

__all__ = ['adapter', 'check_adapter']

_KINDS = ('linear', 'review')
_WIDTH = 256


class LinearAdapter(nn.ModuleList):
    """A 1x1 convolution from the student's channels to the teacher's at each tap (FitNet's regressor).

    Args:
        channels: (student, teacher) channels of each tap.
    """

    def __init__(self, channels: Sequence[tuple[int, int]]):
        super().__init__(nn.Conv2d(student, teacher, 1) for student, teacher in channels)

    def forward(self, features: Sequence[Tensor], sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
        """Map each (N, C, h, w) to the teacher's channels; its size stays, whatever ``sizes`` says."""
        return [layer(each) for layer, each in zip(self, features, strict=True)]


class ReviewFusion(nn.Module):
    """ReviewKD's residual learning with attention-based fusion: what the teacher's stage is compared with is made of
    the student's same stage and all deeper ones.

    From the deepest stage up: a stage's features, brought to ``width`` channels, are mixed with what came from below,
    each weighed at each position by an attention that both decide; the mixture goes up to the next stage, and through a
    3x3 convolution to the teacher's channels.

    Reference: Chen et al., Distilling Knowledge via Knowledge Review, CVPR 2021, sections 3.1 and 3.2, figure 3.

    Args:
        channels: (student, teacher) channels of each stage, from shallow to deep.
        width: Channels of the mixture.
    """

    def __init__(self, channels: Sequence[tuple[int, int]], width: int):
        super().__init__()
        self.inward = nn.ModuleList(_convolution(student, width, 1) for student, _ in channels)
        self.outward = nn.ModuleList(_convolution(width, teacher, 3) for _, teacher in channels)
        # The deepest has nothing below it to be mixed with.
        self.attention = nn.ModuleList(nn.Conv2d(2 * width, 2, 1) for _ in channels[:-1])

    def forward(self, features: Sequence[Tensor], sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
        """Fuse the stages.

        Args:
            features: The student's (N, C, h, w), from shallow to deep.
            sizes: (h, w) of the teacher's features.

        Returns:
            One map a stage, with the teacher's channels and sizes.
        """
        fused: list[Tensor] = []
        mixture = None
        for stage in reversed(range(len(features))):
            own = self.inward[stage](features[stage])
            if mixture is None:
                mixture = own
            else:
                below = F.interpolate(mixture, size=own.shape[2:], mode='nearest')
                weights = self.attention[stage](torch.cat([own, below], 1)).sigmoid()
                mixture = own * weights[:, :1] + below * weights[:, 1:]
            if mixture.shape[2:] != tuple(sizes[stage]):
                mixture = F.interpolate(mixture, size=tuple(sizes[stage]), mode='nearest')
            fused.insert(0, self.outward[stage](mixture))
        return fused


def _convolution(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    layers = nn.Sequential(nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(outputs))
    nn.init.kaiming_uniform_(layers[0].weight, a=1)
    return layers


def check_adapter(settings: dict | None, where: str) -> None:
    """Refuse an ``adapter`` that does not exist.

    Raises:
        ValueError: an unknown kind or setting.
    """
    if settings is None:
        return
    known = isinstance(settings, dict) and settings.get('kind') in _KINDS and set(settings) <= (
        {'kind', 'width'} if settings['kind'] == 'review' else {'kind'})
    width = settings.get('width', _WIDTH) if known else None
    if not known or type(width) is not int or width < 1:
        raise ValueError(f"`{where}.adapter`: expected dict(kind='linear'), a 1x1 convolution, or dict(kind='review', "
                         f"width={_WIDTH}), ReviewKD's fusion of several taps, got {settings!r}.")


def adapter(settings: dict, channels: Sequence[tuple[int, int]], name: str) -> nn.Module:
    """Build a term's adapter. Its weights follow from torch's seed and ``name``, and change no other random number.

    Args:
        settings: ``dict(kind='linear')`` or ``dict(kind='review', width=256)``.
        channels: (student, teacher) channels of each tap.
        name: Tells it from other adapters.

    Returns:
        A module called as ``module(features, sizes)`` with the student's features, (N, C, h, w) each, and the sizes
        (h, w) of the teacher's; it returns one map a tap with the teacher's channels.
    """
    with own_random_stream(f'adapter.{name}'):
        if settings['kind'] == 'linear':
            return LinearAdapter(channels)
        return ReviewFusion(channels, settings.get('width', _WIDTH))

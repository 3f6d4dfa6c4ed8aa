"""ShuffleNetV2 for CIFAR."""
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmseg_kd.registry import MODELS

from .staged import StagedBackbone, conv_bn, shuffle_channels

__all__ = ['CIFARShuffleNetV2']


def _branch(in_channels: int, channels: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        conv_bn(in_channels, channels, 1), conv_bn(channels, channels, 3, stride, groups=channels, relu=False),
        conv_bn(channels, channels, 1))


class SplitUnit(nn.Module):
    """Half of the channels pass, the other half goes through the branch."""

    def __init__(self, channels: int):
        super().__init__()
        self.branch = _branch(channels // 2, channels // 2, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        passing, worked = inputs.chunk(2, 1)
        return shuffle_channels(torch.cat([passing, self.branch(worked)], 1), 2)


class DownUnit(nn.Module):
    """Two branches of stride 2, concatenated."""

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        self.short = nn.Sequential(
            conv_bn(in_channels, in_channels, 3, 2, groups=in_channels, relu=False),
            conv_bn(in_channels, channels // 2, 1))
        self.branch = _branch(in_channels, channels // 2, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        return shuffle_channels(torch.cat([self.short(inputs), self.branch(inputs)], 1), 2)


@MODELS.register_module()
class CIFARShuffleNetV2(StagedBackbone):
    """ShuffleNetV2 of width 1 for images of 32 pixels (Ma et al., ECCV 2018, in the form of CRD).

    The stem is a 1x1 convolution without stride.

    Args:
        in_channels: Channels of the images.
        out_indices: Stages to return, with strides 2, 4 and 8; the last comes out of a 1x1 convolution with 1024
            channels.
        init_cfg: See :class:`~.staged.StagedBackbone`.
    """

    def __init__(self, in_channels: int = 3, out_indices: Sequence[int] = (2,), init_cfg: dict | None = None):
        stages, channels = [], 24
        for width, number in ((116, 4), (232, 8), (464, 4)):
            stages.append(nn.Sequential(DownUnit(channels, width), *(SplitUnit(width) for _ in range(number - 1))))
            channels = width
        super().__init__(conv_bn(in_channels, 24, 1), stages, conv_bn(channels, 1024, 1), out_indices, init_cfg)

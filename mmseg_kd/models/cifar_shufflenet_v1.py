"""ShuffleNetV1 for CIFAR."""
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmseg_kd.registry import MODELS

from .staged import StagedBackbone, conv_bn, shuffle_channels

__all__ = ['CIFARShuffleNetV1']

_STEM = 24


class ShuffleUnit(nn.Module):
    """Grouped 1x1, shuffle, 3x3 per channel, grouped 1x1; beside it the input, added, or pooled and concatenated."""

    def __init__(self, in_channels: int, channels: int, stride: int, groups: int):
        super().__init__()
        # With stride 2 the input's own channels are part of the output.
        made = channels - in_channels if stride == 2 else channels
        narrow = made // 4
        # The stem is too narrow to be grouped.
        self.groups = 1 if in_channels == _STEM else groups
        self.reduce = conv_bn(in_channels, narrow, 1, groups=self.groups)
        self.depthwise = conv_bn(narrow, narrow, 3, stride, groups=narrow)
        self.expand = conv_bn(narrow, made, 1, groups=groups, relu=False)
        self.pool = nn.AvgPool2d(3, 2, 1) if stride == 2 else None
        self.relu = nn.ReLU(inplace=True)

    def forward(self, inputs: Tensor) -> Tensor:
        made = self.expand(self.depthwise(shuffle_channels(self.reduce(inputs), self.groups)))
        return self.relu(made + inputs if self.pool is None else torch.cat([made, self.pool(inputs)], 1))


@MODELS.register_module()
class CIFARShuffleNetV1(StagedBackbone):
    """ShuffleNetV1 with 3 groups for images of 32 pixels (Zhang et al., CVPR 2018, in the form of CRD).

    The stem is a 1x1 convolution without stride; a ReLU follows the 3x3 convolution, too.

    Args:
        in_channels: Channels of the images.
        out_indices: Stages to return, with 240, 480 and 960 channels and strides 2, 4 and 8.
        init_cfg: See :class:`~.staged.StagedBackbone`.
    """

    def __init__(self, in_channels: int = 3, out_indices: Sequence[int] = (2,), init_cfg: dict | None = None):
        stages, channels = [], _STEM
        for width, number in ((240, 4), (480, 8), (960, 4)):
            units = []
            for unit in range(number):
                units.append(ShuffleUnit(channels, width, 1 if unit else 2, groups=3))
                channels = width
            stages.append(nn.Sequential(*units))
        super().__init__(conv_bn(in_channels, _STEM, 1), stages, None, out_indices, init_cfg)

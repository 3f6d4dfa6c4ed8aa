"""MobileNetV2 for CIFAR."""
from collections.abc import Sequence

from torch import Tensor, nn

from mmseg_kd.registry import MODELS

from .staged import StagedBackbone, conv_bn

__all__ = ['CIFARMobileNetV2']

# Width, blocks, stride of each stage.
_STAGES = ((16, 1, 1), (24, 2, 1), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1))


class InvertedResidual(nn.Module):
    """Widen, convolve each channel, narrow; with a shortcut where the shape stays."""

    def __init__(self, in_channels: int, channels: int, stride: int, expand_ratio: int):
        super().__init__()
        wide = in_channels * expand_ratio
        self.conv = nn.Sequential(
            conv_bn(in_channels, wide, 1), conv_bn(wide, wide, 3, stride, groups=wide),
            conv_bn(wide, channels, 1, relu=False))
        self.has_shortcut = stride == 1 and in_channels == channels

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + self.conv(inputs) if self.has_shortcut else self.conv(inputs)


@MODELS.register_module()
class CIFARMobileNetV2(StagedBackbone):
    """MobileNetV2 for images of 32 pixels (Sandler et al., CVPR 2018, in the form of CRD): total stride 16.

    Args:
        widen_factor: Factor on the widths of stem and stages; the distillation papers take half.
        expand_ratio: Factor by which a block widens; the first stage does not.
        in_channels: Channels of the images.
        out_indices: Stages to return; the last comes out of a 1x1 convolution with 1280 channels.
        init_cfg: See :class:`~.staged.StagedBackbone`.
    """

    def __init__(self, widen_factor: float = 0.5, expand_ratio: int = 6, in_channels: int = 3,
                 out_indices: Sequence[int] = (6,), init_cfg: dict | None = None):
        channels = int(32 * widen_factor)
        stem, stages = conv_bn(in_channels, channels, 3, stride=2), []
        for index, (width, number, stride) in enumerate(_STAGES):
            blocks, width = [], int(width * widen_factor)
            for block in range(number):
                blocks.append(InvertedResidual(
                    channels, width, 1 if block else stride, expand_ratio if index else 1))
                channels = width
            stages.append(nn.Sequential(*blocks))
        super().__init__(stem, stages, conv_bn(channels, max(1280, int(1280 * widen_factor)), 1), out_indices, init_cfg)

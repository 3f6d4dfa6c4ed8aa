"""MobileNetV1 for ImageNet."""
from collections.abc import Sequence

from torch import nn

from mmseg_kd.registry import MODELS

from .staged import StagedBackbone, conv_bn

__all__ = ['MobileNetV1']

# Width, blocks, stride of each stage.
_STAGES = ((64, 1, 1), (128, 2, 2), (256, 2, 2), (512, 6, 2), (1024, 2, 2))


@MODELS.register_module()
class MobileNetV1(StagedBackbone):
    """MobileNet of full width (Howard et al., 2017): 3x3 convolutions per channel, and 1x1 convolutions.

    Args:
        in_channels: Channels of the images.
        out_indices: Stages to return, with strides 2, 4, 8, 16 and 32.
        init_cfg: See :class:`~.staged.StagedBackbone`.
    """

    def __init__(self, in_channels: int = 3, out_indices: Sequence[int] = (4,), init_cfg: dict | None = None):
        stages, channels = [], 32
        for width, number, stride in _STAGES:
            blocks = []
            for block in range(number):
                blocks += [conv_bn(channels, channels, 3, 1 if block else stride, groups=channels),
                           conv_bn(channels, width, 1)]
                channels = width
            stages.append(nn.Sequential(*blocks))
        super().__init__(conv_bn(in_channels, 32, 3, stride=2), stages, None, out_indices, init_cfg)

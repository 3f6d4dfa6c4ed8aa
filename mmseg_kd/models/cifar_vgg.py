"""VGG for CIFAR."""
from collections.abc import Sequence

from torch import nn

from mmseg_kd.registry import MODELS

from .staged import StagedBackbone

__all__ = ['CIFARVGG']

_WIDTHS = (64, 128, 256, 512, 512)
# Convolutions per stage.
_DEPTHS = {8: (1, 1, 1, 1, 1), 11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


@MODELS.register_module()
class CIFARVGG(StagedBackbone):
    """VGG with BatchNorm for images of 32 pixels (Simonyan and Zisserman, ICLR 2015; VGG8 from CRD).

    Max-pooling follows the first three stages only, and one linear layer classifies.

    Args:
        depth: 8, 11, 13, 16 or 19.
        in_channels: Channels of the images.
        out_indices: Stages to return; their strides are 1, 2, 4, 8 and 8.
        init_cfg: See :class:`~.staged.StagedBackbone`.

    Raises:
        ValueError: another depth.
    """

    def __init__(self, depth: int, in_channels: int = 3, out_indices: Sequence[int] = (4,),
                 init_cfg: dict | None = None):
        if depth not in _DEPTHS:
            raise ValueError(f'`depth`: expected one of {sorted(_DEPTHS)}, got {depth!r}.')
        stages, channels = [], in_channels
        for index, (width, number) in enumerate(zip(_WIDTHS, _DEPTHS[depth], strict=True)):
            layers = [nn.MaxPool2d(2)] if 1 <= index <= 3 else []
            for _ in range(number):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
                channels = width
            stages.append(nn.Sequential(*layers))
        super().__init__(nn.Identity(), stages, None, out_indices, init_cfg)

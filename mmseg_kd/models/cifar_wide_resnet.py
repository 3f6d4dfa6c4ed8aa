"""Wide ResNet for CIFAR: three stages of pre-activated blocks."""
from collections.abc import Sequence

from torch import Tensor, nn

from mmseg_kd.registry import MODELS

from .staged import StagedBackbone

__all__ = ['CIFARWideResNet']


class PreactivatedBlock(nn.Module):
    """BatchNorm, ReLU, convolution, twice. Where the width changes the shortcut starts after the first ReLU."""

    def __init__(self, in_channels: int, channels: int, stride: int = 1):
        super().__init__()
        self.norm1 = nn.Sequential(nn.BatchNorm2d(in_channels), nn.ReLU(inplace=True))
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.norm2 = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True))
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.shortcut = None if in_channels == channels else nn.Conv2d(in_channels, channels, 1, stride, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        activated = self.norm1(inputs)
        residual = inputs if self.shortcut is None else self.shortcut(activated)
        return self.conv2(self.norm2(self.conv1(activated))) + residual


@MODELS.register_module()
class CIFARWideResNet(StagedBackbone):
    """Wide ResNet of depth 6 n + 4 (Zagoruyko and Komodakis, BMVC 2016), without dropout.

    Args:
        depth: 6 n + 4, for instance 16 or 40.
        widen_factor: Factor on the widths 16, 32, 64 of the stages.
        in_channels: Channels of the images.
        out_indices: Stages to return; 0, 1 and 2 have strides 1, 2 and 4, the last is normalised and activated.
        init_cfg: See :class:`~.staged.StagedBackbone`.

    Raises:
        ValueError: another depth.
    """

    def __init__(self, depth: int, widen_factor: int = 1, in_channels: int = 3, out_indices: Sequence[int] = (2,),
                 init_cfg: dict | None = None):
        if depth < 10 or (depth - 4) % 6:
            raise ValueError(f'`depth`: expected 6 n + 4 (10, 16, 22, 28, 40), got {depth!r}.')
        stages, channels = [], 16
        for index, width in enumerate((16, 32, 64)):
            blocks = []
            for block in range((depth - 4) // 6):
                blocks.append(PreactivatedBlock(channels, width * widen_factor, 2 if index and not block else 1))
                channels = width * widen_factor
            stages.append(nn.Sequential(*blocks))
        stem = nn.Conv2d(in_channels, 16, 3, 1, 1, bias=False)
        last = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True))
        super().__init__(stem, stages, last, out_indices, init_cfg)

"""ResNet for CIFAR: three stages of basic blocks."""
from collections.abc import Sequence

from torch import Tensor, nn

from mmseg_kd.registry import MODELS

from .staged import StagedBackbone, conv_bn

__all__ = ['CIFARResNet']


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, in_channels: int, channels: int, stride: int = 1):
        super().__init__()
        self.conv1 = conv_bn(in_channels, channels, 3, stride)
        self.conv2 = conv_bn(channels, channels, 3, relu=False)
        changes = stride != 1 or in_channels != channels
        self.shortcut = conv_bn(in_channels, channels, 1, stride, relu=False) if changes else nn.Identity()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.relu(self.conv2(self.conv1(inputs)) + self.shortcut(inputs))


@MODELS.register_module()
class CIFARResNet(StagedBackbone):
    """ResNet of depth 6 n + 2 for small images (He et al., CVPR 2016, section 4.2).

    resnet8 to resnet110 have widths (16, 16, 32, 64); resnet8x4 and resnet32x4 of the distillation papers have
    (32, 64, 128, 256): ``width_factor=4`` with ``stem_channels=32``. Unlike He et al. the shortcuts are convolutions
    where the shape changes, as in the model family of CRD (Tian et al., ICLR 2020).

    Args:
        depth: 6 n + 2, for instance 8, 14, 20, 32, 44, 56, 110.
        width_factor: Factor on the widths 16, 32, 64 of the stages.
        stem_channels: Width of the first convolution.
        in_channels: Channels of the images.
        out_indices: Stages to return; 0, 1 and 2 have strides 1, 2 and 4.
        init_cfg: See :class:`~.staged.StagedBackbone`.

    Raises:
        ValueError: another depth.
    """

    def __init__(self, depth: int, width_factor: int = 1, stem_channels: int = 16, in_channels: int = 3,
                 out_indices: Sequence[int] = (2,), init_cfg: dict | None = None):
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(f'`depth`: expected 6 n + 2 (8, 14, 20, 32, 44, 56, 110), got {depth!r}.')
        stages, channels = [], stem_channels
        for index, width in enumerate((16, 32, 64)):
            blocks = []
            for block in range((depth - 2) // 6):
                blocks.append(BasicBlock(channels, width * width_factor, 2 if index and not block else 1))
                channels = width * width_factor
            stages.append(nn.Sequential(*blocks))
        super().__init__(conv_bn(in_channels, stem_channels, 3), stages, None, out_indices, init_cfg)

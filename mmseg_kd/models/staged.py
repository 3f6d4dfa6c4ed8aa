"""What the backbones of this folder share: a stem, stages in a row, and which of them are returned."""
from collections.abc import Sequence

from mmengine.model import BaseModule
from torch import Tensor, nn

__all__ = ['StagedBackbone', 'conv_bn', 'shuffle_channels']

# He et al.'s initialisation by fan-out, which the networks of this family use.
_INIT = (dict(type='Kaiming', layer='Conv2d'), dict(type='Constant', layer='BatchNorm2d', val=1))


class StagedBackbone(BaseModule):
    """A stem, stages in a row, and a last module.

    Args:
        stem: From images (N, 3, H, W) to the first stage's input.
        stages: The stages; they become ``layer1``, ``layer2``, ...
        last: What follows the last stage and belongs to its output; None: nothing.
        out_indices: Stages to return, counted from 0; negative ones from the end.
        init_cfg: mmengine's initialisation; None: He's normal one for convolutions.

    Raises:
        ValueError: ``out_indices`` names a stage that does not exist.
    """

    def __init__(self, stem: nn.Module, stages: Sequence[nn.Module], last: nn.Module | None, out_indices: Sequence[int],
                 init_cfg: dict | Sequence[dict] | None = None):
        super().__init__(init_cfg=[dict(part) for part in _INIT] if init_cfg is None else init_cfg)
        number = len(stages)
        if not out_indices or any(not -number <= index < number for index in out_indices):
            raise ValueError(f'`out_indices`: expected indices of the {number} stages, got {out_indices!r}.')
        self.out_indices = sorted(index % number for index in out_indices)
        self.stem = stem
        self.stage_names = [f'layer{index + 1}' for index in range(number)]
        for name, stage in zip(self.stage_names, stages, strict=True):
            self.add_module(name, stage)
        self.last = nn.Identity() if last is None else last

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Feature maps of the stages ``out_indices``, each (N, C, h, w), of images (N, 3, H, W)."""
        features, outputs = self.stem(inputs), []
        for index, name in enumerate(self.stage_names):
            features = getattr(self, name)(features)
            if index == len(self.stage_names) - 1:
                features = self.last(features)
            if index in self.out_indices:
                outputs.append(features)
        return tuple(outputs)


def conv_bn(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1,
            relu: bool = True) -> nn.Sequential:
    """A convolution that keeps the size (up to its stride), BatchNorm, and ReLU."""
    layers = [nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False),
              nn.BatchNorm2d(out_channels)]
    return nn.Sequential(*layers, *([nn.ReLU(inplace=True)] if relu else []))


def shuffle_channels(features: Tensor, groups: int) -> Tensor:
    """Channel shuffle of ShuffleNet: channel c of group g becomes channel g of group c."""
    n, channels, height, width = features.shape
    grouped = features.reshape(n, groups, channels // groups, height, width)
    return grouped.transpose(1, 2).reshape(n, channels, height, width)

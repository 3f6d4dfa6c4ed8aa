"""Fusion of a student's stages, the deep reviewed by the shallow (ReviewKD)."""
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ['ReviewFusion']


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

"""Heads of mmseg that classify masks, without mmdet: mmseg's own ``predict`` on made-up queries."""
import torch
from mmseg.models.decode_heads import Mask2FormerHead, MaskFormerHead
from mmseg.registry import MODELS
from torch import nn

QUERIES = 5


class MadeUpQueries:
    """In the place of mmdet's transformer: what its ``forward`` is documented to return, a list over the layers of
    class scores (N, Q, C + 1) and of masks (N, Q, h, w), from one convolution and one table."""

    def __init__(self, num_classes, in_channels, **kwargs):
        nn.Module.__init__(self)
        self.out_channels = self.num_classes = num_classes
        self.align_corners, self.ignore_index = False, 255
        self.masks = nn.Conv2d(in_channels, QUERIES, 1)
        self.classes = nn.Parameter(4 * torch.randn(QUERIES, num_classes + 1))

    def init_weights(self):
        pass

    def forward(self, features, samples):
        masks = self.masks(features[3])
        scores = self.classes.expand(len(masks), -1, -1)
        return [0 * scores, scores], [0 * masks, masks]


@MODELS.register_module()
class MadeUpMaskFormerHead(MadeUpQueries, MaskFormerHead):
    pass


@MODELS.register_module()
class MadeUpMask2FormerHead(MadeUpQueries, Mask2FormerHead):
    pass

"""What is known of the labels of a batch of mmseg's data samples."""
from collections.abc import Sequence
from typing import NamedTuple

import torch
from mmengine.structures import PixelData
from torch import Tensor

from ..positions import NO_GAPS, Gaps

__all__ = ['Labels', 'read_labels']


class Labels(NamedTuple):
    """The labels of a batch."""

    samples: list  #: the data samples, each with a label map; one that had none has one of the ignored label
    target: Tensor  #: (N, H, W) int64, whatever stands in the gaps
    rows: list[int]  #: places in the batch of the pictures with labels
    gaps: Gaps  #: pictures without labels, and what mmseg padded

    @property
    def labelled(self) -> list:
        """The data samples of the pictures with labels."""
        return [self.samples[row] for row in self.rows]


def read_labels(data_samples: Sequence, size: Sequence[int], ignore_index: int) -> Labels:
    """Read the labels of a batch.

    Args:
        data_samples: Those without ``gt_sem_seg``, or with ``unlabelled=True`` in their metainfo, have no labels.
        size: (H, W) of the label map that a picture without one gets.
        ignore_index: What that map is made of.
    """
    samples, maps, rows, without, padding = [], [], [], [], []
    for row, sample in enumerate(data_samples):
        if 'gt_sem_seg' not in sample:
            sample = sample.new()
            sample.gt_sem_seg = PixelData(data=torch.full((1, *size), ignore_index))
            sample.set_metainfo(dict(unlabelled=True))
        samples.append(sample)
        maps.append(sample.gt_sem_seg.data)
        (without if sample.metainfo.get('unlabelled', False) else rows).append(row)
        _, right, _, bottom = sample.metainfo.get('padding_size') or (0, 0, 0, 0)
        if right or bottom:
            padding.append((row, right, bottom))
    gaps = Gaps(tuple(without), tuple(padding)) if without or padding else NO_GAPS
    return Labels(samples, torch.stack(maps).squeeze(1), rows, gaps)

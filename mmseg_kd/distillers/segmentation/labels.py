"""What is known of the labels of a batch of mmseg's data samples."""
from collections.abc import Sequence

import torch
from mmengine.structures import PixelData

from ..positions import Gaps

__all__ = ['gaps_of', 'has_labels', 'labelled_rows', 'with_label_maps']


def has_labels(sample) -> bool:
    """Whether a picture has a label map that means something."""
    return 'gt_sem_seg' in sample and not sample.metainfo.get('unlabelled', False)


def labelled_rows(data_samples: Sequence) -> list[int]:
    """Places in the batch of the pictures with labels."""
    return [row for row, sample in enumerate(data_samples) if has_labels(sample)]


def with_label_maps(data_samples: Sequence, size: Sequence[int], ignore_index: int) -> list:
    """The data samples, those without a label map with one of ``ignore_index``; they count as unlabelled."""
    samples = []
    for sample in data_samples:
        if 'gt_sem_seg' not in sample:
            sample = sample.new()
            sample.gt_sem_seg = PixelData(data=torch.full((1, *size), ignore_index))
            sample.set_metainfo(dict(unlabelled=True))
        samples.append(sample)
    return samples


def gaps_of(data_samples: Sequence) -> Gaps:
    """Where the label maps of a batch mean nothing: pictures without labels, and what mmseg padded."""
    pictures = [row for row, sample in enumerate(data_samples) if not has_labels(sample)]
    padding = []
    for row, sample in enumerate(data_samples):
        _, right, _, bottom = sample.metainfo.get('padding_size') or (0, 0, 0, 0)
        if right or bottom:
            padding.append((row, right, bottom))
    return Gaps(tuple(pictures), tuple(padding))

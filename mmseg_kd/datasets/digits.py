"""Handwritten digits that come with scikit-learn: real data without a download."""
import numpy as np
from mmpretrain.datasets import BaseDataset

from mmseg_kd.registry import DATASETS

__all__ = ['Digits']

# The pictures lie in the order in which their writers wrote; a cut in this order keeps most writers on one side.
_NUM_TRAIN = 1000
_SPLITS = dict(train=slice(0, _NUM_TRAIN), test=slice(_NUM_TRAIN, None))
_MAX = 16


@DATASETS.register_module()
class Digits(BaseDataset):
    """1797 handwritten digits of 8x8 pixels: 1000 to train, 797 to test.

    They are the test part of the UCI data set "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak, 1998),
    as ``sklearn.datasets.load_digits`` has it. A sample is ``img``, (8, 8, 3) uint8 with three equal channels, and
    ``gt_label``.

    Args:
        split: ``'train'``, the first 1000, or ``'test'``, the other 797.
        per_class: Keep this many of each class, evenly spread over the split; None: all.
        noise: Standard deviation of Gaussian noise on the pixels, in units of their range; each picture has its own, in
            every epoch the same. Without it the task is too easy to tell methods apart.
        **kwargs: Arguments of mmpretrain's ``BaseDataset``.

    Raises:
        ValueError: another split, a negative noise, or more of a class than there are.
    """

    METAINFO = dict(classes=tuple('0123456789'))

    def __init__(self, split: str = 'train', per_class: int | None = None, noise: float = 0., **kwargs):
        if split not in _SPLITS:
            raise ValueError(f'`split`: expected one of {sorted(_SPLITS)}, got {split!r}.')
        self.split = split
        if not 0 <= noise < float('inf'):
            raise ValueError(f'`noise`: expected a number >= 0, got {noise!r}.')
        self.per_class = per_class
        self.noise = noise
        super().__init__(ann_file='', **kwargs)

    def load_data_list(self) -> list[dict]:
        """Images and labels of the split."""
        from sklearn.datasets import load_digits
        digits = load_digits()
        part = _SPLITS[self.split]
        images, labels = digits.images / _MAX, digits.target[part]
        # Drawn for all pictures, so that a picture's noise does not depend on what else is kept.
        images = images + self.noise * np.random.default_rng(0).standard_normal(images.shape)
        images = np.rint(images[part].clip(0, 1) * 255).astype(np.uint8)
        return [dict(img=np.repeat(images[index][..., None], 3, axis=2), gt_label=int(labels[index]))
                for index in self._kept(labels)]

    def _kept(self, labels: np.ndarray) -> np.ndarray:
        if self.per_class is None:
            return np.arange(len(labels))
        least = np.bincount(labels).min()
        if not 1 <= self.per_class <= least:
            raise ValueError(f'`per_class`: expected 1 to {least} (split {self.split!r} has no more of every class), '
                             f'got {self.per_class!r}.')
        kept = []
        for label in range(len(self.METAINFO['classes'])):
            of_class = np.flatnonzero(labels == label)
            kept.append(of_class[np.arange(self.per_class) * len(of_class) // self.per_class])
        return np.sort(np.concatenate(kept))

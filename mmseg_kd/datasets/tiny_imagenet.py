"""Tiny-ImageNet as it is unpacked."""
from pathlib import Path

from mmpretrain.datasets import BaseDataset

from mmseg_kd.registry import DATASETS

__all__ = ['TinyImageNet']


@DATASETS.register_module()
class TinyImageNet(BaseDataset):
    """Tiny-ImageNet: 200 classes, 64x64 pixels, 100 000 pictures to train and 10 000 to validate.

    The layout is that of the archive ``tiny-imagenet-200.zip``::

        tiny-imagenet-200
        ├── wnids.txt                         one WordNet id a line
        ├── train/<wnid>/images/*.JPEG
        └── val
            ├── val_annotations.txt           file, wnid and box, separated by tabs
            └── images/*.JPEG

    Classes are counted in the order of their sorted ids.

    Args:
        data_root: The unpacked folder.
        split: ``'train'`` or ``'val'`` (the archive's ``test`` has no labels).
        **kwargs: Arguments of mmpretrain's ``BaseDataset``.

    Raises:
        ValueError: another split, or a folder of another layout.
    """

    def __init__(self, data_root: str, split: str = 'train', **kwargs):
        if split not in ('train', 'val'):
            raise ValueError(f"`split`: expected 'train' or 'val', got {split!r}.")
        self.split = split
        self.root = Path(data_root).expanduser()
        for name in ('wnids.txt', 'train' if split == 'train' else 'val/val_annotations.txt'):
            if not (self.root / name).exists():
                raise ValueError(f'`data_root`: expected the unpacked tiny-imagenet-200 (wnids.txt, train/, val/), got '
                                 f'{str(data_root)!r}, which has no {name}.')
        kwargs.setdefault('metainfo', dict(classes=tuple(sorted((self.root / 'wnids.txt').read_text().split()))))
        super().__init__(ann_file='', **kwargs)

    def load_data_list(self) -> list[dict]:
        """Paths and labels of the split."""
        if self.split == 'train':
            pairs = [(path, path.parents[1].name) for path in sorted((self.root / 'train').glob('*/images/*.JPEG'))]
        else:
            rows = (row.split('\t') for row in (self.root / 'val/val_annotations.txt').read_text().splitlines())
            pairs = [(self.root / 'val/images' / name, wnid) for name, wnid, *_ in rows]
        unknown = sorted({wnid for _, wnid in pairs} - set(self.CLASSES))
        if unknown:
            raise ValueError(f'`data_root`: {self.split} has classes that are not in wnids.txt: {unknown[:3]}.')
        return [dict(img_path=str(path), gt_label=self.class_to_idx[wnid]) for path, wnid in pairs]

"""Every fault of a tree is found, named, and found alone."""
import shutil
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from spoiled import SPOILS, first, spoil

from mmseg_kd.datasets import check_tree


def problems(root, **settings):
    return [problem for check in check_tree(str(root), **settings).values() for problem in check.problems]


def test_a_good_tree(mini_cityscapes):
    checks = check_tree(str(mini_cityscapes))
    assert {split: (check.pairs, check.problems) for split, check in checks.items()} == {
        'train': (12, []), 'val': (4, [])}
    maps = [np.array(Image.open(path)) for path in (mini_cityscapes / 'gtFine/val').rglob('*_labelTrainIds.png')]
    values, counts = np.unique(np.concatenate(maps), return_counts=True)
    assert checks['val'].labels == Counter(dict(zip(values.tolist(), counts.tolist(), strict=True)))
    assert checks['val'].pictures_with[0] == sum((labels == 0).any() for labels in maps)
    assert checks['train'].sizes == {(32, 64): 12}


@pytest.mark.parametrize('name', SPOILS)
def test_one_fault_is_one_line(mini_cityscapes, tmp_path, name):
    message = spoil(mini_cityscapes, tmp_path / 'tree', name)
    found = problems(tmp_path / 'tree')
    # A renamed picture is also missing beside its labels; a dead link likewise.
    assert len(found) == (2 if name in ('name', 'dead link') else 1), found
    assert message in found[0] and str(tmp_path / 'tree') in found[0]


@pytest.mark.parametrize('workers', [1, 2])
def test_all_faults_at_once(mini_cityscapes, tmp_path, workers):
    root = tmp_path / 'tree'
    shutil.copytree(mini_cityscapes, root)
    for split, name in (('train', 'truncated picture'), ('train', 'mode of the labels'), ('val', 'labels outside')):
        SPOILS[name][0](first(root, split, 'image'), first(root, split, 'label'))
    assert len(problems(root, workers=workers)) == 3


def test_empty_and_missing_splits(mini_cityscapes, tmp_path):
    root = tmp_path / 'tree'
    shutil.copytree(mini_cityscapes, root)
    shutil.rmtree(root / 'gtFine/val')
    for path in (root / 'leftImg8bit/train').rglob('*.png'):
        path.unlink()
    found = problems(root)
    assert f'{root}/leftImg8bit/train: holds no file *_leftImg8bit.png' in found
    assert f'{root}/gtFine/val: no such folder' in found and len(found) == 2


def test_other_classes(mini_cityscapes):
    assert not problems(mini_cityscapes, num_classes=None)
    assert problems(mini_cityscapes, num_classes=5)
    assert not problems(mini_cityscapes, num_classes=34, label_suffix='_gtFine_labelIds.png')

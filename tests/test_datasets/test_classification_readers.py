"""Readers of classification data: scikit-learn's digits, and small files in the standard layouts."""
import pickle

import numpy as np
import pytest
from PIL import Image
from tiny_cls import build_dataset

pytestmark = pytest.mark.cls


def picture(path, value, side=64):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((side, side, 3), value, dtype=np.uint8)).save(path)


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits
    digits = load_digits()
    train, test = (build_dataset(dict(type='mmseg_kd.Digits', split=split)) for split in ('train', 'test'))
    assert (len(train), len(test)) == (1000, 797)
    for dataset, start in ((train, 0), (test, 1000)):
        for index in (0, 1, 500, len(dataset) - 1):
            sample = dataset[index]
            assert sample['gt_label'] == digits.target[start + index]
            assert sample['img'].shape == (8, 8, 3) and sample['img'].dtype == np.uint8
            for channel in range(3):
                assert np.abs(sample['img'][..., channel] - digits.images[start + index] * 255 / 16).max() <= 0.5


def test_few_digits_of_each_class():
    some = build_dataset(dict(type='mmseg_kd.Digits', per_class=3))
    assert np.bincount(some.get_gt_labels()).tolist() == [3] * 10
    whole = build_dataset(dict(type='mmseg_kd.Digits'))
    firsts = [index for index in range(1000) if whole[index]['gt_label'] == 7]
    kept = [sample['img'] for sample in some if sample['gt_label'] == 7]
    # Evenly spread: the first, and what stands a third and two thirds on.
    for image, index in zip(kept, (0, len(firsts) // 3, 2 * len(firsts) // 3), strict=True):
        assert np.array_equal(image, whole[firsts[index]]['img'])


def test_noise_is_fixed_for_each_picture():
    clean, noisy = (build_dataset(dict(type='mmseg_kd.Digits', split='test', noise=noise)) for noise in (0., 0.1))
    few = build_dataset(dict(type='mmseg_kd.Digits', split='test', noise=0.1, per_class=5))
    assert all(any(np.array_equal(sample['img'], other['img']) for other in noisy) for sample in few)
    # Where noise is cut off at neither end it has the deviation that was asked for.
    change = np.concatenate([(b['img'][..., 0].astype(float) - a['img'][..., 0])[np.abs(a['img'][..., 0] - 127.) < 20]
                             for a, b in zip(clean, noisy, strict=True)])
    assert change.std() / 255 == pytest.approx(0.1, rel=0.05) and abs(change.mean()) < 1


@pytest.mark.parametrize('settings, message', [
    (dict(split='val'), r"`split`: expected one of \['test', 'train'\]"),
    (dict(per_class=1000), '`per_class`: expected 1 to'), (dict(noise=-1.), '`noise`: expected a number >= 0')])
def test_digits_refuse(settings, message):
    with pytest.raises(ValueError, match=message):
        build_dataset(dict(type='mmseg_kd.Digits', **settings))


@pytest.fixture
def tiny_imagenet(tmp_path):
    """The archive's layout: ids in no order, boxes beside the pictures, one annotation file for validation."""
    (tmp_path / 'wnids.txt').write_text('n02\nn01\n')
    for wnid, value in (('n01', 10), ('n02', 20)):
        for index in range(2):
            picture(tmp_path / f'train/{wnid}/images/{wnid}_{index}.JPEG', value)
        (tmp_path / f'train/{wnid}/{wnid}_boxes.txt').write_text('')
    picture(tmp_path / 'val/images/val_0.JPEG', 30)
    picture(tmp_path / 'val/images/val_1.JPEG', 40)
    (tmp_path / 'val/val_annotations.txt').write_text('val_0.JPEG\tn02\t0\t0\t9\t9\nval_1.JPEG\tn01\t0\t0\t9\t9\n')
    return tmp_path


def test_tiny_imagenet(tiny_imagenet):
    pipeline = [dict(type='LoadImageFromFile')]
    train, val = (build_dataset(dict(type='mmseg_kd.TinyImageNet', data_root=str(tiny_imagenet), split=split,
                                     pipeline=pipeline)) for split in ('train', 'val'))
    assert train.CLASSES == ('n01', 'n02')
    assert [(sample['img'][0, 0, 0], sample['gt_label']) for sample in train] == [(10, 0), (10, 0), (20, 1), (20, 1)]
    assert [(sample['img'][0, 0, 0], sample['gt_label']) for sample in val] == [(30, 1), (40, 0)]


def test_tiny_imagenet_refuses_another_layout(tiny_imagenet):
    def build(**settings):
        return build_dataset(dict(type='mmseg_kd.TinyImageNet', data_root=str(tiny_imagenet)) | settings)
    with pytest.raises(ValueError, match=r"`split`: expected 'train' or 'val', got 'test'"):
        build(split='test')
    with pytest.raises(ValueError, match='`data_root`: expected the unpacked tiny-imagenet-200.*has no wnids.txt'):
        build(data_root=str(tiny_imagenet / 'train'))
    (tiny_imagenet / 'wnids.txt').write_text('n01\n')
    with pytest.raises(ValueError, match=r"classes that are not in wnids.txt: \['n02'\]"):
        build()


def from_config(name, split, **settings):
    """The data set of a shipped part, of which only the place is changed."""
    from mmengine.config import Config
    from tiny import ROOT
    loader = Config.fromfile(ROOT / f'configs/_base_/datasets/{name}.py')[f'{split}_dataloader']
    return build_dataset(dict(loader.dataset) | settings)


def test_cub(tmp_path):
    """CUB-200-2011's four text files, which count from 1."""
    names = ['001.Black_footed_Albatross/a.jpg', '001.Black_footed_Albatross/b.jpg', '002.Laysan_Albatross/c.jpg']
    for index, name in enumerate(names):
        picture(tmp_path / 'images' / name, 50 + 10 * index)
    for name, values in (('images', names), ('image_class_labels', '112'), ('train_test_split', '101')):
        (tmp_path / f'{name}.txt').write_text(
            ''.join(f'{index} {value}\n' for index, value in enumerate(values, start=1)))
    pipeline = [dict(type='LoadImageFromFile')]
    train, test = (from_config('cub200_224', split, data_root=str(tmp_path), pipeline=pipeline)
                   for split in ('train', 'test'))
    assert [(sample['img'][0, 0, 0], sample['gt_label']) for sample in train] == [(50, 0), (70, 1)]
    assert [(sample['img'][0, 0, 0], sample['gt_label']) for sample in test] == [(60, 0)]


def test_cifar100(tmp_path, monkeypatch):
    """CIFAR-100's pickles: rows of 3072 bytes, channel by channel, and the fine labels."""
    from mmpretrain.datasets import CIFAR100

    # The reader compares the files with the published checksums; these are others.
    for name in ('train_list', 'test_list'):
        monkeypatch.setattr(CIFAR100, name, [[getattr(CIFAR100, name)[0][0], None]])
    (tmp_path / 'cifar-100-python').mkdir()
    rows = np.random.default_rng(0).integers(0, 256, (5, 3072), dtype=np.uint8)
    for name, labels in (('train', [0, 99, 3]), ('test', [42, 7])):
        content = dict(data=rows[:len(labels)], fine_labels=labels, coarse_labels=[1] * len(labels))
        (tmp_path / 'cifar-100-python' / name).write_bytes(pickle.dumps(content))
    for split, labels in (('train', [0, 99, 3]), ('test', [42, 7])):
        dataset = from_config('cifar100_bs64', split, data_root=str(tmp_path), pipeline=[])
        assert [sample['gt_label'] for sample in dataset] == labels
        for sample, row in zip(dataset, rows, strict=False):
            assert sample['img'].shape == (32, 32, 3) and sample['img'][3, 5, 2] == row[2 * 1024 + 3 * 32 + 5]

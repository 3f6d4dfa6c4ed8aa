"""tools/check_dataset.py as a user types it."""
import shutil

import numpy as np
from PIL import Image
from tiny import command, run_config, segmentor

from mmseg_kd.datasets import check_tree


def test_a_good_tree(mini_cityscapes):
    process = command('tools/check_dataset.py', mini_cityscapes)
    assert process.stdout.rstrip().endswith('no problems')
    assert 'train: 12 pairs; pictures: 12 of 32x64' in process.stdout
    assert '100%' in process.stdout  # the progress bar
    maps = [np.array(Image.open(path)) for path in (mini_cityscapes / 'gtFine/train').rglob('*_labelTrainIds.png')]
    maps = np.stack(maps)
    road = (maps == 0).sum() / (maps != 255).sum()
    line = next(line for line in process.stdout.splitlines() if ' road ' in line).split()
    assert line[2] == f'{road:.3%}' and line[3] == str((maps == 0).any((1, 2)).sum())
    line = next(line for line in process.stdout.splitlines() if ' ignored ' in line).split()
    assert line[2] == f'{(maps == 255).mean():.3%}'


def test_a_tree_that_is_not_there(tmp_path):
    process = command('tools/check_dataset.py', tmp_path, check=False)
    assert process.returncode == 1 and process.stdout.count('no such folder') == 4 and '4 problems' in process.stdout


def test_a_tree_with_other_endings(mini_cityscapes, tmp_path):
    shutil.copytree(mini_cityscapes, tmp_path / 'tree')
    for path in (tmp_path / 'tree/leftImg8bit').rglob('*.png'):
        Image.open(path).save(path.with_suffix('.jpg'))
        path.unlink()
    assert [len(check.problems) for check in check_tree(str(tmp_path / 'tree')).values()] == [0, 0]
    checks = check_tree(str(tmp_path / 'tree'), image_suffixes=('_leftImg8bit.png', ))
    assert 'holds no file *_leftImg8bit.png' in checks['train'].problems[0]


def test_the_data_sets_of_a_config(tmp_path):
    """A folder of a user's own: RGBA, palettes, labels that count from 1; two files are damaged, one label is wrong."""
    random = np.random.default_rng(0)
    for split in ('train', 'val'):
        for kind in ('images', 'labels'):
            (tmp_path / kind / split).mkdir(parents=True)
        for index in range(4):
            pixels = random.integers(0, 256, (20, 30, 4), dtype=np.uint8)
            labels = random.integers(0, 4, (20, 30), dtype=np.uint8)
            if split == 'val' and index == 0:
                labels[0, :5] = 9
            Image.fromarray(pixels).save(tmp_path / f'images/{split}/{index}.png')
            palette = Image.fromarray(labels, mode='P')
            palette.putpalette([value for _ in range(256) for value in (1, 2, 3)])
            palette.save(tmp_path / f'labels/{split}/{index}.png')
    for damaged in ('images/train/1.png', 'labels/train/2.png'):
        content = (tmp_path / damaged).read_bytes()
        (tmp_path / damaged).write_bytes(content[:len(content) // 2])
    config = run_config(segmentor(), tmp_path)
    for split in ('train', 'val'):
        loader = config[f'{split}_dataloader']
        loader.dataset = dict(
            type='BaseSegDataset', data_root=str(tmp_path), img_suffix='.png', seg_map_suffix='.png',
            reduce_zero_label=True, metainfo=dict(classes=['ground', 'brick', 'water']),
            data_prefix=dict(img_path=f'images/{split}', seg_map_path=f'labels/{split}'),
            pipeline=[dict(type='LoadImageFromFile', color_type='unchanged'),
                      dict(type='LoadAnnotations', reduce_zero_label=True), dict(type='RandomCrop', crop_size=(8, 8)),
                      dict(type='PackSegInputs')])
    config.train_dataloader.dataset = dict(type='RepeatDataset', times=3, dataset=config.train_dataloader.dataset)
    config.test_dataloader = config.val_dataloader
    config.dump(tmp_path / 'config.py')
    process = command('tools/check_dataset.py', tmp_path / 'config.py', check=False)
    said = process.stdout
    assert process.returncode == 1 and 'train: 4 pairs; pictures: 2 of 20x30' in said and '\n3 problems' in said
    assert 'images/train/1.png: cannot be read' in said and 'labels/train/2.png: cannot be read' in said
    assert 'labels/val/0.png: 5 pixels have labels outside 0 .. 2 and 255: [8]' in said
    # Expected: the files' own labels, one less, where they could be read.
    maps = np.stack([np.array(Image.open(tmp_path / f'labels/train/{index}.png')) for index in (0, 3)])
    line = next(line for line in said.splitlines() if ' brick ' in line).split()
    assert line[2] == f'{(maps == 2).sum() / (maps != 0).sum():.3%}' and line[3:6] == ['2', 'of', '4']

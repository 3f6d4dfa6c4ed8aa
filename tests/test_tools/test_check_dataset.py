"""tools/check_dataset.py as a user types it."""
import numpy as np
from PIL import Image
from tiny import command


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

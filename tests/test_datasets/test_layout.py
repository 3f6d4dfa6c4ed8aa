"""The directory: Cityscapes' layout, read unchanged by mmseg and cityscapesscripts; whole or not there at all."""
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from cityscapesscripts.helpers.labels import id2label, labels

from mmseg_kd.datasets import generate_mini_cityscapes, mini_cityscapes

SIZE = (32, 64)
SETTINGS = dict(num_train=9, num_val=8, size=SIZE, seed=3)


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return generate_mini_cityscapes(tmp_path_factory.mktemp('data') / 'mini', **SETTINGS)


def contents(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(Path(root).rglob('*')) if path.is_file()}


def read(path):
    array = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert array is not None, path
    return array


def label_files(root, split='train'):
    files = sorted((root / 'gtFine' / split).glob('*/*_gtFine_labelIds.png'))
    assert files
    return files


def beside(path, name):
    return path.with_name(path.name.replace('labelIds', name))


def test_layout_and_names(root):
    for split, count in (('train', 9), ('val', 8)):
        images = sorted((root / 'leftImg8bit' / split).glob('*/*'))
        assert len(images) == count
        assert len({image.parent.name for image in images}) >= 2
        assert len(list((root / 'gtFine' / split).glob('*/*'))) == 4 * count
        for image in images:
            match = re.fullmatch(r'([a-z]+)_(\d{6})_(\d{6})_leftImg8bit\.png', image.name)
            assert match and match[1] == image.parent.name
            assert read(image).shape == (*SIZE, 3)
            for name, dtype in (('labelIds', 'uint8'), ('labelTrainIds', 'uint8'), ('instanceIds', 'uint16'),
                                ('color', 'uint8')):
                stem = image.name.replace('leftImg8bit', f'gtFine_{name}')
                annotation = read(root / 'gtFine' / split / match[1] / stem)
                assert annotation.shape[:2] == SIZE and annotation.dtype == dtype
    assert not (root / 'leftImg8bit' / 'test').exists()


def test_four_annotations_agree(root):
    """Oracle: cityscapesscripts' table, looked up pixel by pixel."""
    for path in label_files(root)[:4]:
        ids, train_ids, instances = read(path), read(beside(path, 'labelTrainIds')), read(beside(path, 'instanceIds'))
        color = cv2.cvtColor(read(beside(path, 'color')), cv2.COLOR_BGRA2RGBA)
        for row, column in np.ndindex(ids.shape):
            label = id2label[int(ids[row, column])]
            assert train_ids[row, column] == label.trainId
            assert tuple(color[row, column]) == (*label.color, 255)
            instance = int(instances[row, column])
            assert (instance // 1000 if label.hasInstances else instance) == label.id


@pytest.mark.parametrize('split', ['train', 'val'])
def test_every_class_and_void_occur(root, split):
    seen = {int(v) for path in label_files(root, split) for v in np.unique(read(beside(path, 'labelTrainIds')))}
    assert seen == {*range(19), 255}


def test_same_bytes_whatever_the_workers_and_counts(root, tmp_path):
    other = generate_mini_cityscapes(tmp_path / 'other', **SETTINGS, workers=2)
    assert contents(other) == contents(root)
    fewer = contents(generate_mini_cityscapes(tmp_path / 'fewer', **{**SETTINGS, 'num_train': 2, 'num_val': 0}))
    whole = contents(root)
    assert all(whole[name] == data for name, data in fewer.items() if name.endswith('.png'))


def test_another_seed_gives_other_pictures(root, tmp_path):
    other = contents(generate_mini_cityscapes(tmp_path / 'other', **{**SETTINGS, 'seed': 4, 'num_train': 2,
                                                                     'num_val': 0}))
    whole = contents(root)
    assert all(whole[name] != data for name, data in other.items() if name.endswith('leftImg8bit.png'))


def test_mmseg_reads_it(root):
    from mmseg.datasets import CityscapesDataset
    from mmseg.utils import register_all_modules
    register_all_modules()
    dataset = CityscapesDataset(
        data_root=str(root),
        data_prefix=dict(img_path='leftImg8bit/train', seg_map_path='gtFine/train'),
        pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')])
    assert len(dataset) == 9
    for i in range(9):
        item = dataset[i]
        truth = item['data_samples'].gt_sem_seg.data
        assert item['inputs'].shape == (3, *SIZE) and truth.shape == (1, *SIZE)
        assert set(truth.unique().tolist()) <= {*range(19), 255}


def test_official_pixel_evaluation_of_truth_against_itself(root):
    import cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling as evaluation
    files = [str(path) for path in label_files(root, 'val')]
    evaluation.args.evalInstLevelScore = True
    evaluation.args.evalPixelAccuracy = False
    evaluation.args.JSONOutput = False
    evaluation.args.quiet = True
    result = evaluation.evaluateImgLists(files, files, evaluation.args)
    trained = [label.name for label in labels if not label.ignoreInEval]
    assert len(trained) == 19
    assert {name: result['classScores'][name] for name in trained} == pytest.approx({name: 1. for name in trained})
    assert result['averageScoreInstClasses'] == pytest.approx(1.)


def test_official_instance_reader_finds_the_objects(root):
    from cityscapesscripts.evaluation.instances2dict import instances2dict
    files = [str(beside(path, 'instanceIds')) for path in label_files(root)]
    found = instances2dict(files, verbose=False)
    assert len(found) == len(files)
    for name in ('person', 'rider', 'car', 'truck', 'bus', 'train', 'motorcycle', 'bicycle'):
        assert any(item['instID'] >= 1000 for image in found.values() for item in image.get(name, [])), name


def test_second_call_does_nothing(root):
    before = {path: path.stat().st_mtime_ns for path in root.rglob('*')}
    assert generate_mini_cityscapes(root, **SETTINGS) == root
    assert {path: path.stat().st_mtime_ns for path in root.rglob('*')} == before


def test_an_empty_directory_is_taken(tmp_path):
    (tmp_path / 'out').mkdir()
    generate_mini_cityscapes(tmp_path / 'out', num_train=1, num_val=0, size=SIZE)
    assert (tmp_path / 'out' / mini_cityscapes.MANIFEST).is_file()


@pytest.mark.parametrize('workers, error', [(1, KeyboardInterrupt), (2, OSError)])
def test_an_interrupted_generation_leaves_nothing(tmp_path, monkeypatch, workers, error):
    def draw_scene(seed, split, index, size):
        if index == 2:
            raise error('stopped')
        return draw(seed, split, index, size)

    draw = mini_cityscapes.draw_scene
    monkeypatch.setattr(mini_cityscapes, 'draw_scene', draw_scene)  # forked workers see it too
    with pytest.raises(error, match='stopped'):
        generate_mini_cityscapes(tmp_path / 'out', num_train=4, num_val=0, size=SIZE, workers=workers)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('change, message', [
    (dict(num_train=-1), 'num_train must not be negative, got -1'),
    (dict(num_train=0, num_val=0), 'num_train, num_val and num_test are all 0'),
    (dict(size=(16, 64)), 'size must be height and width, at least 32 64'),
    (dict(size=(64,)), 'size must be height and width'),
    (dict(seed=-1), 'seed must not be negative, got -1'),
    (dict(workers=0), 'workers must be at least 1, got 0'),
])
def test_bad_settings(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        generate_mini_cityscapes(tmp_path / 'out', **{**SETTINGS, **change})
    assert list(tmp_path.iterdir()) == []


def test_other_directories_are_left_alone(tmp_path, root):
    with pytest.raises(ValueError, match='out_dir .* made with other settings .* choose another out_dir'):
        generate_mini_cityscapes(root, **{**SETTINGS, 'seed': 99})
    (tmp_path / 'notes.txt').write_text('mine')
    with pytest.raises(ValueError, match='out_dir .* not empty and was not made by this generator'):
        generate_mini_cityscapes(tmp_path, **SETTINGS)
    with pytest.raises(ValueError, match='out_dir .* is a file'):
        generate_mini_cityscapes(tmp_path / 'notes.txt', **SETTINGS)
    assert (tmp_path / 'notes.txt').read_text() == 'mine'


def test_damaged_directories_are_not_taken_for_whole(tmp_path):
    settings = dict(num_train=1, num_val=0, size=SIZE)
    root = generate_mini_cityscapes(tmp_path / 'out', **settings)
    assert json.loads((root / mini_cityscapes.MANIFEST).read_text())['version'] == mini_cityscapes.VERSION
    label_files(root)[0].unlink()
    with pytest.raises(ValueError, match='gtFine/train has 3 of 4 files'):
        generate_mini_cityscapes(root, **settings)
    (root / mini_cityscapes.MANIFEST).write_text('{')
    with pytest.raises(ValueError, match='mini_cityscapes.json is damaged'):
        generate_mini_cityscapes(root, **settings)

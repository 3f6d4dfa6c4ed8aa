"""COCO annotations of instances, read back by hand."""
import json

import cv2
import numpy as np
import pytest

from mmseg_kd.datasets.coco_instances import THINGS, run_lengths, write_coco_instances


def decoded(segmentation):
    """A mask from COCO's uncompressed run lengths: zeros and ones by turns, column by column."""
    height, width = segmentation['size']
    values = [number % 2 for number, length in enumerate(segmentation['counts']) for _ in range(length)]
    return np.array(values, dtype=bool).reshape(width, height).T


@pytest.mark.parametrize('rows', [
    ['0110', '0010'], ['1000', '0001'], ['1111', '1111'], ['0000', '0000'], ['0001', '0001'], ['1'], ['0']])
def test_run_lengths(rows):
    mask = np.array([[int(value) for value in row] for row in rows], dtype=bool)
    assert (decoded(dict(size=mask.shape, counts=run_lengths(mask))) == mask).all()
    assert all(length > 0 for length in run_lengths(mask)[1:])


def test_by_hand(tmp_path):
    """Two cars, a person too small, a group of bicycles, a class that is not asked for."""
    ids = np.full((6, 8), 7, np.uint16)
    ids[1:4, 1:3] = 26000
    ids[0:2, 5:8] = 26001
    ids[5, 5] = 24000
    ids[4:6, 0:2] = 33
    ids[3, 7] = 28000
    folder = tmp_path / 'gtFine/val/town'
    folder.mkdir(parents=True)
    cv2.imwrite(str(folder / 'town_000000_000019_gtFine_instanceIds.png'), ids)
    path, = write_coco_instances(tmp_path, classes=('person', 'car', 'bicycle'), min_pixels=3)
    assert path == tmp_path / 'annotations/instances_val.json'
    data = json.loads(path.read_text())
    assert data['images'] == [dict(id=1, width=8, height=6, file_name='town/town_000000_000019_leftImg8bit.png')]
    assert data['categories'] == [dict(id=1, name='person'), dict(id=2, name='car'), dict(id=3, name='bicycle')]
    found = {(each['category_id'], tuple(each['bbox'])): each for each in data['annotations']}
    assert {key: (each['iscrowd'], each['area']) for key, each in found.items()} == {
        (1, (5, 5, 1, 1)): (1, 1), (2, (1, 1, 2, 3)): (0, 6), (2, (5, 0, 3, 2)): (0, 6), (3, (0, 4, 2, 2)): (1, 4)}
    assert (decoded(found[2, (1, 1, 2, 3)]['segmentation']) == (ids == 26000)).all()
    assert sorted(each['id'] for each in data['annotations']) == [1, 2, 3, 4]


def test_of_mini_cityscapes(mini_cityscapes):
    paths = write_coco_instances(mini_cityscapes)
    assert [path.name for path in paths] == ['instances_train.json', 'instances_val.json']
    data = json.loads(paths[0].read_text())
    assert [each['name'] for each in data['categories']] == [
        'person', 'rider', 'car', 'truck', 'bus', 'train', 'motorcycle', 'bicycle'] == list(THINGS)
    assert len(data['images']) == 12 and len({each['category_id'] for each in data['annotations']}) == 8
    for image in data['images']:
        assert (mini_cityscapes / 'leftImg8bit/train' / image['file_name']).is_file()
    coco = pytest.importorskip('pycocotools.mask', reason='needs the extra "det"')
    for each in data['annotations']:
        compressed = coco.frPyObjects(each['segmentation'], *each['segmentation']['size'])
        assert coco.area(compressed) == each['area'] and coco.toBbox(compressed).tolist() == each['bbox']


@pytest.mark.parametrize('settings, message', [
    (dict(classes=('car', 'road')), "`classes`: expected some of .'person'"), (dict(classes=()), '`classes`'),
    (dict(classes=('car', 'car')), 'each once'), (dict(), '`root`: expected .*instanceIds.png, found none')])
def test_what_does_not_fit_is_refused(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        write_coco_instances(tmp_path, **settings)

"""One scene: reproducible, well formed, and showing what its index promises."""
import numpy as np
import pytest
from cityscapesscripts.helpers.labels import id2label, labels, name2label

from mmseg_kd.datasets.scene import SCHEDULE, draw_scene, required_classes


def label_ids(ids):
    return np.where(ids >= 1000, ids // 1000, ids)


@pytest.mark.parametrize('size', [(32, 64), (64, 128), (96, 130), (256, 512)])
def test_shapes(size):
    image, ids = draw_scene(0, 'train', 3, size)
    assert image.shape == (*size, 3) and image.dtype == np.uint8
    assert ids.shape == size and ids.dtype == np.uint16
    assert image.std() > 10


def test_depends_on_seed_split_and_index_alone():
    image, ids = draw_scene(5, 'train', 2, (32, 64))
    draw_scene(5, 'val', 0, (32, 64))
    again, ids_again = draw_scene(5, 'train', 2, (32, 64))
    np.testing.assert_array_equal(image, again)
    np.testing.assert_array_equal(ids, ids_again)
    for other in ((6, 'train', 2), (5, 'val', 2), (5, 'train', 3)):
        assert (draw_scene(*other, (32, 64))[0] != image).mean() > .5


def test_ids_are_cityscapes_instance_ids():
    for index in range(8):
        ids = draw_scene(0, 'val', index, (64, 128))[1]
        for value in np.unique(ids):
            label = id2label[int(value) // 1000 if value >= 1000 else int(value)]
            assert label.hasInstances == (value >= 1000), value


def test_two_cars_are_two_instances():
    car = name2label['car'].id
    most = max(len(np.unique(ids[label_ids(ids) == car])) for _, ids in (draw_scene(0, 'train', i, (64, 128))
                                                                         for i in range(4)))
    assert most >= 2


def test_schedule_names_every_training_class():
    named = {name for index in range(8) for name in required_classes(index)}
    assert {label.name for label in labels if 0 <= label.trainId < 255} - named == {'road'}
    assert name2label['static'].trainId == 255
    assert max(len(row) for row in SCHEDULE) == 8


@pytest.mark.parametrize('split', ['train', 'val'])
@pytest.mark.parametrize('size', [(32, 64), (64, 128)])
def test_a_picture_shows_what_its_index_promises(split, size):
    for index in range(10):
        seen = set(np.unique(label_ids(draw_scene(1, split, index, size)[1])).tolist())
        assert {name2label[name].id for name in required_classes(index)} <= seen, (index, required_classes(index))
        assert name2label['road'].id in seen


def test_small_sizes_are_refused():
    with pytest.raises(ValueError, match='size must be at least 32 64'):
        draw_scene(0, 'train', 0, (16, 128))

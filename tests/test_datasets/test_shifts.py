"""Noise on a part of a picture, and its parts in another order."""
import numpy as np
import pytest
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import DefaultScope

from mmseg_kd.datasets import NoisyPatch, ScrambledPatches


def results(index=0, height=224, width=224, value=128):
    return dict(img=np.full((height, width, 3), value, np.uint8), sample_idx=index, gt_label=3)


def test_noise_is_where_and_as_strong_as_published():
    found = NoisyPatch()(results())
    changed = (found['img'] != 128).any(2)
    rows, columns = np.nonzero(changed)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (50, 149, 50, 149) and found['gt_label'] == 3
    noise = found['img'][50:150, 50:150].astype(float) - 128
    assert noise.std() == pytest.approx(25, rel=0.02) and abs(noise.mean()) < 0.5
    # Near the ends of the range it stays there, and does not wrap around.
    assert NoisyPatch()(results(value=255))['img'].min() > 100 and NoisyPatch()(results(value=0))['img'].max() < 150


def test_patches_change_places_and_nothing_else():
    image = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
    found = ScrambledPatches(across=4)(dict(results(), img=image))['img']
    cut = [{image_[y:y + 2, x:x + 2].tobytes() for y in range(0, 8, 2) for x in range(0, 8, 2)}
           for image_ in (image, found)]
    assert cut[0] == cut[1] and len(cut[0]) == 16 and not np.array_equal(image, found)


@pytest.mark.parametrize('transform', [NoisyPatch(), ScrambledPatches()], ids=['noise', 'order'])
def test_each_picture_has_its_own_draw_which_stays(transform):
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    kept = image.copy()
    first, again, other = (transform(dict(results(index), img=image))['img'] for index in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other) and np.array_equal(image, kept)
    by_path = [transform(dict(img=image, img_path=path))['img'] for path in ('a.png', 'b.png')]
    assert not np.array_equal(*by_path)


@pytest.mark.parametrize('call, message', [
    (lambda: NoisyPatch(level=-1), '`level`: expected at least 0, got -1'),
    (lambda: NoisyPatch(begin=0.8), '`begin`, `extent`: expected shares'),
    (lambda: ScrambledPatches(across=1), '`across`: expected an integer of at least 2'),
    (lambda: ScrambledPatches(across=3)(results()), '`across`: a picture of 224 x 224 pixels cannot be cut')])
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_config_names_them_from_any_scope():
    import mmseg_kd  # noqa: F401
    with DefaultScope.overwrite_default_scope('mmseg'):
        assert isinstance(MMENGINE_TRANSFORMS.build(dict(type='mmseg_kd.ScrambledPatches')), ScrambledPatches)

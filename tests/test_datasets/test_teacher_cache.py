"""Files of a teacher's logits, and what the pipeline makes of them."""
import json

import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope
from torch.nn import functional as F

from mmseg_kd.datasets.teacher_cache import CachedMap, TeacherCache, checkpoint_digest, image_loading

CLASSES = 6
TEACHER = dict(config='x.py', checkpoint='x.pth', checkpoint_sha256='0' * 64, classes=CLASSES, align_corners=False,
               top_k=None)


def smooth_logits(height, width, seed=0):
    """(C, h, w) logits that change slowly, as those of a segmentor do inside its objects."""
    noise = torch.randn(1, CLASSES, 3, 4, generator=torch.Generator().manual_seed(seed))
    return 4 * F.interpolate(noise, (height, width), mode='bicubic', align_corners=True)[0].numpy()


@pytest.fixture
def image(tmp_path):
    path = tmp_path / 'image.png'
    rng = np.random.default_rng(0)
    assert cv2.imwrite(str(path), rng.integers(0, 255, (64, 96, 3), np.uint8))
    assert cv2.imwrite(str(tmp_path / 'label.png'), rng.integers(0, CLASSES, (64, 96), np.uint8))
    return path


def whole_cache(tmp_path, image, logits, **teacher):
    cache = TeacherCache(tmp_path / 'cache')
    cache.begin(TEACHER | teacher)
    cache.write(str(image), CachedMap(logits, teacher.get('align_corners', False)), teacher.get('top_k'))
    cache.finish(1)
    return cache


def run(cache, image, *transforms):
    pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'),
                dict(type='mmseg_kd.LoadTeacherLogits', cache=str(cache.folder)), *transforms,
                dict(type='mmseg_kd.PackDistillInputs', cache=str(cache.folder))]
    with DefaultScope.overwrite_default_scope('mmseg'):
        import mmseg.datasets  # noqa: F401 (registers the transforms)
        return Compose(pipeline)(dict(
            img_path=str(image), seg_map_path=str(image.with_name('label.png')), seg_fields=[], reduce_zero_label=False,
            label_map=None))['data_samples']


def full(logits, size, align_corners=False):
    return F.interpolate(torch.as_tensor(logits)[None], size, mode='bilinear', align_corners=align_corners)[0]


def test_untouched_images_get_the_logits_as_they_were(tmp_path, image):
    logits = smooth_logits(8, 12)
    sample = run(whole_cache(tmp_path, image, logits), image)
    assert torch.equal(sample.teacher_logits.data, torch.from_numpy(logits.astype(np.float16).astype(np.float32)))
    assert sample.gt_sem_seg.data.shape == (1, 64, 96)


def test_flips_and_aligned_crops_are_exact(tmp_path, image):
    logits = smooth_logits(8, 12).astype(np.float16).astype(np.float32)
    cache = whole_cache(tmp_path, image, logits)
    flipped = run(cache, image, dict(type='RandomFlip', prob=1., direction='horizontal')).teacher_logits.data
    np.testing.assert_allclose(flipped.numpy(), logits[:, :, ::-1], atol=1e-5)
    whole = run(cache, image, dict(type='RandomCrop', crop_size=(64, 96))).teacher_logits.data
    np.testing.assert_allclose(whole.numpy(), logits, atol=1e-5)


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('seed', range(6))
def test_logits_follow_the_image(tmp_path, image, seed, align_corners):
    """The same transforms, as floats, on the full-size map that the cached one stands for."""
    logits = smooth_logits(16, 24, seed)
    cache = whole_cache(tmp_path, image, logits, align_corners=align_corners)
    np.random.seed(seed)
    sample = run(cache, image, dict(type='RandomResize', scale=(96, 64), ratio_range=(.6, 1.8), keep_ratio=True),
                 dict(type='RandomCrop', crop_size=(32, 40)), dict(type='RandomFlip', prob=.5),
                 dict(type='RandomFlip', prob=.5, direction='vertical'))
    assert sample.teacher_align_corners is True
    got = full(sample.teacher_logits.data, sample.gt_sem_seg.data.shape[1:], align_corners=True)
    expected = torch.from_numpy(replay(seed, full(logits, (64, 96), align_corners).permute(1, 2, 0).numpy()))
    difference = (got - expected.permute(2, 0, 1)).abs()
    shifted = (got[:, :, 1:] - expected.permute(2, 0, 1)[:, :, :-1]).abs()
    # Resampling a resampled map smooths it a little; a pixel beside the right one is several times as far.
    assert difference.mean() < .01 and difference.max() < .2 and shifted.mean() > 4 * difference.mean()


def replay(seed, array):
    """The transforms of the test above, in the order of their draws, on an array of floats."""
    from mmcv import imresize
    np.random.seed(seed)
    with DefaultScope.overwrite_default_scope('mmseg'):
        import mmseg.datasets  # noqa: F401
        from mmseg.registry import TRANSFORMS
        resize, crop, flip, upside = (TRANSFORMS.build(settings) for settings in (
            dict(type='RandomResize', scale=(96, 64), ratio_range=(.6, 1.8), keep_ratio=True),
            dict(type='RandomCrop', crop_size=(32, 40)), dict(type='RandomFlip', prob=.5),
            dict(type='RandomFlip', prob=.5, direction='vertical')))
    results = dict(img=np.zeros((*array.shape[:2], 3), np.uint8), gt_seg_map=np.zeros(array.shape[:2], np.uint8),
                   seg_fields=['gt_seg_map'])
    results = resize(results)
    array = imresize(array, results['img'].shape[1::-1])
    results['numbers'], results['seg_fields'] = array, ['gt_seg_map', 'numbers']
    for transform in (crop, flip, upside):
        results = transform(results)
    return np.ascontiguousarray(results['numbers'])


def test_the_largest_logits_alone(tmp_path, image):
    logits = smooth_logits(8, 12)
    stored = run(whole_cache(tmp_path, image, logits, top_k=2), image).teacher_logits.data.softmax(0).numpy()
    exact = torch.from_numpy(logits).softmax(0).numpy()
    order = np.argsort(-exact, 0)
    best = (np.take_along_axis(probability, order[:2], 0) for probability in (stored, exact))
    np.testing.assert_allclose(*best, atol=5e-3)
    rest = np.take_along_axis(stored, order[2:], 0)
    np.testing.assert_allclose(rest.sum(0), np.take_along_axis(exact, order[2:], 0).sum(0), atol=5e-3)
    assert np.ptp(rest, 0).max() < 1e-3


def test_a_changed_image_is_refused(tmp_path, image):
    cache = whole_cache(tmp_path, image, smooth_logits(8, 12))
    assert cv2.imwrite(str(image), np.zeros((64, 96, 3), np.uint8))
    with pytest.raises(ValueError, match='has no logits of .*image.png: the image is new, or has changed'):
        run(cache, image)


def test_an_unfinished_cache_is_refused_and_can_be_continued(tmp_path, image):
    cache = TeacherCache(tmp_path / 'cache')
    with pytest.raises(ValueError, match='no cache of a teacher. Run python tools/cache_teacher.py'):
        cache.manifest()
    cache.begin(TEACHER)
    cache.write(str(image), CachedMap(smooth_logits(8, 12), False))
    with pytest.raises(ValueError, match='not whole yet'):
        cache.manifest()
    cache.begin(TEACHER)
    assert cache.path_of(str(image)).is_file()
    with pytest.raises(ValueError, match="another teacher or setting, there {'checkpoint_sha256': '000"):
        cache.begin(TEACHER | dict(checkpoint_sha256='1' * 64))


def test_logits_beyond_float16_are_refused(tmp_path, image):
    cache = TeacherCache(tmp_path / 'cache')
    cache.begin(TEACHER)
    with pytest.raises(ValueError, match='float16 cannot hold'):
        cache.write(str(image), CachedMap(np.full((CLASSES, 8, 12), 1e5, np.float32), False))
    assert not list(cache.logits_folder.iterdir())


def test_transforms_that_labels_do_not_follow_are_refused(tmp_path, image):
    cache = whole_cache(tmp_path, image, smooth_logits(8, 12))
    with pytest.raises(ValueError, match=r'changed the image to \(80, 96\) and not the arrays of `seg_fields`'):
        run(cache, image, dict(type='Pad', size=(96, 80)))
    with pytest.raises(ValueError, match='more than resizing, cropping and flipping'):
        run(cache, image, dict(type='RandomRotate', prob=1., degree=(10, 20)))


def test_digest_of_a_checkpoint(tmp_path):
    (tmp_path / 'file').write_bytes(b'abc')
    # FIPS 180-2, appendix B.1
    assert checkpoint_digest(str(tmp_path / 'file')) == (
        'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad')
    assert checkpoint_digest('https://example.org/x.pth') is None


def test_the_manifest_says_whose_it_is(tmp_path, image):
    cache = whole_cache(tmp_path, image, smooth_logits(8, 12))
    assert json.loads((cache.folder / 'manifest.json').read_text()) == TEACHER | dict(format=3, images=1)


def labels_and_logits(cache, image, *transforms):
    sample = run(cache, image, *transforms)
    labels = sample.gt_sem_seg.data[0]
    return labels, full(sample.teacher_logits.data, labels.shape, sample.teacher_align_corners)


@pytest.mark.parametrize('times', [1, 2, 3])
def test_classes_that_a_flip_exchanges_are_exchanged_in_the_logits(tmp_path, image, times):
    """A teacher that is right at every pixel stays so, also where the exchange is undone again."""
    truth = cv2.imread(str(image.with_name('label.png')), cv2.IMREAD_GRAYSCALE)
    perfect = np.eye(CLASSES, dtype=np.float32)[truth].transpose(2, 0, 1)
    cache = whole_cache(tmp_path, image, perfect)
    flips = [dict(type='RandomFlip', prob=1., direction=direction, swap_seg_labels=pairs) for direction, pairs in (
        ('horizontal', [(0, 3), (1, 4)]), ('vertical', [(1, 4)]), ('horizontal', [(4, 5)]))][:times]
    labels, logits = labels_and_logits(cache, image, *flips)
    assert (labels.numpy() != truth[::-1 if times > 1 else 1, ::-1 if times != 3 else 1]).mean() > .2
    assert torch.equal(logits.argmax(0), labels)
    labels, logits = labels_and_logits(cache, image, *flips, dict(type='RandomCrop', crop_size=(24, 31)))
    assert (logits.argmax(0) == labels).double().mean() > .9


def test_labels_that_change_otherwise_are_refused(tmp_path, image):
    from mmcv.transforms import TRANSFORMS, BaseTransform

    @TRANSFORMS.register_module(force=True)
    class Merge(BaseTransform):
        def transform(self, results):
            for key in results['seg_fields']:
                results[key] = np.where(results[key] == 2, 3, results[key])
            return results
    with pytest.raises(ValueError, match='changes labels in a way that cached logits of a teacher cannot follow'):
        run(whole_cache(tmp_path, image, smooth_logits(8, 12)), image, dict(type='Merge'))


def test_several_caches_are_several_teachers(tmp_path, image):
    """Each its own, also cropped; and a folder that the pipeline does not bring is refused."""
    from mmseg_kd.functional.upsampled import at_full_size
    from mmseg_kd.teachers.cached import CachedTeacher
    logits = [smooth_logits(8, 12, seed) for seed in range(2)]
    caches = [whole_cache(tmp_path / str(index), image, each) for index, each in enumerate(logits)]
    both = [str(cache.folder) for cache in caches]
    pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'),
                dict(type='mmseg_kd.LoadTeacherLogits', cache=both),
                dict(type='RandomFlip', prob=1., direction='horizontal'),
                dict(type='mmseg_kd.PackDistillInputs', cache=both)]
    with DefaultScope.overwrite_default_scope('mmseg'):
        sample = Compose(pipeline)(dict(
            img_path=str(image), seg_map_path=str(image.with_name('label.png')), seg_fields=[], reduce_zero_label=False,
            label_map=None))['data_samples']
    images = torch.zeros(1, 3, 64, 96)
    for folder, each in zip(both, logits, strict=True):
        answer = CachedTeacher(CLASSES, folder)(images, [sample], {'logits'})['logits']
        torch.testing.assert_close(at_full_size(answer)[0].flip(2), full(each, (64, 96)), atol=2e-2, rtol=1e-2)
    (tmp_path / 'link').symlink_to(both[1])
    CachedTeacher(CLASSES, str(tmp_path / 'link'))(images, [sample], {'logits'})
    with pytest.raises(ValueError, match="the model reads 'elsewhere', the training pipeline brings"):
        CachedTeacher(CLASSES, 'elsewhere')(images, [sample], {'logits'})


def test_images_are_loaded_as_the_teacher_saw_them(tmp_path, image):
    def pipeline(**loading):
        return [dict(type='mmseg.LoadImageFromFile', **loading), dict(type='LoadAnnotations'), dict(type='RandomFlip')]
    loading = image_loading(pipeline(imdecode_backend='pillow'))
    cache = whole_cache(tmp_path, image, smooth_logits(8, 12), loading=loading)
    cache.check_loading(pipeline(imdecode_backend='pillow'))
    with pytest.raises(ValueError, match="saw images loaded by .*'pillow'.*, the training pipeline loads them by"):
        cache.check_loading(pipeline())


def test_a_cache_of_an_older_format_is_refused(tmp_path, image):
    cache = whole_cache(tmp_path, image, smooth_logits(8, 12))
    path = cache.folder / 'manifest.json'
    path.write_text(path.read_text().replace('"format": 3', '"format": 1'))
    with pytest.raises(ValueError, match=r'made by another version \(format 1, expected 3\)'):
        TeacherCache(cache.folder).manifest()


def test_the_config_is_the_teachers_and_not_its_path(tmp_path, image):
    from mmengine.config import Config

    from mmseg_kd.teachers.cached import build_cached_teacher, config_digest
    Config(dict(model=dict(type='A', depth=18))).dump(tmp_path / 'a.py')
    Config(dict(_base_='./a.py', work_dir='x')).dump(tmp_path / 'same.py')
    Config(dict(model=dict(type='A', depth=50))).dump(tmp_path / 'b.py')
    digest = config_digest(dict(config=str(tmp_path / 'a.py')))
    cache = whole_cache(tmp_path, image, smooth_logits(8, 12), config_sha256=digest, class_names=list('abcdef'))
    for config in ('a.py', 'same.py', 'gone.py'):
        teacher = build_cached_teacher(dict(cache=str(cache.folder), config=str(tmp_path / config)))
    assert teacher.classes == tuple('abcdef') and teacher.num_classes == CLASSES
    with pytest.raises(ValueError, match='holds the logits of another network: it was made with x.py'):
        build_cached_teacher(dict(cache=str(cache.folder), config=str(tmp_path / 'b.py')))
    # The same teacher, named by other paths, goes on with its cache.
    cache.begin(TEACHER | dict(config='y.py', checkpoint='moved.pth', config_sha256=digest, class_names=list('abcdef')))


def test_weights_that_are_named_by_an_address_are_the_caches(tmp_path, image, monkeypatch):
    """By the file that was downloaded, or by the hash in the name; nothing is downloaded for a cache."""
    from mmseg_kd.teachers.cached import build_cached_teacher
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'hub'))
    # FIPS 180-2, appendix B.1: the SHA-256 of b'abc'.
    known = 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'
    cache = whole_cache(tmp_path, image, smooth_logits(8, 12), checkpoint_sha256=known)
    folder = tmp_path / 'hub/hub/checkpoints'
    folder.mkdir(parents=True)
    (folder / 'same.pth').write_bytes(b'abc')
    (folder / 'other.pth').write_bytes(b'abcd')

    def build(name):
        build_cached_teacher(dict(cache=str(cache.folder), checkpoint=f'https://example.org/weights/{name}'))
    said = []
    monkeypatch.setattr('mmseg_kd.teachers.cached.print_log', lambda message, *_, **__: said.append(message))
    for name in ('same.pth', f'net-{known[:8]}.pth', f'net-{known}.pth?download=1'):
        build(name)
    assert said == []
    for name in ('other.pth', 'net-0a1b2c3d.pth'):
        with pytest.raises(ValueError, match=f'is stale: it holds the logits of a checkpoint with SHA-256 {known}'):
            build(name)
    build('unknown.pth')
    assert len(said) == 1 and 'unknown.pth is not on this machine and its name has no hash' in said[0]


def damage(path, how):
    content = bytearray(path.read_bytes())
    if how == 'truncated':
        path.write_bytes(content[:-40])
    elif how == 'flipped':
        content[-100] ^= 1
        path.write_bytes(content)
    elif how == 'foreign':
        path.write_bytes(b'x' * len(content))
    else:
        path.unlink()


@pytest.mark.parametrize('how, opened, message', [
    ('truncated', True, r'has \d+ of \d+ bytes'), ('gone', True, 'is missing'),
    ('flipped', False, 'has another checksum than when written'), ('foreign', False, 'has another checksum')])
def test_damage_is_found_and_made_good(tmp_path, image, how, opened, message):
    """Sizes when the cache is opened, checksums when a file is first read; the message names the cache's file."""
    logits = smooth_logits(8, 12)
    cache = whole_cache(tmp_path, image, logits)
    file = cache.path_of(str(image))
    damage(file, how)
    again = TeacherCache(cache.folder)
    with pytest.raises(ValueError, match=f'`teacher.cache`: its file {file} {message}.*cache_teacher.py again'):
        again.manifest()
        assert not opened
        again.read(file)
    assert not again.is_whole(file)
    again.write(str(image), CachedMap(logits, False))
    again.finish(1)
    assert again.manifest() and again.is_whole(file)
    np.testing.assert_array_equal(TeacherCache(cache.folder).read(file).logits, logits.astype(np.float16))


def test_the_key_is_a_digest_of_the_picture(tmp_path, image):
    import hashlib
    assert TeacherCache(tmp_path).path_of(str(image)).stem == hashlib.sha256(image.read_bytes()).hexdigest()


def test_no_space_left_leaves_no_half_file(tmp_path, image):
    """A limit of the size of a file stands for a full disk."""
    import resource
    import signal
    cache = TeacherCache(tmp_path / 'cache')
    cache.begin(TEACHER)
    limit, kept = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, limit[1]))
    try:
        with pytest.raises(OSError, match=f'`teacher.cache`: {cache.path_of(str(image))} could not be written'):
            cache.write(str(image), CachedMap(smooth_logits(8, 12), False))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, kept)
    assert not list(cache.logits_folder.iterdir())


@pytest.mark.parametrize('by_hand', [False, True])
def test_wrapped_data_sets_bring_the_logits_along(tmp_path, image, by_hand):
    """In every pipeline inside, whether or not somebody has put the transforms in."""
    from mmengine.config import Config

    from mmseg_kd.engine.runner_defaults import use_teacher_cache
    folder = str(whole_cache(tmp_path, image, smooth_logits(8, 12)).folder)
    ours = [dict(type=f'mmseg_kd.{name}', cache=[folder]) for name in ('LoadTeacherLogits', 'PackDistillInputs')]
    plain = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='RandomFlip', prob=.5)]
    expected = [*plain[:2], ours[0], plain[2], ours[1]]
    inner = dict(type='CityscapesDataset', pipeline=expected if by_hand else [*plain, dict(type='PackSegInputs')])
    both = dict(type='ConcatDataset', datasets=[inner, dict(type='RepeatDataset', times=2, dataset=inner)])
    cfg = Config(dict(model=dict(teacher=dict(cache=folder)), train_dataloader=dict(dataset=both)))
    use_teacher_cache(cfg)
    first, second = cfg.train_dataloader.dataset.datasets
    assert first.pipeline == expected and second.dataset.pipeline == expected

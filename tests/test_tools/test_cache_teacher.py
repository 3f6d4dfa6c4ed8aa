"""tools/cache_teacher.py and training from what it leaves."""
import json
import shutil

import mmcv
import numpy as np
import pytest
import torch
from tiny import build, command, distilled, run_config, segmentor

from mmseg_kd.datasets.teacher_cache import TeacherCache


@pytest.fixture(scope='module')
def cached(tmp_path_factory, mini_cityscapes):
    """A config with a teacher, its cache, and what the tool said."""
    folder = tmp_path_factory.mktemp('cached')
    weights = build(segmentor(16, 'PSPHead'), seed=5).state_dict()
    # Logits that differ by whole numbers, as a trained teacher's do.
    weights['decode_head.conv_seg.weight'] *= 100
    torch.save(weights, folder / 'teacher.pth')
    model = distilled(segmentor(dropout_ratio=0.), segmentor(16, 'PSPHead'), folder / 'teacher.pth')
    # The cached teacher has seen the images as they are; here the student does as well, so that both ways are one. (A
    # network with strides is not quite its mirror image on a mirrored picture, so that flips would differ.)
    config = run_config(model, mini_cityscapes, max_iters=3)
    pipeline = config.train_dataloader.dataset.pipeline
    config.train_dataloader.dataset.pipeline = [
        each for each in pipeline if each.type not in ('PhotoMetricDistortion', 'RandomFlip')]
    config.dump(folder / 'config.py')
    done = command('tools/cache_teacher.py', folder / 'config.py', '--out', folder / 'cache', '--device', 'cpu')
    return folder, done


def losses(work_dir):
    scalars, = work_dir.glob('*/vis_data/scalars.json')
    records = [json.loads(line) for line in scalars.read_text().splitlines()]
    return [record['distill.loss_dkd'] for record in records if 'distill.loss_dkd' in record]


def test_every_image_is_there(cached):
    folder, done = cached
    assert done.returncode == 0, done.stdout
    assert 'logits of 12 images' in done.stdout
    assert len(list((folder / 'cache/logits').iterdir())) == 12
    assert json.loads((folder / 'cache/manifest.json').read_text())['images'] == 12


def test_training_needs_no_teacher_and_learns_the_same(cached):
    folder, _ = cached
    command('tools/train.py', folder / 'config.py', '--work-dir', folder / 'with')
    command('tools/train.py', folder / 'config.py', '--work-dir', folder / 'without', '--cfg-options',
            f'model.teacher.cache={folder / "cache"}')
    # float16 is all that differs.
    pair = (torch.tensor(losses(folder / name)) for name in ('without', 'with'))
    torch.testing.assert_close(*pair, rtol=5e-3, atol=0)
    assert len(losses(folder / 'with')) == 3


def test_a_damaged_file_is_named_and_made_anew(cached, tmp_path):
    folder, _ = cached
    shutil.copytree(folder / 'cache', tmp_path / 'cache')
    files = sorted((tmp_path / 'cache/logits').iterdir())
    before = [path.read_bytes() for path in files]
    content = bytearray(before[0])
    content[-50] ^= 1
    for path in files:  # whichever picture comes first
        path.write_bytes(content)
    cache = TeacherCache(tmp_path / 'cache')
    with pytest.raises(ValueError, match=f'its file {files[0]} has another checksum'):
        cache.read(files[0])
    command('tools/cache_teacher.py', folder / 'config.py', '--out', tmp_path / 'cache', '--device', 'cpu')
    assert [path.read_bytes() for path in files] == before


def test_a_stale_cache_is_refused(cached):
    folder, _ = cached
    torch.save(build(segmentor(16, 'PSPHead'), seed=6).state_dict(), folder / 'other.pth')
    done = command('tools/train.py', folder / 'config.py', '--work-dir', folder / 'stale', '--cfg-options',
                   f'model.teacher.cache={folder / "cache"}', f'model.teacher.checkpoint={folder / "other.pth"}',
                   check=False)
    assert done.returncode != 0 and 'is stale: it holds the logits of a checkpoint with SHA-256' in done.stdout


def test_the_teacher_sees_images_at_the_scale(cached, tmp_path, mini_cityscapes):
    """Against the teacher's own layers on a picture that was resized and normalised by hand."""
    folder, _ = cached
    done = command('tools/cache_teacher.py', folder / 'config.py', '--out', tmp_path / 'cache', '--device', 'cpu',
                   '--scale', 32, 16)
    assert done.returncode == 0, done.stdout
    cache = TeacherCache(tmp_path / 'cache')
    assert cache.manifest()['scale'] == [32, 16]
    path = next((mini_cityscapes / 'leftImg8bit/train').rglob('*.png'))
    image = mmcv.imresize(mmcv.imread(str(path)), (32, 16))[..., ::-1]
    image = (image - np.array([123.675, 116.28, 103.53])) / np.array([58.395, 57.12, 57.375])
    teacher = build(segmentor(16, 'PSPHead')).eval()
    teacher.load_state_dict(torch.load(folder / 'teacher.pth'))
    with torch.no_grad():
        expected = teacher.decode_head(teacher.backbone(torch.tensor(image.transpose(2, 0, 1)[None]).float()))[0]
    found = torch.tensor(cache.read(cache.path_of(str(path))).logits).float()
    assert found.shape == (19, 2, 4)
    torch.testing.assert_close(found, expected, rtol=2e-3, atol=2e-3)
    again = command('tools/cache_teacher.py', folder / 'config.py', '--out', tmp_path / 'cache', '--device', 'cpu',
                    check=False)
    assert again.returncode != 0 and 'holds the logits of another teacher or setting' in again.stdout

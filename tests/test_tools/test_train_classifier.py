"""The digits demo as a user types it: tools/train.py and tools/test.py on mmpretrain's models."""
import json

import pytest
import tiny_cls  # noqa: F401 (skips without the extra)
from tiny import command

pytestmark = pytest.mark.cls
CONFIG = 'configs/demo/dkd_resnet20_resnet8_digits-8x8.py'


@pytest.fixture(scope='module')
def demo(tmp_path_factory):
    """A teacher of two epochs, and the demo as it is: (work dir, output)."""
    folder = tmp_path_factory.mktemp('digits')
    command('tools/train.py', 'configs/demo/resnet20_digits-8x8.py', '--work-dir', folder / 'teacher', '--cfg-options',
            'train_cfg.max_epochs=2')
    output = command('tools/train.py', CONFIG, '--work-dir', folder / 'run', '--cfg-options',
                     f'model.teacher.checkpoint={folder}/teacher/epoch_2.pth').stdout
    return folder / 'run', output


def score(work_dir):
    return json.loads(sorted(work_dir.glob('*/*.json'))[-1].read_text())['accuracy/top1']


def test_the_demo_distils(demo):
    work_dir, output = demo
    records = [json.loads(line) for line in next(work_dir.glob('*/vis_data/scalars.json')).open()]
    # 200 pictures in batches of 32: 7 steps an epoch, 30 epochs.
    assert records[-1]['step'] == 30 and 'RANDOM weights' not in output
    step = next(record for record in records if 'loss' in record)
    assert step['loss'] == pytest.approx(step['loss_cls'] + step['distill.loss_dkd'], rel=1e-4)
    # Far above one in ten, with a teacher that has learnt little.
    assert records[-1]['accuracy/top1'] > 30


def test_the_checkpoint_is_a_plain_students(demo):
    """Loaded by mmpretrain's own get_model into the student's config, which must find every key and no other."""
    arguments = f"'configs/demo/resnet8_digits-8x8.py', pretrained={str(demo[0] / 'epoch_30.pth')!r}"
    output = command('-c', 'import mmseg_kd; from mmpretrain import get_model; '
                           f"get_model({arguments}); print('loaded')").stdout
    assert 'loaded' in output
    assert not any(word in output for word in ('missing', 'unexpected', 'size mismatch'))


def test_the_test_tool_scores_the_student_without_its_teacher(demo, tmp_path):
    work_dir, _ = demo
    output = command('tools/test.py', CONFIG, work_dir / 'epoch_30.pth', '--work-dir', tmp_path, '--show-dir',
                     tmp_path / 'shown', '--cfg-options', 'model.teacher.checkpoint=gone.pth').stdout
    records = [json.loads(line) for line in next(work_dir.glob('*/vis_data/scalars.json')).open()]
    assert score(tmp_path) == pytest.approx(records[-1]['accuracy/top1'], abs=1e-4)
    assert 'DistilledImageClassifier' not in output
    assert list((tmp_path / 'shown').rglob('*.png'))


def test_label_maps_of_a_classifier_are_refused(demo, tmp_path):
    process = command('tools/test.py', CONFIG, demo[0] / 'epoch_30.pth', '--work-dir', tmp_path, '--out', tmp_path,
                      check=False)
    assert process.returncode != 0 and '`--out`: Accuracy writes no label maps' in process.stdout

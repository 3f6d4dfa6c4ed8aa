"""`mmseg-kd distil`: the config that it writes, and the training that it starts."""
import re

import pytest
from mmengine.config import Config
from tiny import ROOT, command

from mmseg_kd.commands import METHODS
from mmseg_kd.commands.written_config import config_text, teacher_settings, write_config

PAIR = 'pspnet-r101-d8_pspnet-r18-d8_4xb2-80k_cityscapes-512x1024.py'
STUDENT = 'mmseg::pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py'
TEACHER = 'mmseg::pspnet/pspnet_r101-d8_4xb2-80k_cityscapes-512x1024.py'
DEMO = 'mmseg_kd::demo/fcn_r18-w16-d8_mini-cityscapes-64x128.py'


@pytest.mark.parametrize('method', METHODS)
def test_what_is_written_is_what_the_zoo_has(method, tmp_path):
    (tmp_path / 'written.py').write_text(config_text(STUDENT, teacher_settings(TEACHER), method))
    written = Config.fromfile(tmp_path / 'written.py')
    zoo = Config.fromfile(next((ROOT / 'configs/seg' / method).glob(f'{method.split("-")[0]}*_{PAIR}')))
    assert {key: written.model.get(key) for key in zoo.model} == zoo.model
    assert written.train_dataloader == zoo.train_dataloader and written.optim_wrapper == zoo.optim_wrapper
    lines = (tmp_path / 'written.py').read_text().splitlines()
    assert len(lines) < 20 and max(len(line) for line in lines if 'http' not in line) <= 120


def test_data_and_length_are_the_users(tmp_path):
    (tmp_path / 'elsewhere').mkdir()
    path = write_config(DEMO, str(trained(tmp_path)), data=str(tmp_path / 'elsewhere'), iterations=100,
                        work_dir=str(tmp_path / 'kd'))
    cfg, plain = Config.fromfile(path), Config.fromfile(ROOT / 'configs' / DEMO.removeprefix('mmseg_kd::'))
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        assert cfg[loader].dataset.data_root == str(tmp_path / 'elsewhere')
    assert cfg.train_cfg.max_iters == cfg.param_scheduler[-1].end == 100
    assert cfg.default_hooks.logger.interval == 10 and cfg.default_hooks.checkpoint.interval == 100
    assert cfg.param_scheduler[-1].power == plain.param_scheduler[-1].power
    assert cfg.model.teacher.checkpoint == str(tmp_path / 'teacher/iter_7.pth')
    # Written again it is the same; anything else is not written over it.
    assert write_config(DEMO, str(tmp_path / 'teacher'), data=str(tmp_path / 'elsewhere'), iterations=100,
                        work_dir=str(tmp_path / 'kd')) == path
    path.write_text(path.read_text() + 'log_level = "WARNING"\n')
    with pytest.raises(ValueError, match=r'`--work-dir`: .*kd.py is there already and has other settings'):
        write_config(DEMO, str(tmp_path / 'teacher'), work_dir=str(tmp_path / 'kd'))


def trained(folder):
    """The work dir of a training that never was."""
    config = folder / 'teacher/20260101/vis_data/config.py'
    config.parent.mkdir(parents=True)
    config.write_text("model = dict(type='EncoderDecoder')\n")
    (folder / 'teacher/last_checkpoint').write_text('/somewhere/else/iter_7.pth')
    return folder / 'teacher'


@pytest.mark.parametrize('arguments, message', [
    (dict(student=STUDENT, teacher=TEACHER, method='kdd'), "`--method`: expected one of .*'kd'.*, got 'kdd'"),
    (dict(student='nothing.py', teacher=TEACHER), "`--student`: expected an existing config file, got 'nothing.py'"),
    (dict(student=STUDENT, teacher='nothing.py'), "`--teacher`: expected an existing config file, got 'nothing.py'"),
    (dict(student=STUDENT, teacher=str(ROOT / 'configs/demo/fcn_r18-w16-d8_camvid-120x160.py')),
     '`--teacher-checkpoint`: expected the weights of .*, got none'),
    (dict(student=STUDENT, teacher=str(ROOT / 'tests')), '`--teacher`: .* not the work dir of a training run'),
    (dict(student=STUDENT, teacher='owner/model', teacher_checkpoint=__file__),
     '`--teacher-checkpoint`: .*Hugging Face'),
    (dict(student=STUDENT, teacher=TEACHER, teacher_checkpoint='nothing.pth'),
     "`--teacher-checkpoint`: expected a file or a URL, got 'nothing.pth'"),
    (dict(student=STUDENT, teacher=TEACHER, data='nowhere'), '`--data`: expected a folder, got .*nowhere'),
    (dict(student=STUDENT, teacher=TEACHER, iterations=0), '`--iterations`: expected at least 1, got 0'),
    (dict(student='mmseg_kd::demo/dkd_pspnet-r18-w32-d8_fcn-r18-w16-d8_mini-cityscapes-64x128.py', teacher=TEACHER),
     '`--student`: .* is distilled already'),
])
def test_what_cannot_be_is_refused_and_nothing_is_written(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        write_config(**arguments)
    assert not list(tmp_path.iterdir())


def test_a_model_of_the_hub_is_a_teacher():
    assert teacher_settings('nvidia/segformer-b5') == dict(type='huggingface', model='nvidia/segformer-b5')


@pytest.fixture(scope='module')
def teacher(tmp_path_factory, mini_cityscapes):
    """The work dir of a trained teacher, and what its training printed."""
    folder = tmp_path_factory.mktemp('teacher')
    data = [f'{loader}_dataloader.dataset.data_root={mini_cityscapes}' for loader in ('train', 'val', 'test')]
    done = command('-m', 'mmseg_kd', 'train', 'mmseg_kd::demo/pspnet_r18-w32-d8_mini-cityscapes-64x128.py',
                   '--work-dir', folder, '--cfg-options', *data, 'train_cfg.max_iters=2', 'train_cfg.val_interval=2',
                   'default_hooks.checkpoint.interval=2', 'default_hooks.logger.interval=1')
    return folder, done.stdout


def test_one_command_distils(teacher, mini_cityscapes, tmp_path):
    """From a trained teacher to a distilled student, with a config that stays; and the terminal is quiet."""
    done = command('-m', 'mmseg_kd', 'distil', '--student', DEMO, '--teacher', teacher[0], '--method', 'dkd', '--data',
                   mini_cityscapes, '--iterations', 2, '--work-dir', tmp_path / 'dkd', '--cfg-options',
                   'teacher_check=False', 'default_hooks.logger.interval=1')
    before, _, after = done.stdout.partition('Iter(train)')
    assert len(before.splitlines()) <= 40 and len(teacher[1].partition('Iter(train)')[0].splitlines()) <= 40
    for noise in ('OneDL', 'FileClient', 'MultiScaleDeformableAttention', 'prefix', 'System env', 'before_run:'):
        assert noise not in done.stdout + teacher[1]
    assert f'mmseg-kd train {tmp_path}/dkd/dkd.py' in before and 'distill.loss_dkd' in after
    # The log file has what the terminal has not.
    log = next((tmp_path / 'dkd').glob('*/*.log'))
    assert str(log) in before
    assert all(text in log.read_text() for text in ('System environment', 'before_run:', "type='mmseg_kd.DKDLoss'"))
    # What was written is still there, and the same command goes on with it.
    text = (tmp_path / 'dkd/dkd.py').read_text()
    assert len(text.splitlines()) < 25 and text.startswith('# Edit this file')
    assert write_config(DEMO, str(teacher[0]), method='dkd', data=str(mini_cityscapes), iterations=2,
                        work_dir=str(tmp_path / 'dkd')).read_text() == text
    assert re.search(r'mIoU: \d', after) and (tmp_path / 'dkd/iter_2.pth').is_file()

"""What --resume goes on from, what it says has changed, and that a work dir has one run at a time."""
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch
from mmengine.runner import Runner
from tiny import ROOT, run_config, segmentor

from mmseg_kd.engine import resume
from mmseg_kd.engine.resume import changed_settings, choose_checkpoint
from mmseg_kd.engine.work_dir_lock import lock_work_dir


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(resume, 'print_log', lambda message, **_: lines.append(message))
    return lines


def complete(step):
    return dict(state_dict=dict(a=torch.zeros(9)), optimizer={}, meta=dict(iter=step, epoch=0))


def work_dir_with(folder, *steps, pointer=None):
    for step in steps:
        torch.save(complete(step), folder / f'iter_{step}.pth')
    if pointer is not None:
        (folder / 'last_checkpoint').write_text(str(folder / pointer))
    return run_config(segmentor(4), 'data', work_dir=str(folder), resume=True)


def test_the_last_checkpoint_is_taken_without_a_word(tmp_path, said):
    """Even if another run left a later one."""
    cfg = work_dir_with(tmp_path, 2, 4, 90, pointer='iter_4.pth')
    choose_checkpoint(cfg)
    assert cfg.get('load_from') is None and cfg.resume and not said


def truncate(path):
    path.write_bytes(path.read_bytes()[:700])


def flip(path):
    content = bytearray(path.read_bytes())
    content[content.find(bytes(36)) + 5] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize('pointer, spoil, reason', [
    ('iter_4.pth', truncate, 'iter_4.pth. is a zip archive without its end'),
    ('iter_4.pth', flip, 'iter_4.pth. is a damaged checkpoint'),
    ('iter_4.pth', lambda path: path.write_bytes(b''), 'iter_4.pth. is an empty file'),
    ('iter_4.pth', os.remove, 'iter_4.pth is missing'),
    ('iter_9.pth', os.remove, 'iter_9.pth is missing'),
    (None, os.remove, 'last_checkpoint is missing'),
    ('', os.remove, '')])
def test_the_newest_whole_one_and_why(tmp_path, said, pointer, spoil, reason):
    cfg = work_dir_with(tmp_path, 2, 3, 4, pointer=pointer)
    if pointer == '':
        (tmp_path / 'last_checkpoint').write_text('')
        reason = 'last_checkpoint is missing or empty'
    spoil(tmp_path / 'iter_4.pth')
    choose_checkpoint(cfg)
    assert cfg.load_from == str(tmp_path / 'iter_3.pth') and cfg.resume
    assert len(said) == 1 and 'goes on from' in said[0] and re.search(reason, said[0]), said


def test_none_is_whole(tmp_path, said):
    cfg = work_dir_with(tmp_path, 2, pointer='iter_2.pth')
    truncate(tmp_path / 'iter_2.pth')
    with pytest.raises(ValueError, match='`--resume`: no checkpoint in .* can be read: .*iter_2.pth'):
        choose_checkpoint(cfg)
    (tmp_path / 'new').mkdir()
    choose_checkpoint(work_dir_with(tmp_path / 'new'))
    assert 'there is no checkpoint in' in said[-1] and 'starts at iteration 0' in said[-1]


@pytest.mark.parametrize('left_out, words', [
    ('optimizer', r'no the state of the optimizer \(`optimizer`\), so'), ('meta', r'no the iteration \(`meta`\), so')])
def test_an_incomplete_one(tmp_path, said, left_out, words):
    cfg = work_dir_with(tmp_path, 2, pointer='iter_2.pth')
    torch.save({key: value for key, value in complete(2).items() if key != left_out}, tmp_path / 'iter_2.pth')
    with pytest.raises(ValueError, match=f'`--resume`: .*iter_2.pth holds {words}.*resume_incomplete=True'):
        choose_checkpoint(cfg)
    cfg.resume_incomplete = True
    choose_checkpoint(cfg)
    assert not cfg.resume and cfg.load_from == str(tmp_path / 'iter_2.pth') and 'begin a new run' in said[0]


def test_old_and_new_value_of_what_changed():
    old, new = (run_config(segmentor(4), 'data') for _ in range(2))
    assert changed_settings(old.pretty_text, new) == []
    new.optim_wrapper.optimizer.lr = 0.5
    new.train_dataloader.batch_size = 7
    new.model.decode_head.loss_decode.loss_weight = 3.
    new.work_dir = 'elsewhere'
    assert changed_settings(old.pretty_text, new) == [
        'model.decode_head.loss_decode.loss_weight: nothing -> 3.0', 'optim_wrapper.optimizer.lr: 0.01 -> 0.5',
        'train_dataloader.batch_size: 2 -> 7']
    assert changed_settings('import os', new) is None


def test_a_resumed_run_says_it(mini_cityscapes, tmp_path):
    """In its log, when it goes on from a checkpoint of a run with another learning rate and nothing is left to do."""
    def run(**settings):
        config = run_config(segmentor(4), mini_cityscapes, max_iters=2, work_dir=str(tmp_path), custom_hooks=[
            dict(type='mmseg_kd.CheckpointFitHook')], experiment_name=f'changes{settings.get("resume")}', **settings)
        if settings:
            config.optim_wrapper.optimizer.lr = 0.25
        Runner.from_cfg(config).train()
        return ''.join(path.read_text() for path in tmp_path.glob('*/*.log'))
    assert 'old -> new' not in run()
    log = run(resume=True)
    assert 'optim_wrapper.optimizer.lr: 0.01 -> 0.25' in log
    assert 'nothing is left to do: the checkpoint has 2 iters, train_cfg.max_iters is 2' in log


def test_a_work_dir_has_one_run_at_a_time(tmp_path):
    config = run_config(segmentor(4), 'data', work_dir=str(tmp_path / 'run'))
    ready, say = os.pipe()
    child = os.fork()
    if not child:
        lock_work_dir(config)
        os.write(say, b'x')
        time.sleep(600)
    os.read(ready, 1)
    with pytest.raises(ValueError, match=f'`work_dir`: a run is going on in .*process {child} on '
                                         f'{socket.gethostname()}, ' r'since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d'):
        lock_work_dir(config)
    lock_work_dir(run_config(segmentor(4), 'data', work_dir=str(tmp_path / 'run'), work_dir_lock=False))
    lock_work_dir(run_config(segmentor(4), 'data', work_dir=str(tmp_path / 'other')))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    lock_work_dir(config)  # a dead one's does not stand in the way
    assert json.loads((tmp_path / 'run/.running').read_text())['process'] == os.getpid()


SLOW = '''
import time
from pathlib import Path
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS

@TRANSFORMS.register_module()
class Slow(BaseTransform):
    def transform(self, results):
        Path(__file__).with_name('validating').touch()
        time.sleep(1)
        return results
'''


def test_a_signal_to_the_whole_process_group_while_workers_validate(mini_cityscapes, tmp_path):
    (tmp_path / 'slow.py').write_text(SLOW)
    config = run_config(segmentor(4), mini_cityscapes, max_iters=6, work_dir=str(tmp_path / 'run'))
    config.train_cfg.val_interval = 2
    config.custom_imports = dict(imports=['mmseg_kd', 'slow'])
    for loader in (config.train_dataloader, config.val_dataloader):
        loader.update(num_workers=2, persistent_workers=True)
    config.val_dataloader.dataset.pipeline.insert(0, dict(type='Slow'))
    config.data_check = False
    config.dump(tmp_path / 'config.py')
    with open(tmp_path / 'out.txt', 'w') as out:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / 'tools/train.py'), str(tmp_path / 'config.py')], cwd=tmp_path, stdout=out,
            stderr=subprocess.STDOUT, start_new_session=True, env=dict(os.environ, PYTHONPATH=f'{ROOT}:{tmp_path}'))
        try:
            while not (tmp_path / 'validating').exists():
                assert process.poll() is None, (tmp_path / 'out.txt').read_text()[-2000:]
                time.sleep(0.05)
            os.killpg(process.pid, signal.SIGTERM)
            status = process.wait(120)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    log = (tmp_path / 'out.txt').read_text()
    assert status == 143, log[-3000:]
    assert 'SIGTERM: stopped after iteration 3; checkpoint: ' in log and 'mIoU' in log  # the validation has ended
    assert (tmp_path / 'run/last_checkpoint').read_text() == str(tmp_path / 'run/iter_3.pth')


def test_two_runs_of_one_work_dir(mini_cityscapes, tmp_path):
    """tools/train.py three times: the second while the first trains, the third after that was killed."""
    config = run_config(segmentor(4), mini_cityscapes, max_iters=10**6, work_dir=str(tmp_path / 'run'))
    config.train_dataloader.update(num_workers=1, persistent_workers=True)
    config.dump(tmp_path / 'config.py')
    arguments = [sys.executable, str(ROOT / 'tools/train.py'), str(tmp_path / 'config.py')]
    settings = dict(text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=tmp_path,
                    env=dict(os.environ, PYTHONPATH=str(ROOT)))
    with open(tmp_path / 'out.txt', 'w') as out:
        first = subprocess.Popen(arguments, **settings | dict(stdout=out), start_new_session=True)
        try:
            while 'Iter(train)' not in (tmp_path / 'out.txt').read_text():
                assert first.poll() is None, (tmp_path / 'out.txt').read_text()[-2000:]
                time.sleep(0.05)
            second = subprocess.run(arguments, **settings, timeout=120)
            assert second.returncode and first.poll() is None
            assert (f'a run is going on in {tmp_path}/run: process {first.pid} on {socket.gethostname()}, since 20'
                    in second.stdout), second.stdout[-3000:]
        finally:
            os.kill(first.pid, signal.SIGKILL)  # its loader worker lives on for some seconds
            first.wait(60)
    third = subprocess.run([*arguments, '--cfg-options', 'train_cfg.max_iters=1'], **settings, timeout=120)
    assert third.returncode == 0 and (tmp_path / 'run/iter_1.pth').is_file(), third.stdout[-3000:]

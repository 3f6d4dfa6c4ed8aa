"""A run survives SIGKILL at any moment, ends in order on SIGTERM and SIGINT, and loses nothing to a full disk."""
import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from mmengine.runner import Runner
from test_exact_resume import same
from tiny import ROOT, command, run_config, segmentor

from mmseg_kd.engine.stop_signal import StopSignalHook

ITERATIONS = 50


@pytest.fixture(scope='module')
def runs(mini_cityscapes, tmp_path_factory):
    """Folder of the runs of stopped_runs.py and what it saw."""
    folder = tmp_path_factory.mktemp('stopped')
    command('tests/test_engine/stopped_runs.py', folder, mini_cityscapes, timeout=600,
            PYTHONPATH=f'{ROOT}:{ROOT}/tests', OMP_NUM_THREADS='1')
    return folder, json.loads((folder / 'seen.json').read_text())


def end(folder):
    checkpoint = torch.load(folder / f'iter_{ITERATIONS}.pth', weights_only=False)
    return {key: checkpoint[key] for key in ('state_dict', 'optimizer')}


def test_twenty_kills(runs):
    """Every other one strikes while a checkpoint is being written; one checkpoint is kept; the teacher is cached."""
    folder, seen = runs
    assert seen['teacher'] == 'CachedTeacher(19 classes)'
    kills = seen['kills']
    assert len(kills) == 20 and all(kill['whole'] is True for kill in kills), kills
    assert sum(kill['writing'] for kill in kills) >= 5, kills
    assert same(end(folder / 'killed'), end(folder / 'straight'))
    assert [path.name for path in (folder / 'killed').glob('*.pth')] == [f'iter_{ITERATIONS}.pth']
    assert not list((folder / 'killed').glob('.unfinished/*'))


def test_what_is_outdated_is_written_down_only_when_a_checkpoint_was_written(mini_cityscapes, tmp_path, monkeypatch):
    from mmseg_kd.engine import safe_checkpoint
    dump, written = safe_checkpoint.json.dump, []

    def noted(content, file, *args, **kwargs):
        if str(getattr(file, 'name', '')).endswith('outdated.json'):
            written.append(content)
        return dump(content, file, *args, **kwargs)
    monkeypatch.setattr(safe_checkpoint.json, 'dump', noted)
    config = run_config(segmentor(4), mini_cityscapes, max_iters=5, work_dir=str(tmp_path), experiment_name='notes')
    config.default_hooks.checkpoint = dict(
        type='mmseg_kd.SafeCheckpointHook', by_epoch=False, interval=2, max_keep_ckpts=1)
    Runner.from_cfg(config).train()
    assert written == [[], ['iter_2.pth'], ['iter_4.pth']]
    assert [path.name for path in tmp_path.glob('*.pth')] == ['iter_5.pth']


def test_a_stop_before_the_outdated_checkpoint_goes(mini_cityscapes, tmp_path):
    """It goes when the run continues; the one that would be continued from stays, whatever the note says."""
    config = run_config(segmentor(4), mini_cityscapes, max_iters=2, work_dir=str(tmp_path), experiment_name='outdated')
    config.default_hooks.checkpoint = dict(
        type='mmseg_kd.SafeCheckpointHook', by_epoch=False, interval=2, max_keep_ckpts=1)
    left, last = tmp_path / 'iter_1.pth', tmp_path / 'iter_0.pth'
    left.write_text('outdated')
    last.write_text('last')
    (tmp_path / 'last_checkpoint').write_text(str(last))
    (tmp_path / '.unfinished').mkdir()
    (tmp_path / '.unfinished/outdated.json').write_text(json.dumps([str(left), str(last)]))
    Runner.from_cfg(config).train()
    assert not left.exists() and last.read_text() == 'last'
    assert (tmp_path / 'iter_2.pth').is_file() and not list(tmp_path.glob('.unfinished/*'))


@pytest.mark.parametrize('name, status', [('sigterm', 143), ('sigint', 130)])
def test_a_signal_ends_the_run_after_the_step_with_a_checkpoint(runs, name, status):
    folder, seen = runs
    assert seen[name]['status'] == status and seen[name]['whole'] is True
    assert 1 <= seen[name]['iteration'] < ITERATIONS
    assert f"{name.upper()}: stopped after iteration {seen[name]['iteration']}; checkpoint: " in (
        folder / f'{name}.log').read_text()
    assert same(end(folder / name), end(folder / 'straight'))


class Numbers(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        return index


def test_a_loader_worker_ends_by_its_main_process_only():
    """Which sends one signal at its own exit and then waits without end; schedulers signal every process of a run."""
    loader = torch.utils.data.DataLoader(Numbers(), num_workers=2, persistent_workers=True)
    hook = StopSignalHook()
    hook.before_train(SimpleNamespace(train_loop=SimpleNamespace(dataloader=loader), val_loop=None))
    hook.after_train(None)
    batches = iter(loader)
    seen = [int(next(batches)), int(next(batches))]  # one of each worker: both have started
    workers = batches._workers
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
        for worker in workers:
            subprocess.run([sys.executable, '-c', f'import os; os.kill({worker.pid}, {number.value})'], check=True)
    time.sleep(0.5)
    assert all(worker.is_alive() for worker in workers)
    assert sorted([*seen, *(int(batch) for batch in batches)]) == list(range(8))
    for worker in workers:
        os.kill(worker.pid, signal.SIGTERM)
        worker.join(timeout=5)
        assert worker.exitcode == 0


def test_a_full_disk_leaves_the_checkpoint_before(runs):
    folder, seen = runs
    full = seen['full']
    assert full['status'] == 1 and full['after'] == full['before'] >= 2 and full['whole'] is True and not full['left']
    message = (f"iter_{full['before'] + 1}.pth could not be written (File too large). The last whole checkpoint is "
               f"untouched: {folder}/full/iter_{full['before']}.pth. Free space")
    assert message in (folder / 'full.log').read_text()


def test_the_best_checkpoint_and_outdated_ones(mini_cityscapes, tmp_path):
    """save_best and max_keep_ckpts do what they do in mmengine: the same files remain."""
    left = []
    for kind in ('CheckpointHook', 'mmseg_kd.SafeCheckpointHook'):
        work_dir = tmp_path / kind
        config = run_config(segmentor(4), mini_cityscapes, max_iters=6, work_dir=str(work_dir), experiment_name=kind)
        config.train_cfg.val_interval = 2
        config.default_hooks.checkpoint = dict(
            type=kind, by_epoch=False, interval=2, max_keep_ckpts=2, save_best='mIoU')
        Runner.from_cfg(config).train()
        left.append({path.name for path in work_dir.iterdir() if path.suffix == '.pth'} | {
            (work_dir / 'last_checkpoint').read_text().replace(kind, '')})
    assert left[0] == left[1] and any('best_mIoU' in name for name in left[0])


def test_what_a_work_dir_calls_outdated_goes_only_if_it_is_a_checkpoint_there(mini_cityscapes, tmp_path):
    """Neither the note of a stop nor the message hub of a resumed checkpoint reaches anything else."""
    work_dir, elsewhere = tmp_path / 'run', tmp_path / 'iter_9.pth'
    (work_dir / '.unfinished').mkdir(parents=True)
    (work_dir / 'folder').mkdir()
    kept = [elsewhere, work_dir / 'notes.txt', work_dir / 'folder/iter_1.pth', work_dir / 'thesis']
    for path in [*kept, work_dir / 'iter_1.pth']:
        path.write_text('precious')
    (work_dir / 'last_checkpoint').write_text(str(work_dir / 'iter_5.pth'))
    (work_dir / 'link.pth').symlink_to(work_dir / 'folder')
    (work_dir / '.unfinished/outdated.json').write_text(json.dumps(
        [str(elsewhere), '../iter_9.pth', 'notes.txt', 'folder/iter_1.pth', 'folder', '.', '', '/', 7, None, 'link.pth',
         str(work_dir / 'thesis'), 'iter_1.pth']))
    config = run_config(segmentor(4), mini_cityscapes, max_iters=2, work_dir=str(work_dir), experiment_name='stranger')
    config.default_hooks.checkpoint = dict(
        type='mmseg_kd.SafeCheckpointHook', by_epoch=False, interval=2, max_keep_ckpts=1, save_best='mIoU')
    runner = Runner.from_cfg(config)
    runner.message_hub.update_info('best_ckpt', str(elsewhere))
    runner.message_hub.update_info('best_score', -1.)
    runner.message_hub.update_info('keep_ckpt_ids', ['1/../../../iter_9'])
    runner.train()
    assert [path.read_text() for path in kept] == ['precious'] * 4
    assert not (work_dir / 'iter_1.pth').exists() and not (work_dir / 'link.pth').exists()
    assert (work_dir / 'iter_2.pth').is_file()

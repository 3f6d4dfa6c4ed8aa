"""A resumed run against the undisturbed one, bit for bit."""
import os
import random
import shutil
import signal

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import DATA_SAMPLERS, HOOKS
from mmengine.runner import Runner
from tiny import build, command, distilled, run_config, segmentor

from mmseg_kd.engine.exact_resume import _Position, seeded
from mmseg_kd.engine.resume import choose_checkpoint
from mmseg_kd.engine.runner_defaults import add_training_hooks

HOOK = [dict(type='mmseg_kd.ExactResumeHook')]


def same(first, second):
    """Whether two nested states are equal in every bit."""
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(value, second[key]) for key, value in first.items())
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second


def model():
    return distilled(segmentor(), segmentor(16, 'PSPHead'))


def test_command_line_resume_is_exact(mini_cityscapes, tmp_path):
    """20 iterations against 10, a new process, and 10 more; dropout, augmentation, two loader workers, validations."""
    teacher = tmp_path / 'teacher.pth'
    torch.save(build(segmentor(16, 'PSPHead')).state_dict(), teacher)
    config = run_config(distilled(segmentor(), segmentor(16, 'PSPHead'), teacher), mini_cityscapes, max_iters=20)
    config.train_dataloader.num_workers = 2
    config.train_cfg.val_interval = 5
    config.default_hooks.checkpoint.interval = 5
    config.dump(tmp_path / 'config.py')
    tool = ['tools/train.py', tmp_path / 'config.py', '--work-dir']
    command(*tool, tmp_path / 'straight')
    command(*tool, tmp_path / 'broken', '--cfg-options', 'train_cfg.max_iters=10')
    assert not (tmp_path / 'broken/iter_20.pth').exists()
    command(*tool, tmp_path / 'broken', '--resume')
    ends = [torch.load(tmp_path / name / 'iter_20.pth', weights_only=False) for name in ('straight', 'broken')]
    assert same(ends[0]['state_dict'], ends[1]['state_dict'])
    assert same(ends[0]['optimizer'], ends[1]['optimizer'])
    halfway = torch.load(tmp_path / 'broken/iter_10.pth', weights_only=False)
    assert not same(halfway['state_dict'], ends[1]['state_dict'])


def run(data_root, work_dir, max_iters, resume=False, hooks=HOOK, student=None, **settings):
    config = run_config(student or model(), data_root, max_iters=max_iters, work_dir=str(work_dir), resume=resume,
                        custom_hooks=hooks, experiment_name=f'{work_dir}{max_iters}{resume}', **settings)
    config.train_cfg.val_interval = 3
    return {name: value.clone() for name, value in Runner.from_cfg(config).train().state_dict().items()}


@pytest.mark.parametrize('hooks, exact', [(HOOK, True), ([], False)], ids=['with the hook', 'without'])
def test_resume_in_one_process(mini_cityscapes, tmp_path, hooks, exact):
    straight = run(mini_cityscapes, tmp_path / 'straight', 6, hooks=hooks)
    run(mini_cityscapes, tmp_path / 'broken', 3, hooks=hooks)
    assert same(straight, run(mini_cityscapes, tmp_path / 'broken', 6, resume=True, hooks=hooks)) is exact


def test_resume_of_a_run_without_a_seed(mini_cityscapes, tmp_path):
    """mmengine draws a seed and keeps it in the checkpoint; data order must follow that one, not the new process's."""
    unseeded = dict(student=segmentor(), randomness=dict(seed=None))
    run(mini_cityscapes, tmp_path / 'first', 3, **unseeded)
    shutil.copytree(tmp_path / 'first', tmp_path / 'second')
    (tmp_path / 'second/last_checkpoint').write_text(str(tmp_path / 'second/iter_3.pth'))
    ends = [run(mini_cityscapes, tmp_path / name, 6, resume=True, **unseeded) for name in ('first', 'second')]
    assert same(*ends)


def test_resume_of_epochs(mini_cityscapes, tmp_path):
    def epochs(work_dir, number, resume=False):
        config = run_config(
            model(), mini_cityscapes, work_dir=str(work_dir), resume=resume, custom_hooks=HOOK,
            experiment_name=f'{work_dir}{number}{resume}', log_processor=dict(by_epoch=True),
            train_cfg=dict(by_epoch=True, max_epochs=number, val_interval=1))
        config.train_dataloader.sampler.type = 'DefaultSampler'
        config.default_hooks.checkpoint = dict(type='CheckpointHook', interval=1)
        return {name: value.clone() for name, value in Runner.from_cfg(config).train().state_dict().items()}

    straight = epochs(tmp_path / 'straight', 2)
    epochs(tmp_path / 'broken', 1)
    assert same(straight, epochs(tmp_path / 'broken', 2, resume=True))


def mixed(config, by_epoch):
    """Batches of one labelled picture of five and one of eleven without labels."""
    data = config.train_dataloader.dataset
    data.indices = 5
    config.train_dataloader.dataset = dict(
        type='mmseg_kd.WithUnlabelled', labelled=data, unlabelled=dict(data_root=f'{data.data_root}/leftImg8bit'))
    config.train_dataloader.sampler = dict(
        type='mmseg_kd.MixedSampler', labelled=1, unlabelled=1, by_epoch=by_epoch)
    config.train_dataloader.num_workers = 2
    config.model.distill.dkd.positions = 'all'
    return config


@pytest.mark.parametrize('by_epoch', [False, True])
def test_resume_with_unlabelled_pictures(mini_cityscapes, tmp_path, by_epoch):
    def train(work_dir, number, resume=False):
        loop = dict(by_epoch=True, max_epochs=number, val_interval=9) if by_epoch else dict(
            type='IterBasedTrainLoop', max_iters=5 * number, val_interval=99)
        config = mixed(run_config(
            model(), mini_cityscapes, work_dir=str(work_dir), resume=resume, custom_hooks=HOOK,
            experiment_name=f'{work_dir}{number}{resume}', log_processor=dict(by_epoch=by_epoch),
            train_cfg=loop), by_epoch)
        config.default_hooks.checkpoint = dict(type='CheckpointHook', by_epoch=by_epoch, interval=1 if by_epoch else 5)
        return {name: value.clone() for name, value in Runner.from_cfg(config).train().state_dict().items()}

    straight = train(tmp_path / 'straight', 2)
    half = train(tmp_path / 'broken', 1)
    assert not same(straight, half)
    assert same(straight, train(tmp_path / 'broken', 2, resume=True))


def test_samples_differ_between_passes_over_the_data(mini_cityscapes, tmp_path):
    """The seed follows the position in the stream, not the image: epoch two augments anew."""
    config = run_config(model(), mini_cityscapes, max_iters=1, work_dir=str(tmp_path), custom_hooks=HOOK,
                        experiment_name=str(tmp_path))
    runner = Runner.from_cfg(config)
    runner.train()
    dataset = runner.train_dataloader.dataset
    first, again, later = (dataset[_Position(0, position)]['inputs'] for position in (0, 0, 12))
    assert torch.equal(first, again) and not torch.equal(first, later)


def test_sampling_leaves_the_generators_as_they_were():
    before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    with seeded(1, 2, 3):
        drawn = random.random(), np.random.rand(), torch.rand(()).item()
    assert random.getstate() == before[0]
    assert (np.random.get_state()[1] == before[1]).all() and torch.equal(torch.get_rng_state(), before[2])
    with seeded(1, 2, 3):
        assert drawn == (random.random(), np.random.rand(), torch.rand(()).item())
    with seeded(1, 2, 4):
        assert drawn[2] != torch.rand(()).item()


@DATA_SAMPLERS.register_module()
class SortedBatches(torch.utils.data.BatchSampler):
    """Groups samples by what they are, as mmdet's AspectRatioBatchSampler does: not in the order of its sampler."""

    def __iter__(self):
        groups = [], []
        for index in self.sampler:
            group = groups[index % 3 == 0]
            group.append(index)
            if len(group) == self.batch_size:
                yield group[:]
                group.clear()


@DATA_SAMPLERS.register_module()
class GlobalBatches:
    """Asks no sampler: draws its batches, of several sizes, from NumPy's global generator."""

    def __init__(self, sampler, batch_size):
        self.sampler, self.size = sampler, len(sampler)

    def __iter__(self):
        while True:
            yield [np.int64(index) for index in np.random.choice(self.size, np.random.randint(2, 4), replace=False)]

    def __len__(self):
        return self.size


@pytest.mark.parametrize('kind, loop', [('SortedBatches', 'iterations'), ('SortedBatches', 'within an epoch'),
                                        ('GlobalBatches', 'iterations'), (None, 'within an epoch')])
def test_resume_with_any_batch_sampler(mini_cityscapes, tmp_path, kind, loop):
    """A batch sampler of another kind; and a run of epochs that was stopped within one."""
    def settings(stop):
        config = run_config(segmentor(4), mini_cityscapes, max_iters=stop)
        if kind:
            config.train_dataloader.batch_sampler = dict(type=kind)
            if kind == 'SortedBatches':
                config.train_dataloader.batch_sampler.drop_last = False
        if loop != 'iterations':
            config.train_dataloader.sampler.type = 'DefaultSampler'
            config.train_cfg = dict(by_epoch=True, max_epochs=2, val_interval=1)
        config.default_hooks.checkpoint.interval = 1
        return config

    def train(name, stop=9, resume=False):
        config = settings(stop)
        config.update(work_dir=str(tmp_path / name), resume=resume, custom_hooks=HOOK,
                      experiment_name=f'{tmp_path}{name}{resume}')
        runner = Runner.from_cfg(config)
        return runner, {name: value.clone() for name, value in runner.train().state_dict().items()}

    whole, straight = train('whole')
    if loop == 'iterations':
        train('broken', 4)
    else:
        (tmp_path / 'broken').mkdir()
        shutil.copy(tmp_path / 'whole/iter_4.pth', tmp_path / 'broken')
        (tmp_path / 'broken/last_checkpoint').write_text(str(tmp_path / 'broken/iter_4.pth'))
    resumed, end = train('broken', resume=True)
    assert whole.iter == resumed.iter and whole.epoch == resumed.epoch and whole.iter > 4
    assert same(straight, end)


@HOOKS.register_module()
class SignalHook(Hook):
    """The system asks the run to stop in an iteration."""

    def __init__(self, iteration):
        self.iteration = iteration

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter + 1 == self.iteration:
            os.kill(os.getpid(), signal.SIGTERM)


def epochs_of_six(data_root, work_dir, stop=0, counts_epochs=True, resume=False, exact=True):
    """Two epochs of six iterations with both kinds of schedules; the Runner, trained to the end or to the stop."""
    config = run_config(
        model(), data_root, work_dir=str(work_dir), resume=resume, experiment_name=f'{work_dir}{resume}',
        custom_hooks=HOOK * exact + [dict(type='mmseg_kd.StopSignalHook'), dict(type='SignalHook', iteration=stop)],
        param_scheduler=[dict(type='PolyLR', eta_min=1e-4, power=0.9, end=12, by_epoch=False),
                         dict(type='MultiStepLR', milestones=[1], by_epoch=True)],
        train_cfg=dict(by_epoch=True, max_epochs=2, val_interval=1))
    config.train_dataloader.sampler.type = 'DefaultSampler'
    config.default_hooks.checkpoint = dict(
        type='mmseg_kd.SafeCheckpointHook', by_epoch=counts_epochs, interval=1 if counts_epochs else 3)
    choose_checkpoint(config)
    runner = Runner.from_cfg(config)
    if stop:
        with pytest.raises(SystemExit) as stopped:
            runner.train()
        assert stopped.value.code == 128 + signal.SIGTERM
    else:
        runner.train()
    return runner


def test_stop_and_resume_within_an_epoch(mini_cityscapes, tmp_path):
    """Within the first and the second, at the end of one; the checkpoint hook counts epochs, or iterations."""
    straight = epochs_of_six(mini_cityscapes, tmp_path / 'straight')
    expected = torch.load(tmp_path / 'straight/epoch_2.pth', weights_only=False)
    for counts_epochs, stop in ((True, 2), (True, 6), (True, 10), (False, 4)):
        folder = tmp_path / f'{counts_epochs}{stop}'
        assert epochs_of_six(mini_cityscapes, folder, stop, counts_epochs).iter == stop - 1
        end = epochs_of_six(mini_cityscapes, folder, 0, counts_epochs, resume=True)
        assert (end.iter, end.epoch) == (straight.iter, straight.epoch) == (12, 2)
        found = torch.load(folder / ('epoch_2.pth' if counts_epochs else 'iter_12.pth'), weights_only=False)
        assert same(found['state_dict'], expected['state_dict']) and same(found['optimizer'], expected['optimizer'])
        assert end.optim_wrapper.get_lr() == straight.optim_wrapper.get_lr()


def test_stop_within_an_epoch_without_exact_resume_goes_on_from_the_last_whole_one(mini_cityscapes, tmp_path):
    """mmengine would begin the epoch anew but count on: more iterations than asked for."""
    epochs_of_six(mini_cityscapes, tmp_path, 8, exact=False)
    log, = tmp_path.glob('*/*.log')
    assert f'checkpoint: {tmp_path}/stopped.pth; continue with --resume, which goes on from the last whole epoch' in (
        log.read_text())
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'epoch_1.pth')
    assert epochs_of_six(mini_cityscapes, tmp_path, 0, resume=True, exact=False).iter == 12


class Stream(torch.utils.data.IterableDataset):
    """Samples without an index."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __iter__(self):
        return (self.dataset[index] for index in range(len(self.dataset)))

    def __len__(self):
        return len(self.dataset)


def test_what_cannot_be_exact_is_said_and_trains(mini_cityscapes, tmp_path):
    config = run_config(segmentor(4), mini_cityscapes, max_iters=2, work_dir=str(tmp_path), custom_hooks=HOOK,
                        experiment_name=str(tmp_path))
    runner = Runner.from_cfg(config)
    inner = runner.build_dataloader(config.train_dataloader)
    runner._train_dataloader = torch.utils.data.DataLoader(Stream(inner.dataset), 2, collate_fn=inner.collate_fn)
    runner.train()
    assert runner.iter == 2
    log, = tmp_path.glob('*/*.log')
    said = [line for line in log.read_text().splitlines() if 'an IterableDataset have no positions' in line]
    assert len(said) == 1 and 'WARNING' in said[0] and '`exact_resume=False`' in said[0]


def test_what_a_user_leaves_out_stays_out():
    """Every part that tools/train.py adds, by its own setting; one in custom_hooks is not added twice."""
    config = Config(dict(custom_hooks=[dict(type='mmseg_kd.FiniteStepHook', skip=2)], default_hooks=dict(),
                         exact_resume=False, peak_memory=False, distill_statistics=dict(interval=7)))
    said = add_training_hooks(config)
    types = [hook['type'] for hook in config.custom_hooks]
    assert types.count('mmseg_kd.FiniteStepHook') == 1 and config.custom_hooks[0].skip == 2
    assert 'mmseg_kd.ExactResumeHook' not in types and 'mmseg_kd.PeakMemoryHook' not in types
    assert dict(type='mmseg_kd.DistillStatisticsHook', interval=7) in config.custom_hooks
    assert config.default_hooks['checkpoint']['type'] == 'mmseg_kd.SafeCheckpointHook'
    # The log names what was added, and nothing else.
    assert 'stop_signal (StopSignalHook)' in said and 'safe_checkpoint' in said and '=False' in said
    assert not any(name in said for name in ('exact_resume', 'peak_memory', 'finite_step'))
    named = [part.partition(' (')[0] for part in said.partition(': ')[2].partition('. ')[0].split(', ')]
    nothing = Config(dict(dict.fromkeys(named, False), exact_resume=False, peak_memory=False, finite_step=False))
    assert 'of mmseg_kd: nothing.' in add_training_hooks(nothing)
    assert nothing.custom_hooks == [] and nothing.default_hooks == {}
    with pytest.raises(ValueError, match='`stop_signal`: expected False'):
        add_training_hooks(Config(dict(stop_signal=True)))

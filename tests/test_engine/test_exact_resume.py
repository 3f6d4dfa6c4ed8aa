"""A resumed run against the undisturbed one, bit for bit."""
import random
import shutil

import numpy as np
import pytest
import torch
from mmengine.runner import Runner
from tiny import build, command, distilled, run_config, segmentor

from mmseg_kd.engine.exact_resume import ExactResumeHook, _Position, seeded

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


def test_a_batch_sampler_that_cannot_be_counted_is_refused(mini_cityscapes, tmp_path):
    class Odd(torch.utils.data.BatchSampler):
        pass

    config = run_config(model(), mini_cityscapes, work_dir=str(tmp_path), experiment_name='odd')
    runner = Runner.from_cfg(config)
    loader = Runner.build_dataloader(config.train_dataloader, seed=0)
    object.__setattr__(loader, 'batch_sampler', Odd(loader.sampler, 2, False))
    runner._train_dataloader = loader
    runner._train_loop = runner.build_train_loop(dict(type='IterBasedTrainLoop', max_iters=1))
    runner.train_loop.dataloader = loader
    with pytest.raises(ValueError, match='`train_dataloader.batch_sampler`'):
        ExactResumeHook().before_train(runner)

"""Schedules of distillation terms, through mmengine's Runner."""

import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from scheduled import logged, model, run
from tiny import batch, build, run_config

from mmseg_kd.distillers.schedule import read_schedule


def factors(settings, number):
    schedule = read_schedule(settings, 'distill.kd')
    return [schedule.factor(step) for step in range(number)]


def test_warmup_is_linear_and_ends_at_one():
    assert factors(dict(warmup=4), 6) == [0.25, 0.5, 0.75, 1., 1., 1.]


def test_stop_switches_off():
    assert factors(dict(stop=3), 5) == [1., 1., 1., 0., 0.]


def test_both():
    assert factors(dict(warmup=2, stop=4), 6) == [0.5, 1., 1., 1., 0., 0.]


@pytest.mark.parametrize('settings', [
    {}, dict(by_epoch=True), dict(warm_up=3), dict(warmup=-1), dict(warmup=2.5), dict(warmup=True), dict(stop=0),
    dict(stop='never'), dict(warmup=5, stop=5), dict(warmup=3, by_epoch=1), 'linear', [3]])
def test_bad_schedules_are_refused(settings):
    with pytest.raises(ValueError, match=r'`distill\.kd\.schedule`: expected'):
        read_schedule(settings, 'distill.kd')


def test_runner_applies_and_logs_it(mini_cityscapes, tmp_path):
    _, runner = run(mini_cityscapes, tmp_path, dict(warmup=4, stop=5), 6)
    assert logged(runner, 'distill.scale_kd') == [0.25, 0.5, 0.75, 1., 1., 0.]
    losses = runner.message_hub.get_scalar('train/distill.loss_kd').data[0]
    assert losses[5] == 0 and all(losses[:5])


def test_scale_multiplies_the_loss():
    student = build(model(dict(warmup=10)))
    data = student.data_preprocessor(batch(), True)
    values = []
    for scale in (1., 0.25):
        student.terms['kd'].scale = scale
        torch.manual_seed(0)
        values.append(student.loss(data['inputs'], data['data_samples'])['distill.loss_kd'].item())
    assert values[1] == pytest.approx(0.25 * values[0])


def test_the_teacher_rests_after_the_stop():
    student = build(model(dict(stop=1)))
    data = student.data_preprocessor(batch(), True)
    student.terms['kd'].scale = 0.
    calls = []
    student.teacher.model.backbone.register_forward_hook(lambda *_: calls.append(1))
    losses = student.loss(data['inputs'], data['data_samples'])
    assert not calls and losses['distill.loss_kd'] == 0 and losses['distill.loss_kd'].requires_grad


def test_resume_continues_it(mini_cityscapes, tmp_path):
    straight, _ = run(mini_cityscapes, tmp_path / 'straight', dict(warmup=5), 6)
    run(mini_cityscapes, tmp_path / 'broken', dict(warmup=5), 3)
    ends, runner = run(mini_cityscapes, tmp_path / 'broken', dict(warmup=5), 6, resume=True)
    assert all(torch.equal(value, ends[name]) for name, value in straight.items())
    assert logged(runner, 'distill.scale_kd') == [0.8, 1., 1.]


def test_epochs(mini_cityscapes, tmp_path):
    epochs = dict(train_cfg=dict(by_epoch=True, max_epochs=3), log_processor=dict(by_epoch=True))
    config = run_config(model(dict(warmup=2, stop=2 + 1, by_epoch=True)), mini_cityscapes, work_dir=str(tmp_path),
                        experiment_name=str(tmp_path), **epochs)
    config.train_dataloader.sampler.type = 'DefaultSampler'
    config.train_dataloader.batch_size = 6
    config.default_hooks.checkpoint = dict(type='CheckpointHook', interval=3)
    runner = Runner.from_cfg(config)
    seen = []
    step = runner.model.train_step

    def spy(*args, **kwargs):
        logged = step(*args, **kwargs)
        seen.append(runner.model.terms['kd'].scale)
        return logged
    runner.model.train_step = spy
    runner.train()
    assert seen == [0.5, 0.5, 1., 1., 1., 1.]


def test_epochs_in_an_iteration_based_run_are_refused(mini_cityscapes, tmp_path):
    with pytest.raises(ValueError, match=r'`distill\.kd\.schedule`: by_epoch=True needs .* IterBasedTrainLoop'):
        run(mini_cityscapes, tmp_path, dict(warmup=2, by_epoch=True), 2)


def test_a_loop_that_tells_no_iteration_is_refused():
    MessageHub.get_instance('a loop of one\'s own')
    student = build(model(dict(warmup=2)))
    with pytest.raises(ValueError, match=r'`distill\.kd\.schedule`: nothing applies it.*A Runner tells the iteration'):
        student.train().train_step(batch(), OptimWrapper(torch.optim.SGD(student.parameters(), lr=0.1)))


def test_configs_that_name_the_former_hooks_run(mini_cityscapes, tmp_path):
    """Of version 0.1; the log says that they can go."""
    names = ['DistillScheduleHook', 'EmaTeacherHook', 'TrainOnlyStateHook']
    config = run_config(model(dict(warmup=4)), mini_cityscapes, max_iters=1, work_dir=str(tmp_path),
                        experiment_name=str(tmp_path), custom_hooks=[dict(type=f'mmseg_kd.{name}') for name in names])
    runner = Runner.from_cfg(config)
    runner.train()
    assert runner.model.terms['kd'].scale == 0.25
    log, = tmp_path.glob('*/*.log')
    assert all(f'`custom_hooks`: {name} does nothing any more' in log.read_text() for name in names)

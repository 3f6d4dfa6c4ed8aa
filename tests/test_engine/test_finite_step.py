"""Steps that are not finite never reach the optimizer."""
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import HOOKS, OPTIM_WRAPPERS
from mmengine.runner import Runner
from tiny import distilled, run_config, segmentor

from mmseg_kd.engine import FiniteStepHook

NAN = float('nan')


@HOOKS.register_module()
class PoisonHook(Hook):
    """Put NaN into one weight, through `where`, before the given iterations, and take it out again."""

    def __init__(self, where, iterations):
        self.where, self.iterations = where, iterations

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if self.where == 'none':
            return
        module = runner.model.teacher.model if self.where == 'teacher' else runner.model
        self.bias = module.decode_head.conv_seg.bias.data
        self.kept = self.bias.clone()
        if batch_idx + 1 in self.iterations:
            self.bias[0] = NAN

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if self.where != 'none' and batch_idx + 1 in self.iterations:
            self.bias.copy_(self.kept)


@OPTIM_WRAPPERS.register_module()
class ScalerOptimWrapper(OptimWrapper):
    """What mmengine's AmpOptimWrapper does with its GradScaler, on the CPU."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.scaler = torch.amp.GradScaler('cpu', init_scale=2.**127)
        self.scales = []

    def backward(self, loss, **kwargs):
        self.scaler.scale(loss).backward(**kwargs)
        self._inner_count += 1

    def step(self, **kwargs):
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scales.append(self.scaler.get_scale())


def runner_for(data_root, work_dir, where='none', iterations=(), skip=None, max_iters=4, model=None, **settings):
    config = run_config(model or distilled(segmentor(4), segmentor(4, 'PSPHead')), data_root, max_iters=max_iters,
                        work_dir=str(work_dir), experiment_name=str(work_dir), custom_hooks=[
                            dict(type='mmseg_kd.ExactResumeHook'),
                            dict(type='mmseg_kd.FiniteStepHook', **({} if skip is None else dict(skip=skip))),
                            dict(type='PoisonHook', where=where, iterations=iterations)], **settings)
    config.val_dataloader = config.val_evaluator = config.val_cfg = None
    return Runner.from_cfg(config)


def refusal(runner):
    with pytest.raises(FloatingPointError) as caught:
        runner.train()
    return str(caught.value)


def test_a_teacher_that_is_not_finite(mini_cityscapes, tmp_path):
    runner = runner_for(mini_cityscapes, tmp_path, 'teacher', [3])
    before = {}
    step = runner.model.train_step

    def spy(*args, **kwargs):
        before.clear()
        before.update({name: value.clone() for name, value in runner.model.named_parameters()})
        return step(*args, **kwargs)
    runner.model.train_step = spy
    message = refusal(runner)
    assert message.startswith("Iteration 3: distill.loss_dkd = nan. First seen in the teacher's output (logits). "
                              f'Batch: {mini_cityscapes}/leftImg8bit/train/')
    assert message.count('_leftImg8bit.png') == 2 and 'FiniteStepHook' in message
    assert all(torch.equal(value, before[name]) for name, value in runner.model.named_parameters())
    assert not any(parameter.grad is not None and parameter.grad.any() for parameter in runner.model.parameters())


def test_a_student_that_is_not_finite(mini_cityscapes, tmp_path):
    message = refusal(runner_for(mini_cityscapes, tmp_path, 'student', [2]))
    assert message.startswith('Iteration 2: decode.loss_ce = nan, distill.loss_dkd = nan. First seen in the '
                              "student's weights (decode_head.conv_seg.bias).")


def test_a_loss_that_is_not_finite(mini_cityscapes, tmp_path):
    loss = dict(kd=dict(loss=dict(type='mmseg_kd.KDLoss', loss_weight=1e39)))
    model = distilled(segmentor(4), segmentor(4, 'PSPHead'), distill=loss)
    assert refusal(runner_for(mini_cityscapes, tmp_path, model=model)).startswith(
        "Iteration 1: distill.loss_kd = inf. First seen in the student's activations or the loss itself")


def test_images_that_are_not_finite_in_a_plain_model(mini_cityscapes, tmp_path):
    model = segmentor(4)
    model['data_preprocessor']['std'] = [0., 1., 1.]
    message = refusal(runner_for(mini_cityscapes, tmp_path, model=model))
    assert message.startswith('Iteration 1: loss = nan. First seen in the images. Batch: ')


def test_some_steps_may_be_left_out(mini_cityscapes, tmp_path):
    """Weights and batch statistics are those of a run whose learning rate was 0 in these steps."""
    runner = runner_for(mini_cityscapes, tmp_path / 'two', 'student', [2, 3], skip=2)
    weights = runner.train().state_dict()
    assert all(value.isfinite().all() for value in weights.values())
    counts = {value.item() for name, value in weights.items() if name.endswith('num_batches_tracked')}
    assert counts == {2}
    assert runner.message_hub.get_scalar('train/skipped_steps').current() == 2
    message = refusal(runner_for(mini_cityscapes, tmp_path / 'three', 'student', [1, 2, 4], skip=2))
    assert message.startswith('Iteration 4: ') and '2 such steps were left out before' in message


def test_the_steps_of_a_grad_scaler_are_its_own(mini_cityscapes, tmp_path):
    """A loss scale that overflows: the scaler leaves the step out and lowers it; the loss itself is finite."""
    model = distilled(segmentor(4), segmentor(4, 'PSPHead'))
    model['decode_head']['loss_decode']['loss_weight'] = 1e4
    runner = runner_for(mini_cityscapes, tmp_path, model=model, optim_wrapper=dict(
        type='ScalerOptimWrapper', optimizer=dict(type='SGD', lr=1e-6)))
    runner.train()
    scales = runner.optim_wrapper.scales
    assert len(scales) == 4 and scales[-1] < 2.**127


@pytest.mark.parametrize('skip', [-1, 1.5, True])
def test_a_bad_setting(skip):
    from mmseg_kd.engine import FiniteStepHook
    with pytest.raises(ValueError, match='`FiniteStepHook.skip`: expected a whole number >= 0'):
        FiniteStepHook(skip=skip)


def test_a_batch_that_is_left_out_counts_among_accumulated_ones(mini_cityscapes, tmp_path):
    """Three batches to a step, of which the last of the first step and all of the third are left out.

    Expected from a run of plain torch on the gradients of each batch, seen as they come: a step is made of a third of
    the sum of those that are left, and there is none where nothing is left.
    """
    runner = runner_for(mini_cityscapes, tmp_path, 'teacher', [3, 7, 8, 9], skip=4, max_iters=12)
    runner.optim_wrapper['accumulative_counts'] = 3
    runner.param_schedulers = []
    runner.model.init_weights()
    ours = {name: value.detach().double().clone() for name, value in runner.model.named_parameters()}
    momentum = {name: torch.zeros_like(value) for name, value in ours.items()}
    gathered = {name: torch.zeros_like(value) for name, value in ours.items()}
    steps = []
    train_step = runner.model.train_step

    def spy(data, optim_wrapper):
        before = {name: torch.zeros_like(value) if value.grad is None else value.grad.clone()
                  for name, value in runner.model.named_parameters()}
        optimizer, inner = optim_wrapper.optimizer, optim_wrapper.optimizer.step

        def seen(*args, **kwargs):
            steps.append(runner.iter + 1)
            for name, value in runner.model.named_parameters():
                gathered[name] += value.grad.double() - before[name].double()
            for name, value in ours.items():
                momentum[name] = 0.9 * momentum[name] + gathered[name] + 1e-4 * value
                ours[name] = value - 0.01 * momentum[name]
                gathered[name] = torch.zeros_like(value)
            before.clear()
            return inner(*args, **kwargs)
        optimizer.step = seen
        logged = train_step(data, optim_wrapper)
        optimizer.step = inner
        for name, value in runner.model.named_parameters() if before else ():
            if value.grad is not None:
                gathered[name] += value.grad.double() - before[name].double()
        return logged
    runner.model.train_step = spy
    runner.train()
    assert steps == [3, 6, 12] and runner.optim_wrapper._inner_count == 12
    for name, value in runner.model.named_parameters():
        torch.testing.assert_close(value.double(), ours[name], rtol=1e-4, atol=1e-6)


def test_the_norm_of_the_gradients_where_it_is_computed(mini_cityscapes, tmp_path):
    """A finite loss whose gradient overflows: refused, or left out with the weights as they were."""
    class Explodes(torch.autograd.Function):
        @staticmethod
        def forward(ctx, value):
            return value.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * float('inf')

    def exploding(name, iterations, clip=True, **settings):
        optimizer = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01))
        if clip:
            optimizer['clip_grad'] = dict(max_norm=1.)
        runner = runner_for(mini_cityscapes, tmp_path / name, model=segmentor(4), optim_wrapper=optimizer, **settings)
        loss = runner.model.loss

        def explode(*args):
            losses = loss(*args)
            if runner.iter + 1 in iterations:
                losses['decode.loss_ce'] = Explodes.apply(losses['decode.loss_ce'])
            return losses
        runner.model.loss = explode
        return runner
    message = refusal(exploding('refused', [2]))
    assert message.startswith('Iteration 2: the gradient is not finite although the loss is (its norm is ')
    assert f'Batch: {mini_cityscapes}/leftImg8bit/train/' in message
    runner = exploding('left_out', [2], skip=1)
    assert all(value.isfinite().all() for value in runner.train().state_dict().values())
    assert runner.message_hub.get_scalar('train/skipped_steps').current() == 1
    # Nothing is computed for the sake of the check: without clipping there is no norm.
    assert not all(value.isfinite().all() for value in exploding('unclipped', [4], False).train().state_dict().values())


def test_each_of_several_optimizer_wrappers_is_watched():
    model = torch.nn.ModuleDict(dict(one=torch.nn.Linear(2, 1), two=torch.nn.Linear(2, 1)))
    wrappers = OptimWrapperDict(**{name: OptimWrapper(torch.optim.SGD(part.parameters(), lr=0.1))
                                   for name, part in model.items()})
    runner = SimpleNamespace(optim_wrapper=wrappers, model=model, iter=0)
    hook = FiniteStepHook(skip=1)
    hook.before_train(runner)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    hook.before_train_iter(runner, 0, None)
    wrappers['one'].update_params(model['one'](torch.ones(1, 2)).sum())
    hook._batch = dict(inputs=torch.ones(1, 2), data_samples=[])
    model.data_preprocessor = lambda batch, training: batch
    wrappers['two'].update_params(model['two'](torch.ones(1, 2)).sum() * NAN)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {'one.weight', 'one.bias'} and hook.skipped == 1
    hook.after_train(runner)
    assert 'update_params' not in vars(wrappers['one'])

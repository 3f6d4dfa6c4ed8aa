"""Steps that are not finite never reach the optimizer."""
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS, OPTIM_WRAPPERS
from mmengine.runner import Runner
from tiny import distilled, run_config, segmentor

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

"""Steps whose loss is no number do not reach the optimizer."""
import logging

import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from torch import Tensor, nn

from mmseg_kd.registry import HOOKS
from mmseg_kd.step_loss import StepLoss

__all__ = ['FiniteStepHook']


@HOOKS.register_module()
class FiniteStepHook(Hook):
    """Refuse a step whose loss is NaN or infinite before it goes backward.

    The message has the iteration, the terms that are not finite, the files of the batch, and where the trouble is: in
    the images, in the teacher's output, in the student's weights, or behind them. The loss is looked at before a
    ``GradScaler`` scales it, and gradients are not looked at: its own overflowing steps are its own affair.

    Every step costs one read of a number from the device (mmengine's log reads all losses anyway) and, with several
    processes, one exchanged number: all refuse or skip the same step. ``tools/train.py`` adds this hook to every run.

    Args:
        skip: How many such steps of a run are left out with an error in the log, instead of ending it. The student's
            buffers (batch statistics) are then set back to before the step. The log counts them as ``skipped_steps``.

    Raises:
        FloatingPointError: more than ``skip`` steps were not finite.
    """

    def __init__(self, skip: int = 0):
        if isinstance(skip, bool) or not isinstance(skip, int) or skip < 0:
            raise ValueError(f'`FiniteStepHook.skip`: expected a whole number >= 0, got {skip!r}.')
        self.skip = skip
        self.skipped = 0

    def before_train(self, runner) -> None:
        """Stand in front of the optimizer wrapper's update."""
        self._update = runner.optim_wrapper.update_params
        runner.optim_wrapper.update_params = lambda loss, *args, **kwargs: self._step(runner, loss, *args, **kwargs)

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """Remember what a refusal must name, and what a skipped step must restore."""
        self._batch = data_batch
        self._buffers = [buffer.clone() for buffer in runner.model.buffers()] if self.skip else []

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Log how many steps were left out, once there are some."""
        if self.skipped:
            runner.message_hub.update_scalar('train/skipped_steps', self.skipped)

    def after_train(self, runner) -> None:
        """Step aside."""
        del runner.optim_wrapper.update_params

    def _step(self, runner, loss: Tensor, *args, **kwargs) -> None:
        finite = loss.detach().isfinite().all().to(torch.int32)
        everywhere = finite.clone()
        if get_world_size() > 1:
            all_reduce(everywhere, op='min')
        if everywhere:
            self._update(loss, *args, **kwargs)
            return
        message = f'Iteration {runner.iter + 1}: ' + (
            'the loss of another process is not finite, see its message.' if finite else self._describe(runner, loss))
        if self.skipped >= self.skip:
            way_out = ('Lower the learning rate, clip gradients, or leave out up to n such steps with '
                       "custom_hooks=[dict(type='mmseg_kd.FiniteStepHook', skip=n)]." if not self.skip else
                       f'{self.skip} such steps were left out before (FiniteStepHook.skip).')
            raise FloatingPointError(f'{message} The step was refused before the optimizer. {way_out}')
        self.skipped += 1
        for buffer, before in zip(runner.model.buffers(), self._buffers, strict=True):
            buffer.copy_(before)
        print_log(f'{message} Step left out ({self.skipped} of at most {self.skip}).', logger='current',
                  level=logging.ERROR)

    def _describe(self, runner, loss: Tensor) -> str:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        terms = loss.terms if isinstance(loss, StepLoss) else {'loss': loss.detach()}
        terms = {name: value.item() for name, value in terms.items()}
        wrong = ', '.join(f'{name} = {value}' for name, value in terms.items() if value - value != 0)
        samples = self._batch['data_samples'] if isinstance(self._batch, dict) else []
        files = ', '.join(str(getattr(sample, 'img_path', 'without img_path')) for sample in samples)
        return f'{wrong}. First seen in {_origin(model, self._batch)}. Batch: {files}.'


@torch.no_grad()
def _origin(model: nn.Module, batch) -> str:
    """Where a number that is not finite comes from, as far as can be told after the step."""
    data = model.data_preprocessor(batch, True)
    inputs = data['inputs']
    if isinstance(inputs, Tensor) and not inputs.isfinite().all():
        return 'the images'
    for teacher in getattr(model, 'teachers', ()):
        outputs = teacher(inputs, data['data_samples'],
                          {tap for term in model.terms.values() for tap in term.teacher_taps})
        # Logits that are yet to be upsampled are a tensor inside.
        tensors = {name: getattr(value, 'logits', value) for name, value in outputs.items()}
        wrong = [name for name, value in tensors.items() if isinstance(value, Tensor) and not value.isfinite().all()]
        if wrong:
            return f"the teacher's output ({', '.join(wrong)})"
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            return f"the student's weights ({name})"
    return "the student's activations or the loss itself (images, teacher and weights are finite)"

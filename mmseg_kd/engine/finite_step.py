"""Steps whose loss is not a number do not reach the optimizer."""
import logging
from collections.abc import Callable
from functools import partial

import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel

from mmseg_kd.registry import HOOKS
from mmseg_kd.step_loss import Objectives, StepLoss

from .unwrapped import unwrapped

__all__ = ['FiniteStepHook']


class _GradientNotFinite(Exception):
    """Leaves an optimizer wrapper's step before the optimizer runs."""


@HOOKS.register_module()
class FiniteStepHook(Hook):
    """Refuse a step whose loss is NaN or infinite before it goes backward.

    The message has the iteration, the terms that are not finite, the files of the batch, and where the trouble is: in
    the images, in the teacher's output, in the student's weights, or behind them. The loss is looked at before a
    ``GradScaler`` scales it. Where the norm of the gradients is computed anyway, to clip them, a step whose norm is not
    finite is refused as well; the overflowing steps of a ``GradScaler`` are its own affair.

    Every step costs one read of a number from the device (mmengine's log reads all losses anyway) and, with several
    processes, one exchanged number: all refuse or skip the same step. Each of several optimizer wrappers is watched.
    ``tools/train.py`` adds this hook to every run.

    Args:
        skip: How many such steps of a run are left out with an error in the log, instead of ending it. The student's
            buffers (batch statistics) are then set back to before the step. With ``accumulative_counts`` only the batch
            is left out: it counts as one whose gradient is 0, and the others' step is made when it is due. The log
            counts them as ``skipped_steps``.

    Raises:
        FloatingPointError: more than ``skip`` steps were not finite.
        ValueError: ``skip`` with FSDP and accumulated gradients, where a batch cannot be left out.
    """

    def __init__(self, skip: int = 0):
        if isinstance(skip, bool) or not isinstance(skip, int) or skip < 0:
            raise ValueError(f'`FiniteStepHook.skip`: expected a whole number >= 0, got {skip!r}.')
        self.skip = skip
        self.skipped = 0

    def before_train(self, runner) -> None:
        """Stand in front of each optimizer wrapper's update."""
        whole = runner.optim_wrapper
        self._wrappers = list(whole.values()) if isinstance(whole, OptimWrapperDict) else [whole]
        for wrapper in self._wrappers:
            if self.skip and wrapper._accumulative_counts > 1 and isinstance(runner.model, FullyShardedDataParallel):
                raise ValueError('`FiniteStepHook.skip`: with FSDP and `accumulative_counts` a batch cannot be left '
                                 'out; set skip=0.')
            wrapper.update_params = partial(self._step, runner, wrapper, wrapper.update_params)
            if getattr(wrapper, 'clip_grad_kwargs', None) and not hasattr(wrapper, 'loss_scaler'):
                wrapper.clip_func = _Checked(wrapper.clip_func)
        # Batches whose gradients wait for the next step of each wrapper.
        self._waiting = {id(wrapper): 0 for wrapper in self._wrappers}

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
        for wrapper in self._wrappers:
            del wrapper.update_params
            if isinstance(getattr(wrapper, 'clip_func', None), _Checked):
                wrapper.clip_func = wrapper.clip_func.clip

    def _step(self, runner, wrapper: OptimWrapper, update: Callable, loss: Tensor, *args, **kwargs) -> None:
        finite = loss.detach().isfinite().all().to(torch.int32)
        everywhere = finite.clone()
        if get_world_size() > 1:
            all_reduce(everywhere, op='min')
        if everywhere:
            self._waiting[id(wrapper)] += 1
            try:
                update(loss, *args, **kwargs)
            except _GradientNotFinite as error:
                self._leave_out(runner, f'the gradient is not finite although the loss is ({error}). '
                                        f'Batch: {self._files()}.')
                wrapper.zero_grad()
                self._waiting[id(wrapper)] = 0
        else:
            self._leave_out(runner, self._describe(runner, loss, bool(finite)))
            self._count(runner, wrapper, update, loss, *args, **kwargs)
        if wrapper.should_update():
            self._waiting[id(wrapper)] = 0

    def _leave_out(self, runner, why: str) -> None:
        """Count a step that is left out, or refuse it; set the student's buffers back."""
        message = f'Iteration {runner.iter + 1}: {why}'
        if self.skipped >= self.skip:
            way_out = ('Lower the learning rate, clip gradients, or leave out up to n such steps with '
                       "custom_hooks=[dict(type='mmseg_kd.FiniteStepHook', skip=n)]." if not self.skip else
                       f'{self.skip} such steps were left out before (FiniteStepHook.skip).')
            raise FloatingPointError(f'{message} The step was refused before the optimizer. {way_out}') from None
        self.skipped += 1
        for buffer, before in zip(runner.model.buffers(), self._buffers, strict=True):
            buffer.copy_(before)
        print_log(f'{message} Step left out ({self.skipped} of at most {self.skip}).', logger='current',
                  level=logging.ERROR)

    def _count(self, runner, wrapper: OptimWrapper, update: Callable, loss: Tensor, *args, **kwargs) -> None:
        """Let a batch that is left out count, so that all that follows the iteration stays in phase."""
        if not self._waiting[id(wrapper)]:
            # Nothing waits for a step, which would move the weights only by momentum and decay.
            wrapper._inner_count += 1
            return
        # Backward all the same: with several processes the last batch of a step brings the gradients together.
        zero = sum((0. * value).sum() for value in runner.model.parameters() if value.requires_grad)
        if isinstance(loss, StepLoss):
            zero = zero.as_subclass(StepLoss)
            zero.objectives, zero.terms = Objectives(zero.as_subclass(Tensor), zero.as_subclass(Tensor) * 1.), {}
        update(zero, *args, **kwargs)

    def _files(self) -> str:
        samples = self._batch['data_samples'] if isinstance(self._batch, dict) else []
        return ', '.join(str(getattr(sample, 'img_path', 'without img_path')) for sample in samples)

    def _describe(self, runner, loss: Tensor, finite: bool) -> str:
        model = unwrapped(runner.model)
        # A teacher whose weights are shared runs in all processes or in none.
        if finite and not any(getattr(teacher, 'shared', False) for teacher in getattr(model, 'teachers', ())):
            return 'the loss of another process is not finite, see its message.'
        origin = _origin(model, self._batch)
        if finite:
            return 'the loss of another process is not finite, see its message.'
        terms = loss.terms if isinstance(loss, StepLoss) else {'loss': loss.detach()}
        terms = {name: value.item() for name, value in terms.items()}
        wrong = ', '.join(f'{name} = {value}' for name, value in terms.items() if value - value != 0)
        return f'{wrong}. First seen in {origin}. Batch: {self._files()}.'


class _Checked:
    """A clipping function that leaves the step where the norm that it returns is not finite."""

    def __init__(self, clip: Callable):
        self.clip = clip

    def __call__(self, parameters: list[Tensor], *args, **kwargs) -> Tensor | None:
        norm = self.clip(parameters, *args, **kwargs)
        if isinstance(norm, Tensor) and not norm.isfinite().all():
            raise _GradientNotFinite(f'its norm is {norm.item()}')
        return norm


@torch.no_grad()
def _origin(model: nn.Module, batch) -> str:
    """Where a number that is not finite comes from, as far as can be told after the step."""
    data = model.data_preprocessor(batch, True)
    inputs = data['inputs']
    # All of them before anything is looked at: each process must run a shared teacher.
    teachers = getattr(model, 'teachers', ())
    taps = {tap for term in model.terms.values() for tap in term.teacher_taps} if teachers else set()
    answers = [teacher(inputs, data['data_samples'], taps) for teacher in teachers]
    if isinstance(inputs, Tensor) and not inputs.isfinite().all():
        return 'the images'
    for outputs in answers:
        # Logits that are yet to be upsampled are a tensor inside.
        tensors = {name: getattr(value, 'logits', value) for name, value in outputs.items()}
        wrong = [name for name, value in tensors.items() if isinstance(value, Tensor) and not value.isfinite().all()]
        if wrong:
            return f"the teacher's output ({', '.join(wrong)})"
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            return f"the student's weights ({name})"
    return "the student's activations or the loss itself (images, teacher and weights are finite)"

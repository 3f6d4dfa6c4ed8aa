"""Averaging the student into a teacher while a Runner trains."""
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapperDict

from mmseg_kd.registry import HOOKS

__all__ = ['EmaTeacherHook']


@HOOKS.register_module()
class EmaTeacherHook(Hook):
    """Keep ``teacher=dict(type='ema', ...)`` the average of the student's weights.

    It begins as the student begins (behind ``init_weights`` and ``load_from``), and takes in the weights once per step
    that the optimizer made: not in the iterations that only accumulate gradients, nor where a step was skipped. A
    resumed run continues the average; :class:`~.train_only_state.TrainOnlyStateHook` saves it. ``tools/train.py`` adds
    this hook to every run; it does nothing without such a teacher.
    """

    def before_train(self, runner) -> None:
        """Start the average, and watch the optimizer."""
        self._stepped, self._handles = False, []
        model = _model(runner)
        if not getattr(model, 'ema_teachers', ()):
            return
        if runner.iter == 0:
            for teacher in model.ema_teachers:
                teacher.start(model)
        wrapper = runner.optim_wrapper
        wrappers = wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]
        self._handles = [each.optimizer.register_step_post_hook(self._after_step) for each in wrappers]

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Take in the weights if they changed."""
        if self._stepped:
            model = _model(runner)
            for teacher in model.ema_teachers:
                teacher.update(model)
            self._stepped = False

    def after_train(self, runner) -> None:
        """Step aside."""
        for handle in self._handles:
            handle.remove()

    def _after_step(self, optimizer, *_) -> None:
        # Under a GradScaler a fused optimizer is called for every step and leaves the infinite ones out by itself.
        infinite = getattr(optimizer, 'found_inf', None)
        self._stepped |= infinite is None or not bool(infinite)


def _model(runner):
    return runner.model.module if is_model_wrapper(runner.model) else runner.model

"""Schedules of distillation terms, applied while a Runner trains."""
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import EpochBasedTrainLoop

from mmseg_kd.registry import HOOKS

__all__ = ['DistillScheduleHook']


@HOOKS.register_module()
class DistillScheduleHook(Hook):
    """Apply each term's ``schedule=dict(warmup=..., stop=..., by_epoch=...)`` and log its factor.

    Before every iteration a scheduled term's ``scale`` is set from the Runner's iteration or epoch alone, which a
    resumed run restores. The log has it as ``distill.scale_<name>``. ``tools/train.py`` adds this hook to every run; it
    does nothing for terms without a schedule and for models without terms.

    Raises:
        ValueError: a schedule counts epochs, but the training loop counts iterations.
    """

    def before_train(self, runner) -> None:
        """Refuse what cannot be counted before the first step."""
        for name, term in _scheduled(runner).items():
            if term.schedule.by_epoch and not isinstance(runner.train_loop, EpochBasedTrainLoop):
                raise ValueError(
                    f'`distill.{name}.schedule`: by_epoch=True needs a training loop that counts epochs, this run has '
                    f'{type(runner.train_loop).__name__}. Give warmup and stop in iterations, with by_epoch=False.')

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """Set and log the factors of this iteration."""
        for name, term in _scheduled(runner).items():
            term.scale = term.schedule.factor(runner.epoch if term.schedule.by_epoch else runner.iter)
            runner.message_hub.update_scalar(f'train/distill.scale_{name}', term.scale)


def _scheduled(runner) -> dict:
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    terms = getattr(model, 'terms', None)
    return {} if terms is None else {name: term for name, term in terms.items() if term.schedule is not None}

"""Keeping in a checkpoint what exists only for training, outside of the student's weights."""
from contextlib import nullcontext

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from torch.distributed.fsdp import FullyShardedDataParallel

from mmseg_kd.registry import HOOKS

__all__ = ['TrainOnlyStateHook']

_KEY = 'train_only_state'


@HOOKS.register_module()
class TrainOnlyStateHook(Hook):
    """Save and resume auxiliary classifiers and adapters of a distilled model.

    A Runner's checkpoint holds the plain student under ``state_dict``; this hook adds the rest under
    ``train_only_state``, where no plain mmseg looks. ``tools/train.py`` adds it to every run; it does nothing for
    models without such modules.

    Raises:
        ValueError: on resume, the checkpoint lacks the modules that the config trains.
    """

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Add the modules' weights, on the CPU."""
        with _whole(runner.model):
            state = _state(runner.model)
            if state:
                checkpoint[_KEY] = {name: value.detach().cpu().clone() for name, value in state.items()}

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Restore them when a run is resumed; a checkpoint loaded as initial weights has the student alone."""
        wanted = _state(runner.model)
        if not runner._resume or not wanted:
            return
        saved = checkpoint.get(_KEY)
        if saved is None or set(saved) != set(wanted):
            raise ValueError(
                f'`resume`: the checkpoint holds {sorted(saved or ())} of the modules that only training needs, the '
                f'config trains {sorted(wanted)}. Resume with the config and hooks of the interrupted run, or start '
                'from its student with `load_from` and without --resume.')
        with _whole(runner.model, writeback=True):
            _unwrap(runner.model).load_train_only_state(saved)


def _whole(model, writeback: bool = False):
    """Around reading or writing parameters of which FSDP holds but a part in each process."""
    if isinstance(model, FullyShardedDataParallel):
        return FullyShardedDataParallel.summon_full_params(model, writeback=writeback)
    return nullcontext()


def _unwrap(model):
    return model.module if is_model_wrapper(model) else model


def _state(model) -> dict:
    model = _unwrap(model)
    return model.train_only_state() if hasattr(model, 'train_only_state') else {}

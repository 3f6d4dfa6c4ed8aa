"""What a distilled model learns from the Runner that trains it, and what it leaves there, without any hook.

mmengine's MessageHub knows the iteration, and its ``runtime_info`` is part of every checkpoint. So a distilled model
trains, saves and resumes in every Runner, whichever script built it.
"""
import weakref
from contextlib import nullcontext

from mmengine.logging import MessageHub
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel

__all__ = ['TRAIN_ONLY_STATE', 'begin_step']

#: Name of what exists only for training in a checkpoint's ``message_hub.runtime_info``.
TRAIN_ONLY_STATE = 'train_only_state'


class _LiveState:
    """Stands in the MessageHub for a model's ``train_only_state``; a copy of it, as a checkpoint takes one, is that."""

    def __init__(self, model: nn.Module):
        self._model = weakref.ref(model)

    def is_of(self, model: nn.Module) -> bool:
        return self._model() is model

    def __deepcopy__(self, memo) -> dict[str, Tensor]:
        model = self._model()
        if model is None:
            return {}
        # FSDP holds a part of each parameter in each process, and all processes save.
        sharded = None if model.sharded_in is None else model.sharded_in()
        with nullcontext() if sharded is None else FullyShardedDataParallel.summon_full_params(sharded):
            return {name: value.detach().cpu().clone() for name, value in model.train_only_state().items()}


def begin_step(model: nn.Module) -> None:
    """Prepare a distilled model for a training step.

    In the first step of a resumed run, what exists only for training is restored. In every step the terms' schedules
    get their factors from the iteration or epoch, which the log has as ``distill.scale_<name>``. Outside of a Runner
    there is neither; an EMA teacher follows the student everywhere.

    Raises:
        ValueError: on resume, the checkpoint lacks the modules that the config trains; or a schedule counts epochs and
            the run has only one.
    """
    hub = MessageHub.get_current_instance()
    # mmengine's RuntimeInfoHook, which every Runner has, sets it while a training loop runs.
    if hub.get_info('loop_stage') == 'train':
        kept = hub.get_info(TRAIN_ONLY_STATE)
        if not isinstance(kept, _LiveState) or not kept.is_of(model):
            # Weights that nobody loaded are not a resumed run's, whatever iteration an earlier one left behind.
            if hub.get_info('iter') and model.has_loaded:
                _restore(model, kept)
            hub.update_info(TRAIN_ONLY_STATE, _LiveState(model))
        _apply_schedules(model, hub)
    for teacher in model.ema_teachers:
        teacher.follow(model)


def _restore(model: nn.Module, saved: dict | None) -> None:
    wanted = model.train_only_state()
    saved = saved if isinstance(saved, dict) else {}
    if set(saved) != set(wanted):
        raise ValueError(
            f'`resume`: the checkpoint holds {sorted(saved)} of the modules that only training needs, the config '
            f'trains {sorted(wanted)}. Resume with the config of the interrupted run and the version of mmseg_kd that '
            'it ran with, or start from its student with `load_from` and without --resume.')
    # With FSDP the strategy did it, while the parameters could be written.
    if wanted and model.sharded_in is None:
        model.load_train_only_state(saved)


def _apply_schedules(model: nn.Module, hub: MessageHub) -> None:
    for name, term in model.terms.items():
        if term.schedule is None:
            continue
        if term.schedule.by_epoch and hub.get_info('max_epochs') == 1:
            raise ValueError(
                f'`distill.{name}.schedule`: by_epoch=True needs a run of several epochs, this one has 1; a loop that '
                'counts iterations, as IterBasedTrainLoop does, always has 1. Give warmup and stop in iterations, with '
                'by_epoch=False.')
        term.scale = term.schedule.factor(hub.get_info('epoch' if term.schedule.by_epoch else 'iter'))
        hub.update_scalar(f'train/distill.scale_{name}', term.scale)

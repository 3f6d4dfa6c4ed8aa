"""Hooks of version 0.1 whose work a distilled model does itself now; configs that name them still run."""
import logging

from mmengine.hooks import Hook
from mmengine.logging import print_log

from mmseg_kd.registry import HOOKS

__all__ = ['DistillScheduleHook', 'EmaTeacherHook', 'TrainOnlyStateHook']


class _FormerHook(Hook):

    def before_train(self, runner) -> None:
        """Say that it can go."""
        print_log(f'`custom_hooks`: {type(self).__name__} does nothing any more, a distilled model needs no hook for '
                  'that. Remove it.', logger='current', level=logging.WARNING)


@HOOKS.register_module()
class DistillScheduleHook(_FormerHook):
    """Does nothing: terms read the iteration from mmengine's MessageHub."""


@HOOKS.register_module()
class EmaTeacherHook(_FormerHook):
    """Does nothing: an EMA teacher follows the optimizer's steps."""


@HOOKS.register_module()
class TrainOnlyStateHook(_FormerHook):
    """Does nothing: checkpoints have ``train_only_state`` in their ``message_hub``."""

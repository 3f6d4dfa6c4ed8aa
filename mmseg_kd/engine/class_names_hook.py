"""A teacher of other classes is found out before training."""
from mmengine.hooks import Hook

from mmseg_kd.registry import HOOKS

from .unwrapped import unwrapped

__all__ = ['ClassNamesHook']


@HOOKS.register_module()
class ClassNamesHook(Hook):
    """Compare the class names of the training data with those of the teachers whose logits are read.

    A teacher's names are in its checkpoint, if mmengine wrote it, else those of its config's data set; names that are
    not known are not compared. ``tools/train.py`` adds this hook to every run; it does nothing without a teacher.
    ``--cfg-options class_check=False`` leaves it out.

    Raises:
        ValueError: names differ in order, number or kind; the message has both lists.
    """

    def before_train(self, runner) -> None:
        """Compare."""
        model = unwrapped(runner.model)
        if hasattr(model, 'check_class_names'):
            metainfo = getattr(runner.train_dataloader.dataset, 'metainfo', None) or {}
            model.check_class_names(metainfo.get('classes'))

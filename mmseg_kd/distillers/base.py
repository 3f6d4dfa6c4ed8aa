"""What all distilled models share, whichever library their student is from."""
from torch import Tensor, nn

from .taps import check_tap
from .teacher import build_teacher
from .terms import build_terms

__all__ = ['Distilled']

_TRAIN_ONLY = 'distill'


class Distilled:
    """Mixin that makes a model its own distilled form; put it before the model's class.

    The model keeps its parameter names and behaviour. ``teacher`` is a guest (see :class:`~.teacher.Teacher`); all that
    exists only for training lies under the one child ``distill``, which trains like any module but is absent from
    ``state_dict``; :class:`mmseg_kd.engine.TrainOnlyStateHook` keeps it elsewhere in a Runner's checkpoint.
    """

    #: Registry scope of the library that the student is from.
    scope: str

    def _init_distillation(self, teacher: dict, distill: dict, ignore_index: int) -> None:
        """Build teacher and terms and check that they fit the student.

        Raises:
            ValueError: a setting does not fit; the message names it.
        """
        terms = build_terms(distill, ignore_index)
        self.teacher = build_teacher(teacher, self.scope, self.data_preprocessor, self.teacher_logits)
        for term in terms.values():
            check_tap(self, term.student_tap, term.setting, 'student')
            check_tap(self.teacher.model, term.teacher_tap, term.setting, 'teacher')
        self._check_classes(terms)
        self.distill = nn.ModuleDict(dict(terms=terms))
        self.register_state_dict_post_hook(_drop_train_only)
        self.register_load_state_dict_post_hook(_forgive_train_only)

    @property
    def terms(self) -> nn.ModuleDict:
        """The distillation terms by name."""
        return self.distill['terms']

    def train_only_state(self) -> dict[str, Tensor]:
        """State dict of what exists only for training (auxiliary classifiers, adapters)."""
        return self.distill.state_dict()

    def load_train_only_state(self, state: dict[str, Tensor]) -> None:
        """Restore what :meth:`train_only_state` returned; all keys must fit."""
        self.distill.load_state_dict(state)

    def _apply(self, fn, *args, **kwargs):
        self.teacher.apply_fn(fn)
        return super()._apply(fn, *args, **kwargs)


def _drop_train_only(module, state_dict, prefix, local_metadata):
    for key in [key for key in state_dict if key.startswith(f'{prefix}{_TRAIN_ONLY}.')]:
        del state_dict[key]


def _forgive_train_only(module, incompatible_keys):
    missing = incompatible_keys.missing_keys
    # A prefix stands before the name where the model is part of another (an EMA copy).
    missing[:] = [key for key in missing if _TRAIN_ONLY not in key.split('.')[:-1]]

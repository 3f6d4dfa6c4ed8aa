"""The distillation terms that a config names."""
import math

from torch import nn

from mmseg_kd.registry import MODELS

from .schedule import Schedule, read_schedule
from .taps import AUX_LOGITS, LOGITS

__all__ = ['DistillTerm', 'build_terms']

_SETTINGS = ('loss', 'on', 'schedule')


class DistillTerm(nn.Module):
    """One loss and where it reads.

    Args:
        name: Its key in ``distill``; it is logged as ``distill.loss_<name>``.
        loss: A built loss, called as ``loss(student, teacher, target)``.
        student_tap: What it reads of the student: ``'logits'``, ``'aux_logits'`` or a module's name.
        teacher_tap: The same of the teacher, which has no ``'aux_logits'``.
        schedule: When it counts; None: always.

    Attributes:
        scale: Factor on the loss: 1, or what :class:`mmseg_kd.engine.DistillScheduleHook` makes of the schedule; None
            until the hook has spoken.
    """

    def __init__(self, name: str, loss: nn.Module, student_tap: str, teacher_tap: str,
                 schedule: Schedule | None = None):
        super().__init__()
        self.name = name
        self.loss = loss
        self.student_tap = student_tap
        self.teacher_tap = teacher_tap
        self.schedule = schedule
        self.scale: float | None = 1. if schedule is None else None

    @property
    def setting(self) -> str:
        """Name of the term's place in the config, for messages."""
        return f'distill.{self.name}.on'

    def extra_repr(self) -> str:
        return f'student_tap={self.student_tap!r}, teacher_tap={self.teacher_tap!r}, schedule={self.schedule}'

    def current_scale(self) -> float:
        """Factor of this step.

        Raises:
            ValueError: the term has a schedule and nothing that applies it.
        """
        if self.scale is None:
            raise ValueError(f"`distill.{self.name}.schedule`: nothing applies it. Train with our tools/train.py, or "
                             "add custom_hooks=[dict(type='mmseg_kd.DistillScheduleHook')] to the config.")
        return self.scale


def build_terms(distill: dict, ignore_index: int | None) -> nn.ModuleDict:
    """Build ``distill=dict(<name>=dict(loss=dict(type=...), on='logits', schedule=None), ...)``.

    Args:
        distill: The terms by name.
        ignore_index: The student's ignore label, for losses whose config names none; None: every label counts.

    Raises:
        ValueError: no terms, a malformed one, or a setting that a term does not know.
    """
    if not isinstance(distill, dict) or not distill:
        raise ValueError(f"`distill`: expected dict(<name>=dict(loss=dict(type='mmseg_kd.DKDLoss', ...))), got "
                         f"{distill!r}.")
    return nn.ModuleDict({name: _build_term(name, settings, ignore_index) for name, settings in distill.items()})


def _build_term(name: str, settings: dict, ignore_index: int | None) -> DistillTerm:
    where = f'distill.{name}'
    if not name.isidentifier():
        raise ValueError(f'`distill`: a term is named by letters, digits and "_" (it becomes a key of the log), got '
                         f'{name!r}.')
    if not isinstance(settings, dict) or not isinstance(settings.get('loss'), dict):
        raise ValueError(f"`{where}`: expected dict(loss=dict(type=...), on='logits'), got {settings!r}.")
    unknown = set(settings) - set(_SETTINGS)
    if unknown:
        raise ValueError(f'`{where}`: unknown setting {sorted(unknown)}; expected {list(_SETTINGS)}. Settings of the '
                         'loss itself belong into `loss`.')
    weight = settings['loss'].get('loss_weight', 1.)
    if not math.isfinite(weight) or weight < 0:
        raise ValueError(f'`{where}.loss.loss_weight`: expected a finite number >= 0, got {weight!r}.')
    loss = MODELS.build(settings['loss'])
    if 'ignore_index' not in settings['loss'] and hasattr(loss, 'ignore_index'):
        loss.ignore_index = ignore_index
    schedule = read_schedule(settings.get('schedule'), where)
    return DistillTerm(name, loss, *_taps(settings.get('on', LOGITS), where), schedule)


def _taps(on, where: str) -> tuple[str, str]:
    # Only the student has a second classifier; it learns the teacher's only logits.
    if isinstance(on, str):
        pair = (on, LOGITS if on == AUX_LOGITS else on)
    else:
        pair = tuple(on) if isinstance(on, (list, tuple)) else ()
    if len(pair) != 2 or not all(isinstance(tap, str) for tap in pair):
        raise ValueError(f"`{where}.on`: expected 'logits', 'aux_logits', a module's name, or a (student, teacher) "
                         f'pair of those, got {on!r}.')
    return pair

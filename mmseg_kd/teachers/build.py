"""The teachers that a config names: one, or several with weights."""
import math
from collections.abc import Sequence

from torch import nn

from .ema import build_ema_teacher
from .guest import Teacher, build_teacher

__all__ = ['build_teachers']


def build_teachers(settings: dict | Sequence[dict], scope: str, student: nn.Module,
                   logits) -> tuple[tuple[Teacher, ...], tuple[float, ...]]:
    """Build what ``teacher=dict(...)`` or ``teacher=[dict(..., weight=...), ...]`` names.

    Args:
        settings: One teacher, see :func:`~.guest.build_teacher`, or ``dict(type='ema', ...)``, see
            :class:`~.ema.EmaTeacher`; or a list of those. ``weight`` of one in a list is a factor on all losses
            against it; without weights each has 1 / number, so that the loss is the mean over the teachers.
        scope: Registry scope in which a config's types are looked up.
        student: The student, which has no teacher yet.
        logits: Computes the logits from (model, images).

    Returns:
        The teachers and their weights.

    Raises:
        ValueError: a setting that does not fit; the message names it.
    """
    if not isinstance(settings, (list, tuple)):
        return (_build(settings, scope, student, logits), ), (1., )
    weights = _weights(settings)
    return tuple(_build({name: value for name, value in each.items() if name != 'weight'}, scope, student, logits)
                 for each in settings), weights


def _weights(settings: Sequence[dict]) -> tuple[float, ...]:
    if not settings or not all(isinstance(each, dict) for each in settings):
        raise ValueError('`teacher`: expected dict(config=..., checkpoint=...) or a list of those, got '
                         f'{settings!r}.')
    given = ['weight' in each for each in settings]
    if not any(given):
        return (1. / len(settings), ) * len(settings)
    weights = tuple(each.get('weight') for each in settings)
    for weight in weights:
        number = isinstance(weight, (int, float)) and not isinstance(weight, bool) and math.isfinite(weight)
        if not number or weight < 0:
            raise ValueError('`teacher.weight`: expected a finite number >= 0 for each teacher of the list, or for '
                             f'none (then each counts 1 / {len(settings)}), got {list(weights)}.')
    return weights


def _build(settings: dict, scope: str, student: nn.Module, logits) -> Teacher:
    if isinstance(settings, dict) and settings.get('type') == 'ema':
        return build_ema_teacher(settings, student, logits)
    return build_teacher(settings, scope, student.data_preprocessor, logits)

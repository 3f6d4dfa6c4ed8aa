"""The teachers that a config names: one, or several with weights."""
import difflib
import math
from collections.abc import Sequence

from torch import nn

from .cached import CachedTeacher, build_cached_teacher
from .class_map import ClassMap
from .ema import build_ema_teacher
from .exported import build_exported_teacher
from .guest import Teacher
from .host import Host
from .huggingface import build_huggingface_teacher
from .module import build_module_teacher
from .openmmlab import build_openmmlab_teacher
from .own_network import build_own_network_teacher
from .probe import input_channels
from .timm import build_timm_teacher

__all__ = ['build_teacher', 'build_teachers']

# What a teacher is made of, by its `type`; without one it is a config of OpenMMLab's, or a cache.
_KINDS = dict(ema=build_ema_teacher, exported=build_exported_teacher, huggingface=build_huggingface_teacher,
              module=build_module_teacher, timm=build_timm_teacher)


def build_teachers(settings: dict | Sequence[dict], host: Host) -> tuple[tuple[Teacher, ...], tuple[float, ...]]:
    """Build what ``teacher=dict(...)`` or ``teacher=[dict(..., weight=...), ...]`` names.

    Args:
        settings: One teacher, see :func:`build_teacher`, or a list of those. ``weight`` of one in a list is a factor
            on all losses against it; without weights each has 1 / number, so that the loss is the mean over the
            teachers.
        host: What is known of the student.

    Returns:
        The teachers and their weights.

    Raises:
        ValueError: a setting that does not fit; the message names it.
    """
    if not isinstance(settings, (list, tuple)):
        return (build_teacher(settings, host), ), (1., )
    settings = [dict(network=each) if isinstance(each, nn.Module) else each for each in settings]
    weights = _weights(settings)
    return tuple(build_teacher({name: value for name, value in each.items() if name != 'weight'}, host)
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


def build_teacher(settings: dict, host: Host) -> Teacher | CachedTeacher:
    """Build one teacher.

    Args:
        settings: ``class_map`` of any kind says which of its classes are which, see :class:`~.class_map.ClassMap`; the
            rest is its kind's. ``dict(config=..., checkpoint=...)``, see :func:`~.openmmlab.build_openmmlab_teacher`;
            ``dict(cache=...)``, see :func:`~.cached.build_cached_teacher`; an ``nn.Module`` or ``dict(network=...)``,
            see :func:`~.own_network.build_own_network_teacher`; or ``dict(type=..., ...)``, where ``type``
            is ``'huggingface'`` (see :func:`~.huggingface.build_huggingface_teacher`), ``'module'`` (see
            :func:`~.module.build_module_teacher`), ``'timm'`` (see :func:`~.timm.build_timm_teacher`), ``'exported'``
            (see :func:`~.exported.build_exported_teacher`) or ``'ema'`` (see :class:`~.ema.EmaTeacher`).
        host: What is known of the student.

    Raises:
        ValueError: a setting that does not fit; the message names it.
    """
    class_map = settings.get('class_map') if isinstance(settings, dict) else None
    if class_map is not None:
        settings = {name: value for name, value in settings.items() if name != 'class_map'}
    teacher = _build(settings, host)
    if class_map is not None:
        if teacher.no_logits:
            raise ValueError(f'`teacher.class_map`: {teacher.no_logits}, so that there is nothing to map. Remove it.')
        teacher.class_map = ClassMap(class_map, teacher.classes, teacher.num_classes, host.num_classes)
    own, its = input_channels(host.student), input_channels(teacher.model)
    if None not in (own, its) and own != its:
        raise ValueError(f'`{teacher.setting}`: the teacher takes images of {its} channels, the student of {own} (the '
                         "first convolution of each, `backbone.in_channels` of OpenMMLab's models), and both see the "
                         'same images. Take a teacher of the same kind of images.')
    return teacher


def _build(settings: dict, host: Host) -> Teacher | CachedTeacher:
    if isinstance(settings, nn.Module) or isinstance(settings, dict) and 'network' in settings:
        return build_own_network_teacher(settings, host)
    if isinstance(settings, dict) and settings.get('cache') is not None:
        return build_cached_teacher(settings)
    kind = settings.get('type') if isinstance(settings, dict) else None
    if kind is not None:
        if kind not in _KINDS:
            near = difflib.get_close_matches(str(kind), _KINDS, n=1)
            raise ValueError(f'`teacher.type`: expected one of {sorted(_KINDS)}, or no `type` and `config`, got '
                             f'{kind!r}{f"; did you mean {near[0]!r}?" if near else "."}')
        return _KINDS[kind]({name: value for name, value in settings.items() if name != 'type'}, host)
    return build_openmmlab_teacher(settings, host)

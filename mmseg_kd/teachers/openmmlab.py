"""A teacher that an OpenMMLab config describes."""
import logging
from collections.abc import Callable, Collection

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from torch import Tensor, nn

from mmseg_kd.config import plain_settings, read_config
from mmseg_kd.registry import MODELS

from .class_names import names_in_config
from .guest import Teacher
from .host import Host, number_of_classes
from .normalization import Renormalize
from .speed import TeacherSpeed, read_speed
from .weights import load_into, read_weights

__all__ = ['build_openmmlab_teacher', 'what_features_need']

_SETTINGS = ('config', 'checkpoint', *TeacherSpeed._fields, 'sha256', 'trusted', 'shard')


def build_openmmlab_teacher(settings: dict, host: Host) -> Teacher:
    """Build the teacher that ``teacher=dict(config=..., checkpoint=...)`` names.

    The student's random numbers are untouched: it is initialised as if there were no teacher.

    Args:
        settings: ``config`` (path, ``'mmseg::...'``, dict or Config) and ``checkpoint`` (file or URL; absent: random
            weights, with a warning); ``dtype``, ``channels_last`` and ``compile`` as in
            :class:`~.speed.TeacherSpeed`. ``sha256`` is what the file must have; ``trusted=True`` unpickles it
            as a whole; ``shard=True`` spreads the weights over the processes.
        host: What is known of the student.

    Raises:
        ValueError: an unknown or missing setting, an unreadable config or checkpoint, or one that does not fit.
    """
    if not isinstance(settings, dict) or 'config' not in settings:
        raise ValueError('`teacher`: expected dict(config=..., checkpoint=...), where `config` is a path, a '
                         f'"mmseg::..." name, a dict or a Config, got {settings!r}.')
    unknown = set(settings) - set(_SETTINGS)
    if unknown:
        raise ValueError(f'`teacher`: unknown setting {sorted(unknown)}; expected `config`, `checkpoint`, '
                         f'{", ".join(f"`{name}`" for name in _SETTINGS[2:])}.')
    speed = read_speed(settings)
    config = read_config(settings['config'])
    model = _build(config, host.scope)
    checkpoint = settings.get('checkpoint')
    classes = None
    if checkpoint is None:
        print_log('The teacher has no `teacher.checkpoint`: it is distilled from with RANDOM weights.',
                  logger='current', level=logging.WARNING)
    else:
        weights = read_weights(checkpoint, sha256=settings.get('sha256'), trusted=settings.get('trusted', False))
        load_into(model, weights, 'teacher.checkpoint', checkpoint, 'teacher.config')
        classes = weights.classes
    no_logits = None
    if host.head_name is not None and getattr(model, host.head_name, None) is None:
        no_logits = f'`teacher.config`: a {type(model).__name__} without `{host.head_name}` has no logits'
    return Teacher(model, host.logits, Renormalize(host.preprocessor, model.data_preprocessor), speed,
                   checkpoint is not None, settings.get('shard', False), classes or names_in_config(config, host.scope),
                   number_of_classes(model), no_logits, what_features_need(_forward if no_logits else host.logits))


def _build(config: Config, scope: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        return MODELS.build(plain_settings(config, scope))


def what_features_need(whole: Callable[[nn.Module, Tensor], object]) -> Callable:
    """Runs backbone, or backbone and neck, where the modules lie there, else the ``whole`` model."""
    def run(model: nn.Module, images: Tensor, taps: Collection[str]) -> None:
        parts = {tap.split('.')[0].split('[')[0] for tap in taps}
        if parts == {'backbone'}:
            model.backbone(images)
        elif parts <= {'backbone', 'neck'} and hasattr(model, 'extract_feat'):
            model.extract_feat(images)
        else:
            whole(model, images)
    return run


def _forward(model: nn.Module, images: Tensor) -> object:
    """mmengine's models answer to ``mode``; 'tensor' is a plain forward pass."""
    return model(images, mode='tensor')

"""The teacher: a guest in the student's training."""
import logging
from collections.abc import Collection, Sequence
from contextlib import nullcontext

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from torch import Tensor, nn

from mmseg_kd.config import plain_settings, read_config
from mmseg_kd.registry import MODELS
from mmseg_kd.taps import LOGITS, module_outputs

from .cached import CachedTeacher, build_cached_teacher
from .class_names import names_in_config
from .normalization import Renormalize
from .sharding import shard
from .speed import AS_TRAINED, TeacherSpeed, read_speed
from .weights import load_into, read_weights

__all__ = ['Teacher', 'build_teacher']

_SETTINGS = ('config', 'checkpoint', *TeacherSpeed._fields, 'sha256', 'trusted', 'shard')


class Teacher:
    """A frozen model that is no part of the student.

    It is deliberately no ``nn.Module``, so that assigning it to one registers nothing: it is in no ``state_dict``, no
    optimizer, no EMA copy (copies share it) and no DDP bucket. It is in eval mode as a whole (dropout and BatchNorm
    alike), takes no gradient, and runs under ``no_grad``. Its owner moves it through :meth:`apply_fn`.

    Args:
        model: The built model with its weights.
        logits: Computes the logits from (model, images (N, 3, H, W)), or several answers by tap.
        renormalize: Turns the student's images into the teacher's.
        speed: Precision, memory format and compilation.
        has_weights: Whether the weights are trained ones; False: random.
        shard: Whether the processes of a run share the weights, each holding a part (see :func:`~.sharding.shard`).
        classes: Names of the classes of the logits; None: not known.
    """

    def __init__(self, model: nn.Module, logits, renormalize: Renormalize, speed: TeacherSpeed = AS_TRAINED,
                 has_weights: bool = True, shard: bool = False, classes: Sequence[str] | None = None):
        self.model = speed.prepare_model(model.eval().requires_grad_(False))
        self._logits = speed.prepare_function(logits)
        self.renormalize = renormalize
        self.speed = speed
        self.has_weights = has_weights
        self._to_be_sharded = shard
        self.classes = classes

    @torch.no_grad()
    def __call__(self, inputs: Tensor, data_samples: Sequence, taps: Collection[str], *scored) -> dict[str, Tensor]:
        """Run the teacher once.

        Args:
            inputs: Images (N, 3, H, W) as the student sees them.
            data_samples: Their data samples; labels are not read.
            taps: What to return: ``'logits'`` and names of modules.
            *scored: Passed on to ``logits``.

        Returns:
            Tap to tensor, without gradient.

        Raises:
            ValueError: a compiled teacher is asked for more than its logits.
        """
        if self.speed.compile is not None and set(taps) - {LOGITS}:
            raise ValueError(f"`teacher.compile`: a compiled teacher gives its 'logits' alone, but a term reads "
                             f'{sorted(set(taps) - {LOGITS})}. Remove `compile`.')
        self._settle(inputs.device)
        inputs = self.speed.prepare_images(self.renormalize(inputs, data_samples))
        # Weights in a precision of their own leave nothing to autocast.
        own = nullcontext() if self.speed.dtype is None else torch.autocast(inputs.device.type, enabled=False)
        with own, module_outputs(self.model, taps) as outputs:
            answers = self._logits(self.model, inputs, *scored)
            outputs.update(answers if isinstance(answers, dict) else {LOGITS: answers})
        return outputs

    def _settle(self, device: torch.device) -> None:
        """Be where the images are; FSDP moves the student's parameters one by one, which no guest notices."""
        parameter = next(self.model.parameters(), None)
        if parameter is not None and parameter.device != device:
            self.model.to(device)
        if self._to_be_sharded:
            shard(self.model, device)
            self._to_be_sharded = False

    def apply_fn(self, fn) -> None:
        """Follow ``nn.Module._apply`` of the owner: device and dtype moves."""
        self.model._apply(fn)

    def __deepcopy__(self, memo) -> 'Teacher':
        return self

    def __repr__(self) -> str:
        size = sum(parameter.numel() for parameter in self.model.parameters())
        return f'Teacher({type(self.model).__name__}, {size / 1e6:.2f} M parameters, frozen)'


def build_teacher(settings: dict, scope: str, student_preprocessor: nn.Module, logits) -> Teacher | CachedTeacher:
    """Build the teacher that ``teacher=dict(config=..., checkpoint=...)`` names.

    The student's random numbers are untouched: it is initialised as if there were no teacher.

    Args:
        settings: ``config`` (path, ``'mmseg::...'``, dict or Config) and ``checkpoint`` (file or URL; absent: random
            weights, with a warning); ``dtype``, ``channels_last`` and ``compile`` as in
            :class:`~.speed.TeacherSpeed`. ``sha256`` is what the file must have; ``trusted=True`` unpickles it
            as a whole; ``shard=True`` spreads the weights over the processes. Or ``cache``, a folder of
            ``tools/cache_teacher.py``.
        scope: Registry scope in which the config's types are looked up unless it names its own ``default_scope``.
        student_preprocessor: The student's data preprocessor.
        logits: Computes the logits from (model, images).

    Raises:
        ValueError: an unknown or missing setting, an unreadable config or checkpoint, or one that does not fit.
    """
    if isinstance(settings, dict) and settings.get('cache') is not None:
        return build_cached_teacher(settings)
    if not isinstance(settings, dict) or 'config' not in settings:
        raise ValueError('`teacher`: expected dict(config=..., checkpoint=...), where `config` is a path, a '
                         f'"mmseg::..." name, a dict or a Config, got {settings!r}.')
    unknown = set(settings) - set(_SETTINGS)
    if unknown:
        raise ValueError(f'`teacher`: unknown setting {sorted(unknown)}; expected `config`, `checkpoint`, '
                         f'{", ".join(f"`{name}`" for name in _SETTINGS[2:])}.')
    speed = read_speed(settings)
    config = read_config(settings['config'])
    model = _build(config, scope)
    checkpoint = settings.get('checkpoint')
    classes = None
    if checkpoint is None:
        print_log('The teacher has no `teacher.checkpoint`: it is distilled from with RANDOM weights.',
                  logger='current', level=logging.WARNING)
    else:
        weights = read_weights(checkpoint, sha256=settings.get('sha256'), trusted=settings.get('trusted', False))
        load_into(model, weights, 'teacher.checkpoint', checkpoint, 'teacher.config')
        classes = weights.classes
    renormalize = Renormalize(student_preprocessor, model.data_preprocessor)
    return Teacher(model, logits, renormalize, speed, checkpoint is not None, settings.get('shard', False),
                   classes or names_in_config(config, scope))


def _build(config: Config, scope: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        return MODELS.build(plain_settings(config, scope))

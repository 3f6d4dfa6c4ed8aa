"""The distillation terms that a config names."""
import difflib
import math
from collections.abc import Collection, Sequence

from torch import Tensor, nn

from mmseg_kd import losses
from mmseg_kd.config_names import type_name
from mmseg_kd.losses import DistillationLoss
from mmseg_kd.registry import MODELS
from mmseg_kd.taps import AUX_LOGITS, LOGITS, is_module

from .adapters import check_adapter
from .schedule import Schedule, read_schedule

__all__ = ['DistillTerm', 'as_map', 'build_loss', 'build_terms', 'taps_of']

_SETTINGS = ('loss', 'on', 'weight', 'adapter', 'schedule')
#: What a term of a model with dense logits may say as well, and the values; the first is the default.
_CHOICES = dict(positions=('labelled', 'all', 'unlabelled'), target=('label', 'teacher'), size=('label', 'head'))


class DistillTerm(nn.Module):
    """One loss and where it reads.

    Args:
        name: Its key in ``distill``; it is logged as ``distill.loss_<name>``.
        loss: A built loss, called as ``loss(student, teacher, target)`` for each pair of taps; the values are added.
        student_taps: What it reads of the student: ``'logits'``, ``'aux_logits'`` or modules' names.
        teacher_taps: The same of a teacher, which has no ``'aux_logits'``; one for each of the student's.
        schedule: When it counts; None: always.
        adapter_settings: ``adapter`` of the config; None: features are compared as they are.
        weight: How positions count beside each other (see ``positions`` of :mod:`~.segmentation` and
            :mod:`~.detection`); a number: the teacher's confidence below which they are left out; None: alike, or as in
            a detector's own loss.
        positions: Which positions of dense logits count: those with a label, ``'all'``, or those of pictures without
            labels.
        target: Whose class a loss that needs one takes where there is a label; elsewhere it is the teacher's.
        size: Where dense logits are compared: at the size of the labels or of the student's head.
        ignore_index: The label of positions that are left out as not labelled; None: labels leave none out.
        void: The label that stands where there is none; of the two the only one that the other ``positions`` need.

    Attributes:
        setting: Name of ``on`` in the config, for messages.
        reads_logits: Whether logits of student or teacher are compared.
        reads_features: Whether the output of a module is compared.
        student_features: Whether it is the output of a module of the student.
        scale: Factor on the loss: 1, or what the schedule makes of the iteration (see :mod:`~.runner_state`); None
            until that is known.
        adapters: One trained adapter a teacher; empty without ``adapter``.
    """

    def __init__(self, name: str, loss: nn.Module, student_taps: Sequence[str], teacher_taps: Sequence[str],
                 schedule: Schedule | None = None, adapter_settings: dict | None = None,
                 weight: str | float | None = None, positions: str = 'labelled', target: str = 'label',
                 size: str = 'label', ignore_index: int | None = None, void: int | None = None):
        super().__init__()
        self.name = name
        self.setting = f'distill.{name}.on'
        self.weight = weight
        self.positions = positions
        self.target = target
        self.size = size
        self.ignore_index = ignore_index
        self.void = void
        self.loss = loss
        self.student_taps = tuple(student_taps)
        self.teacher_taps = tuple(teacher_taps)
        taps = (*self.student_taps, *self.teacher_taps)
        self.reads_logits, self.reads_features = not all(map(is_module, taps)), any(map(is_module, taps))
        self.student_features = is_module(self.student_taps[0])
        self.schedule = schedule
        self.scale: float | None = 1. if schedule is None else None
        self.adapter_settings = adapter_settings
        self.adapters = nn.ModuleList()

    @property
    def student_tap(self) -> str | tuple[str, ...]:
        """What it reads of the student: the one tap, or all of several."""
        return self.student_taps[0] if len(self.student_taps) == 1 else self.student_taps

    @property
    def teacher_tap(self) -> str | tuple[str, ...]:
        """What it reads of a teacher: the one tap, or all of several."""
        return self.teacher_taps[0] if len(self.teacher_taps) == 1 else self.teacher_taps

    def extra_repr(self) -> str:
        chosen = ''.join(f', {name}={getattr(self, name)!r}' for name, values in _CHOICES.items()
                         if getattr(self, name) != values[0])
        return f'student_tap={self.student_tap!r}, teacher_tap={self.teacher_tap!r}, schedule={self.schedule}{chosen}'

    def current_scale(self) -> float:
        """Factor of this step.

        Raises:
            ValueError: the term has a schedule and nothing that applies it.
        """
        if self.scale is None:
            raise ValueError(f'`distill.{self.name}.schedule`: nothing applies it. A Runner tells the iteration; in a '
                             f"loop of your own set `model.terms['{self.name}'].scale` before each step, to "
                             '`schedule.factor(iteration)`.')
        return self.scale

    def adapted(self, teacher: int, features: list[Tensor], sizes: list[tuple[int, ...]]) -> list[Tensor]:
        """The student's features (or logits) as they are compared with those of a teacher.

        Args:
            teacher: Number of the teacher.
            features: One value a tap; for an adapter a vector (N, C) is a map of one position.
            sizes: Spatial sizes of the teacher's.
        """
        if not self.adapters:
            return features
        return self.adapters[teacher]([as_map(each) for each in features], [tuple(size) or (1, 1) for size in sizes])

    def zero(self, features: list[Tensor]) -> Tensor:
        """A zero with a graph through all that the term trains: optimizer and DDP see every parameter in every step."""
        values = [*features]
        for index in range(len(self.adapters)):
            values += self.adapted(index, features, [value.shape[2:] for value in features])
        return sum(0. * value.sum() for value in values)


def as_map(features: Tensor) -> Tensor:
    """Features (N, C, h, w); pooled ones, (N, C), as a map of one position."""
    return features[:, :, None, None] if features.dim() == 2 else features


def build_terms(distill: dict, ignore_index: int | None, weights: Collection[str] = (),
                dense: bool = False) -> nn.ModuleDict:
    """Build ``distill=dict(<name>=dict(loss=dict(type=...), on='logits', adapter=None, schedule=None), ...)``.

    Args:
        distill: The terms by name; ``loss`` may be a module as well, which gets the model's ``ignore_index``.
        ignore_index: The student's ignore label, for losses whose config names none; None: every label counts.
        weights: What a term's ``weight`` may be, beside None.
        dense: Whether the logits are maps: then a term may choose ``positions``, ``target`` and ``size``, and
            ``weight`` may be a threshold.

    Raises:
        ValueError: no terms, a malformed one, or a setting that a term does not know.
    """
    if not isinstance(distill, dict) or not distill:
        raise ValueError(f"`distill`: expected dict(<name>=dict(loss=dict(type='mmseg_kd.DKDLoss', ...))), got "
                         f"{distill!r}.")
    return nn.ModuleDict({name: _build_term(name, settings, ignore_index, weights, dense)
                          for name, settings in distill.items()})


def _build_term(name: str, settings: dict, ignore_index: int | None, weights: Collection[str],
                dense: bool) -> DistillTerm:
    where = f'distill.{name}'
    if not name.isidentifier():
        raise ValueError(f'`distill`: a term is named by letters, digits and "_" (it becomes a key of the log), got '
                         f'{name!r}.')
    if not isinstance(settings, dict) or not isinstance(settings.get('loss'), (dict, nn.Module)):
        raise ValueError(f"`{where}`: expected dict(loss=dict(type=...), on='logits'), got {settings!r}.")
    known = (*_SETTINGS, *(_CHOICES if dense else ()))
    unknown = set(settings) - set(known)
    if unknown:
        raise ValueError(f'`{where}`: unknown setting {sorted(unknown)}; expected {list(known)}. Settings of the '
                         'loss itself belong into `loss`.')
    _check_weight(settings.get('weight'), weights, dense, where)
    given = settings['loss']
    is_built = isinstance(given, nn.Module)
    weight = getattr(given, 'loss_weight', 1.) if is_built else given.get('loss_weight', 1.)
    if not math.isfinite(weight) or weight < 0:
        raise ValueError(f'`{where}.loss.loss_weight`: expected a finite number >= 0, got {weight!r}.')
    chosen = {key: settings.get(key, values[0]) for key, values in _CHOICES.items()}
    for key, value in chosen.items():
        if value not in _CHOICES[key]:
            raise ValueError(f'`{where}.{key}`: expected one of {list(_CHOICES[key])}, got {value!r}.')
    loss = given if is_built else build_loss(given, f'{where}.loss')
    if (is_built or 'ignore_index' not in given) and hasattr(loss, 'ignore_index'):
        loss.ignore_index = ignore_index
    own = getattr(loss, 'ignore_index', ignore_index)
    schedule = read_schedule(settings.get('schedule'), where)
    term = DistillTerm(name, loss, *taps_of(settings.get('on', LOGITS), where), schedule, settings.get('adapter'),
                       settings.get('weight'), **chosen, ignore_index=own, void=ignore_index if own is None else own)
    if term.positions != 'labelled' and isinstance(loss, DistillationLoss):
        # Every target is a class then, and what counts is told by weights.
        loss.ignore_index = None
    check_adapter(term.adapter_settings, where)
    if term.adapter_settings is not None and term.reads_logits:
        raise ValueError(f'`{where}.adapter`: logits are compared class by class, nothing can stand between them; '
                         'remove it, or name modules in `on`.')
    if dense:
        _check_choices(term, where)
    return term


def _check_weight(weight, weights: Collection[str], dense: bool, where: str) -> None:
    is_number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
    if weight is None or isinstance(weight, str) and weight in weights or dense and is_number and 0 < weight < 1:
        return
    allowed = [*map(repr, weights), *(['a confidence between 0 and 1'] if dense else [])]
    expected = f'None or {", ".join(allowed)}' if allowed else (
        'none, only positions of detectors and segmentors are weighted')
    raise ValueError(f'`{where}.weight`: expected {expected}, got {weight!r}. A factor on the whole term is '
                     '`loss.loss_weight`.')


def _check_choices(term: DistillTerm, where: str) -> None:
    """Refuse choices that mean nothing for the loss or for features."""
    reads_features = any(map(is_module, term.teacher_taps))
    asked = dict(weight=term.weight is not None, target=term.target == 'teacher')
    for key, is_asked in asked.items():
        if is_asked and reads_features:
            raise ValueError(f'`{where}.{key}`: {getattr(term, key)!r} asks for the class scores of the teacher, and '
                             f"the term reads its features at {list(term.teacher_taps)}. Remove it, or write "
                             "on='logits'.")
    if term.target == 'teacher' and not getattr(term.loss, 'needs_target', True):
        raise ValueError(f"`{where}.target`: {type(term.loss).__name__} compares logits without a target class, so "
                         "target='teacher' means nothing. Remove it.")
    if isinstance(term.weight, str) and not isinstance(term.loss, DistillationLoss):
        raise ValueError(f'`{where}.weight`: {type(term.loss).__name__} is not a loss of mmseg_kd and takes no '
                         'weights. Remove it, or give a threshold.')


def build_loss(settings: dict, where: str) -> nn.Module:
    """Build the loss of a term.

    Args:
        settings: The loss's ``type`` and arguments.
        where: Name of the setting, like ``distill.kd.loss``, for messages.

    Raises:
        ValueError: there is no such loss, or it refuses an argument; the message names the setting.
    """
    kind = settings.get('type')
    name = type_name(settings)
    if isinstance(kind, str) and kind.startswith('mmseg_kd.') and MODELS.get(kind) is None:
        known = [each for each in losses.__all__ if each.endswith('Loss') and each != DistillationLoss.__name__]
        near = difflib.get_close_matches(name, known, 1, 0.5)
        raise ValueError(f'`{where}.type`: there is no loss {kind!r}'
                         f'{f"; did you mean mmseg_kd.{near[0]}?" if near else "."} There are: {", ".join(known)}.')
    try:
        return MODELS.build(settings)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f'`{where}`: {error.args[0] if error.args else error}') from error


def taps_of(on, where: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What a term's ``on`` reads of the student and of a teacher.

    Raises:
        ValueError: it is of none of the forms that there are.
    """
    # Only the student has a second classifier; it learns the teacher's only logits.
    if isinstance(on, str):
        pair = (on, LOGITS if on == AUX_LOGITS else on)
    else:
        pair = tuple(on) if isinstance(on, (list, tuple)) else ()
    sides = [(side, ) if isinstance(side, str) else tuple(side) if isinstance(side, (list, tuple)) else ()
             for side in pair]
    several = any(not isinstance(side, str) for side in pair)
    if len(pair) != 2 or not sides[0] or len(sides[0]) != len(sides[1]) or not all(
            isinstance(tap, str) and (is_module(tap) or not several) for side in sides for tap in side):
        raise ValueError(f"`{where}.on`: expected 'logits', 'aux_logits', 'auxiliary_head', a module's name, a "
                         "(student, teacher) pair of those, or a pair of equally long lists of modules' names, got "
                         f'{on!r}.')
    return sides[0], sides[1]

"""The names of the classes that logits stand for, where they can be known."""
import re
from collections.abc import Sequence

from mmengine.config import Config
from mmengine.registry import DATASETS

from mmseg_kd.config import read_config
from mmseg_kd.taps import is_module

__all__ = ['check_config', 'check_names', 'metainfo_in_checkpoint', 'metainfo_in_config', 'names_in_checkpoint',
           'names_in_config']

_LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def names_in_config(config: dict | Config, scope: str) -> tuple[str, ...] | None:
    """Class names of a config's data set: its ``metainfo``, or what its type knows; None where neither says.

    Args:
        config: A training config.
        scope: Registry scope of the data set's type unless the config names its own ``default_scope``.
    """
    return tuple(metainfo_in_config(config, scope).get('classes', ())) or None


def metainfo_in_config(config: dict | Config, scope: str) -> dict:
    """``classes`` and ``palette`` of a config's data set, as far as its ``metainfo`` or its type know them.

    Args:
        config: A training config.
        scope: As for :func:`names_in_config`.
    """
    dataset = next((config[name]['dataset'] for name in _LOADERS
                    if isinstance(config.get(name), dict) and isinstance(config[name].get('dataset'), dict)), None)
    while dataset is not None:
        named = dataset.get('metainfo') or {}
        if named.get('classes'):
            return _metainfo(named)
        inner = dataset.get('dataset') or dataset.get('labelled') or next(iter(dataset.get('datasets') or ()), None)
        if not isinstance(inner, dict):
            break
        dataset = inner
    if dataset is None or not isinstance(dataset.get('type'), str):
        return {}
    try:
        with DATASETS.switch_scope_and_registry(
                dataset.get('_scope_') or config.get('default_scope') or scope) as registry:
            kind = registry.get(dataset['type'])
    except (KeyError, ImportError):
        kind = None
    return _metainfo(getattr(kind, 'METAINFO', {}))


def _metainfo(given: dict) -> dict:
    """Names and colours as plain lists; lists of other things (or none) are left out."""
    names, palette = given.get('classes'), given.get('palette')
    known = isinstance(names, (list, tuple)) and names and all(isinstance(name, str) for name in names)
    found = dict(classes=list(names)) if known else {}
    if found and isinstance(palette, (list, tuple)) and len(palette) == len(names):
        found['palette'] = [[int(value) for value in color] for color in palette]
    return found


def metainfo_in_checkpoint(checkpoint: object) -> dict:
    """``classes`` and ``palette`` that a Runner wrote beside the weights (``dataset_meta``, older ``CLASSES``)."""
    meta = checkpoint.get('meta') if isinstance(checkpoint, dict) else None
    if not isinstance(meta, dict):
        return {}
    dataset = meta.get('dataset_meta')
    return (_metainfo(dataset) if isinstance(dataset, dict) else {}) or _metainfo(
        dict(classes=meta.get('CLASSES'), palette=meta.get('PALETTE')))


def names_in_checkpoint(checkpoint: object) -> tuple[str, ...] | None:
    """Class names in :func:`metainfo_in_checkpoint`, or None."""
    return tuple(metainfo_in_checkpoint(checkpoint).get('classes', ())) or None


def check_names(student: Sequence[str] | None, teacher: Sequence[str] | None) -> None:
    """Refuse a teacher whose logits stand for other classes. Names that are not known are not compared.

    Case, blanks and punctuation do not matter.

    Raises:
        ValueError: the names differ in order, number or kind; the message has both lists.
    """
    if not student or not teacher:
        return
    plain = [[re.sub(r'[\W_]', '', name.lower()) for name in names] for names in (student, teacher)]
    if plain[0] == plain[1]:
        return
    how = ('have another order' if sorted(plain[0]) == sorted(plain[1]) else
           'are others' if len(student) == len(teacher) else f'are {len(teacher)} instead of {len(student)}')
    raise ValueError(
        f"`teacher`: its classes {how}, and logits are compared class by class. The student's: {list(student)}. The "
        f"teacher's: {list(teacher)}. Take a teacher of the student's data set, or compare features alone "
        "(distill.<name>.on='backbone.layer4'). If they are the same classes by other names, train with "
        '--cfg-options class_check=False.')


def check_config(cfg: Config, scope: str = 'mmseg') -> None:
    """Compare the classes of a distilled config's data set with those of its teachers' configs, before any is built.

    Raises:
        ValueError: as :func:`check_names`.
    """
    model = cfg.get('model') or {}
    terms = (model.get('distill') or {}).values() if isinstance(model.get('distill'), dict) else ()
    reads_logits = any(_reads_logits(term.get('on', 'logits')) for term in terms if isinstance(term, dict))
    if cfg.get('class_check') is False or not reads_logits:
        return
    teachers = model.get('teacher')
    student = names_in_config(cfg, scope)
    for teacher in teachers if isinstance(teachers, (list, tuple)) else [teachers]:
        # A trained teacher may know better than its config: its checkpoint is asked at the start of training.
        if isinstance(teacher, dict) and teacher.get('config') is not None:
            check_names(student, names_in_config(read_config(teacher['config']), scope))


def _reads_logits(on) -> bool:
    """Whether a term's ``on`` names logits on one of its sides, or on both."""
    return any(isinstance(tap, str) and not is_module(tap) for tap in (on if isinstance(on, (list, tuple)) else [on]))

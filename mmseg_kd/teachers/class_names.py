"""The names of the classes that logits stand for, where they can be known."""
import json
import re
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import DATASETS

from mmseg_kd.config import read_config
from mmseg_kd.config_names import type_name
from mmseg_kd.registry import class_named
from mmseg_kd.taps import is_module

from .class_map import ClassMap, map_of_equal_names, plain_name

__all__ = ['check_config', 'check_names', 'match_names', 'metainfo_in_checkpoint', 'metainfo_in_config',
           'names_in_checkpoint', 'names_in_config', 'names_in_folder', 'names_of_labels']

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


def names_in_folder(folder: object) -> tuple[str, ...] | None:
    """Class names in the ``config.json`` of a Hugging Face folder, or None."""
    path = Path(folder).expanduser() / 'config.json' if isinstance(folder, str) else None
    if path is None or not path.is_file():
        return None
    try:
        return names_of_labels(json.loads(path.read_text())['id2label'])
    except (ValueError, KeyError, TypeError):
        return None


def names_of_labels(labels: dict | None) -> tuple[str, ...] | None:
    """Class names out of transformers' ``id2label``, index to name; None where they are unknown or made up."""
    labels = {int(index): name for index, name in (labels or {}).items()}
    names = [labels.get(index) for index in range(len(labels))]
    # 'LABEL_0' is what transformers calls a class whose name it was not told.
    known = names and all(isinstance(name, str) and not re.fullmatch(r'LABEL_\d+', name) for name in names)
    return tuple(names) if known else None


def check_names(student: Sequence[str] | None, teacher: Sequence[str] | None) -> None:
    """Refuse a teacher whose logits stand for other classes. Names that are not known are not compared.

    Case, blanks and punctuation do not matter.

    Raises:
        ValueError: the names differ in order, number or kind; the message has both lists and the map of equal names.
    """
    if not student or not teacher or _same(student, teacher):
        return
    reordered = sorted(map(plain_name, student)) == sorted(map(plain_name, teacher))
    how = ('have another order' if reordered else
           'are others' if len(student) == len(teacher) else f'are {len(teacher)} instead of {len(student)}')
    raise ValueError(
        f"`teacher`: its classes {how}, and logits are compared class by class. The student's: {list(student)}. The "
        f"teacher's: {list(teacher)}. Take a teacher of the student's data set; or compare only features "
        "(distill.<name>.on='backbone.layer4'); or say which of its classes are which, where [] leaves a class out. By "
        f'equal names, to be completed: teacher=dict(..., class_map={map_of_equal_names(student, teacher)}). If they '
        'are the same classes by other names, train with --cfg-options class_check=False.')


def match_names(student: Sequence[str] | None, teacher: Sequence[str] | None) -> dict[str, list[str]] | None:
    """The ``class_map`` of equal names for a teacher that knows all classes of the student, in another order or beside
    others; None where there is nothing to map, because the names are the same or not known.

    Raises:
        ValueError: the teacher lacks a name of the student's; as :func:`check_names`.
    """
    if not student or not teacher or _same(student, teacher):
        return None
    found = map_of_equal_names(student, teacher)
    if not all(found.values()):
        check_names(student, teacher)
    return found


def _same(student: Sequence[str], teacher: Sequence[str]) -> bool:
    return list(map(plain_name, student)) == list(map(plain_name, teacher))


def names_of_teacher(settings: dict, scope: str) -> tuple[str, ...] | None:
    """Class names of a teacher that is yet to be built, as far as its settings and small files say; or None.

    A trained teacher may know better: its checkpoint is asked at the start of training.
    """
    if settings.get('classes') is not None:
        return tuple(settings['classes'])
    if settings.get('type') == 'huggingface':
        return names_in_folder(settings.get('model'))
    if settings.get('type') is None and settings.get('config') is not None:
        return names_in_config(read_config(settings['config']), scope)
    return None


def check_config(cfg: Config, scope: str = 'mmseg') -> None:
    """Compare the classes of a distilled config's data set with those of its teachers, before any is built.

    A teacher without ``class_map`` that knows all classes of the student by name, in another order or beside others,
    gets the map of equal names. Detectors have no such maps.

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
    maps = getattr(class_named(type_name(model)), 'maps_classes', True)
    for teacher in teachers if isinstance(teachers, (list, tuple)) else [teachers]:
        if not isinstance(teacher, dict) or student is None:
            continue
        names = names_of_teacher(teacher, scope)
        if teacher.get('class_map') is not None:
            if names is not None:
                ClassMap(teacher['class_map'], names, len(names)).tell_names(student)
        elif not maps:
            check_names(student, names)
        elif (found := match_names(student, names)) is not None:
            teacher['class_map'] = found


def _reads_logits(on) -> bool:
    """Whether a term's ``on`` names logits on one of its sides, or on both."""
    return any(isinstance(tap, str) and not is_module(tap) for tap in (on if isinstance(on, (list, tuple)) else [on]))

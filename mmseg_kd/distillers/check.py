"""What a distilled config names is there, checked before anything is built from it."""
import difflib
from collections.abc import Sequence

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn

from mmseg_kd.config import DISTILLATION_KEYS, plain_settings
from mmseg_kd.config_names import type_name
from mmseg_kd.registry import MODELS, class_named
from mmseg_kd.taps import check_tap, is_module

from .base import Distilled
from .terms import build_loss, taps_of

__all__ = ['check_names_in_config']

_MODELS = ('DistilledEncoderDecoder', 'DistilledCascadeEncoderDecoder', 'DistilledImageClassifier',
           'DistilledSingleStageDetector', 'DistilledTwoStageDetector')


def check_names_in_config(cfg: Config) -> None:
    """Refuse misspelt models, settings, losses and taps of a config, in the words of the config; a plain one passes.

    Args:
        cfg: A training config.

    Raises:
        ValueError: a name that does not exist, or a loss that cannot be built; the message has the setting and the
            nearest name.
    """
    model = cfg.model
    kind = type_name(model)
    scope = cfg.get('default_scope') or 'mmseg'
    built = class_named(kind) if kind in _MODELS else _registered(model.type, scope)
    if built is None and str(model.type).startswith('mmseg_kd.') and kind.startswith('Dis'):
        raise ValueError(f'`model.type`: there is no mmseg_kd.{kind}{_nearest(kind, _MODELS)}. There are: '
                         f'{", ".join(_MODELS)}.')
    if built is None or not issubclass(built, Distilled):
        # Somebody's own class may have settings of these names.
        ours = built is None or '.' not in type_name(built)
        wrong = [key for key in model if ours and key in ('distill', 'teacher')]
        if wrong:
            raise ValueError(f'`model.{wrong[0]}`: {kind} is not distilled; set model.type to one of '
                             f'{", ".join(f"mmseg_kd.{name}" for name in _MODELS)}.')
        return
    for key in model:
        near = [] if key in DISTILLATION_KEYS else difflib.get_close_matches(key, DISTILLATION_KEYS, 1, 0.8)
        if near:
            raise ValueError(f'`model.{key}`: there is no such setting; did you mean `model.{near[0]}`? Distillation '
                             f'adds to a model: {", ".join(DISTILLATION_KEYS)}.')
    terms = model.get('distill')
    terms = {name: term for name, term in terms.items() if isinstance(term, dict)} if isinstance(terms, dict) else {}
    with DefaultScope.overwrite_default_scope(scope), torch.random.fork_rng(devices=[]):
        for name, term in terms.items():
            if isinstance(term.get('loss'), dict):
                build_loss(term['loss'], f'distill.{name}.loss')
    taps = {f'distill.{name}.on': [tap for tap in taps_of(term.get('on', 'logits'), f'distill.{name}')[0]
                                   if is_module(tap)] for name, term in terms.items()}
    student = _bare_student(cfg, scope) if any(taps.values()) else None
    if student is not None:
        for setting, each in taps.items():
            for tap in each:
                check_tap(student, tap, setting, 'student', built.answers)


def _registered(kind: str | type, scope: str) -> type | None:
    with MODELS.switch_scope_and_registry(scope) as registry:
        found = registry.get(kind) if isinstance(kind, str) else kind
    return found if isinstance(found, type) else None


def _nearest(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, 1, 0.5)
    return f'; did you mean {near[0]}?' if near else ''


def _bare_student(cfg: Config, scope: str) -> nn.Module | None:
    """The plain student without memory for its weights, in no time; None: it cannot be built so, or not at all."""
    with torch.random.fork_rng(devices=[]), torch.device('meta'):
        try:
            return MODELS.build(plain_settings(cfg, scope))
        # Whatever it is, the model itself says it better.
        except Exception:
            return None

"""Distillation: terms, adapters, dual head and schedules, which all models share; one folder a library beside them."""
from importlib import import_module

from .distiller import Distiller

__all__ = ['Distiller']


def __getattr__(name: str):
    """Distilled segmentors, whose room imports mmseg only when one is asked for."""
    if name in ('DistilledEncoderDecoder', 'DistilledCascadeEncoderDecoder'):
        return getattr(import_module(f'{__name__}.segmentation'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')

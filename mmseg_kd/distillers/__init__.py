"""Distillation: terms, adapters, dual head and schedules, which all models share; one folder a library beside them."""
from importlib import import_module

from .distiller import Distiller

__all__ = ['DistilledCascadeEncoderDecoder', 'DistilledEncoderDecoder', 'Distiller']


def __getattr__(name: str):
    """Import the segmentors when one is first asked for: a plain ``Distiller`` needs no mmseg."""
    if name not in __all__:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module('mmseg_kd.distillers.segmentation'), name)

"""Distillation: terms, adapters, dual head and schedules, which all models share; one folder a library beside them."""
from .distiller import Distiller

__all__ = ['Distiller']

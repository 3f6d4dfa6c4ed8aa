"""Heads around heads: the second classifier that distillation trains beside the main one."""
from .auxiliary_classifier import auxiliary_classifier
from .classifier_input import classifier_inputs

__all__ = ['auxiliary_classifier', 'classifier_inputs']

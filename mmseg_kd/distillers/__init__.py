"""Distilled models: any OpenMMLab model with a teacher, one thin file per library."""
from .segmentor import DistilledEncoderDecoder

__all__ = ['DistilledEncoderDecoder']

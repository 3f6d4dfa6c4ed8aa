"""Distilled models: any OpenMMLab model with a teacher, one thin file per library."""
from .segmentor import DistilledCascadeEncoderDecoder, DistilledEncoderDecoder

__all__ = ['DistilledCascadeEncoderDecoder', 'DistilledEncoderDecoder']

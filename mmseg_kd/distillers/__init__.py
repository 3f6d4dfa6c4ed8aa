"""Distilled models: any OpenMMLab model with a teacher. What they share lies here, one folder a library beside it."""
from .segmentation import DistilledCascadeEncoderDecoder, DistilledEncoderDecoder

__all__ = ['DistilledCascadeEncoderDecoder', 'DistilledEncoderDecoder']

"""Distilled segmentors: mmseg's, and what is known of its heads."""
from .segmentor import DistilledCascadeEncoderDecoder, DistilledEncoderDecoder

__all__ = ['DistilledCascadeEncoderDecoder', 'DistilledEncoderDecoder']

"""Segmentors that classify masks instead of pixels, as teachers."""
import torch
from torch import Tensor, nn

__all__ = ['as_logits']

# Their `predict` returns, for each pixel, the sum over the queries of class probability times mask probability.
_QUERY_HEADS = {'MaskFormerHead', 'Mask2FormerHead', 'SideAdapterCLIPHead'}


def as_logits(head: nn.Module, prediction: Tensor) -> Tensor:
    r"""What a head predicts for each pixel, as logits.

    Dense heads predict logits. A query head predicts scores s_c = sum_q p_q(c) m_q, at least 0, which are no
    probabilities: they do not add up to 1, since a query may say "no object" and masks overlap. Their logarithm taken
    as logits means the distribution s / sum(s). That is an approximation: how much of a pixel no query claims is lost.

    Args:
        head: A decode head of mmseg.
        prediction: (N, C, H, W) of its ``predict``.
    """
    if not any(cls.__name__ in _QUERY_HEADS for cls in type(head).__mro__):
        return prediction
    # A score that underflowed is small, not impossible.
    return prediction.clamp_min(torch.finfo(prediction.dtype).tiny).log()

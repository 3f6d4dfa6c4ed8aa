"""Networks that classify masks (queries) instead of pixels, as teachers of pixels."""
import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ['class_scores', 'scores_as_logits']


def scores_as_logits(scores: Tensor) -> Tensor:
    r"""Scores of the classes at each pixel, as logits.

    A query head predicts scores s_c = sum_q p_q(c) m_q, at least 0, which are not probabilities: they do not add up to
    1, since a query may say "no object" and masks overlap. Their logarithm taken as logits means the distribution
    s / sum(s). That is an approximation: how much of a pixel no query claims is lost.

    Args:
        scores: (N, C, H, W), at least 0.
    """
    # A score that underflowed is small, not impossible.
    return scores.clamp_min(torch.finfo(scores.dtype).tiny).log()


def class_scores(queries: Tensor, masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Scores s_c = sum_q p_q(c) m_q of the classes at each pixel (MaskFormer: Cheng et al., NeurIPS 2021, section 3.4).

    Args:
        queries: (N, Q, C + 1) class logits of the queries; the last class is "no object".
        masks: (N, Q, h, w) logits of their masks, brought to ``size`` before the sigmoid.
        size: (H, W).

    Returns:
        (N, C, H, W), at least 0.
    """
    masks = F.interpolate(masks, size, mode='bilinear', align_corners=False).sigmoid()
    return torch.einsum('nqc,nqhw->nchw', queries.softmax(-1)[..., :-1], masks)

"""Cross-entropy with labels, which rides along where logits are upsampled inside the losses."""
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from . import kinds
from .checks import Inputs, check_labels
from .evaluate import operators_for
from .upsampled import Logits, Upsampled, at_full_size

__all__ = ['CrossEntropy', 'cross_entropy_sum']


class CrossEntropy(NamedTuple):
    """What :func:`cross_entropy_sum` returns."""

    total: Tensor  #: scalar, the sum over the positions that count
    correct: Tensor  #: scalar int64, how many of them have their largest logit at the label


def cross_entropy_sum(logits: Logits,
                      target: Tensor,
                      *,
                      class_weight: Tensor | None = None,
                      ignore_index: int = 255) -> CrossEntropy:
    """Sum of -class_weight[label] * log softmax(logits)[label] over all positions but the ignored ones.

    Args:
        logits: (N, C, H, W) logits, or :class:`~.upsampled.Upsampled` to that; the arithmetic is float32 or better.
        target: (N, H, W) int64 labels in 0 .. C - 1, or ``ignore_index``.
        class_weight: (C,) factor by label.
        ignore_index: label of the positions that do not count.

    Raises:
        ValueError: a label that is neither a class nor ``ignore_index``.

    Example:
        >>> import torch
        >>> cross_entropy_sum(torch.zeros(1, 4, 1, 2), torch.tensor([[[3, 255]]]))
        CrossEntropy(total=tensor(1.3863), correct=tensor(0))
    """
    check_labels(target, logits.shape[1], ignore_index)
    with torch.autocast(logits.device.type, enabled=False):
        if logits.dtype != torch.float64:
            logits = logits.to(torch.float32)
        valid = target != ignore_index
        if isinstance(logits, Upsampled):
            loss = kinds.CrossEntropy()
            inputs = Inputs(logits, logits, target, None, valid, False, 'sum')
            operators = operators_for(loss, inputs)
            if operators is not None and operators.upsamples(logits, loss):
                return CrossEntropy(*operators.cross_entropy(inputs, class_weight))
        full = at_full_size(logits)
        total = F.cross_entropy(full, target, class_weight, ignore_index=ignore_index, reduction='sum')
        return CrossEntropy(total, ((full.argmax(1) == target) & valid).sum())

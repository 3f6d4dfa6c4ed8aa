"""Cross-entropy of a block of positions."""
import numpy as np

from .arithmetic import exp, jit, log

__all__ = ['cross_entropy_block']

_ZERO, _LOWEST = np.float32(0), np.float32(-np.inf)


@jit
def cross_entropy_block(logits, target, factor, loss):
    """factor * -log softmax(logits)[target]; (C, B) ``logits`` become the gradient, (B,) ``loss`` the value.

    Returns:
        How many positions with a factor have their largest logit at the target.
    """
    num_classes, width = logits.shape
    lead, total = np.full(width, _LOWEST, np.float32), np.zeros(width, np.float32)
    best, at_target = np.zeros(width, np.int32), np.zeros(width, np.float32)
    for c in range(num_classes):
        for b in range(width):
            best[b] = c if logits[c, b] > lead[b] else best[b]
        for b in range(width):
            lead[b] = logits[c, b] if logits[c, b] > lead[b] else lead[b]
    for c in range(num_classes):
        for b in range(width):
            logits[c, b] -= lead[b]
        for b in range(width):
            at_target[b] = logits[c, b] if target[b] == c else at_target[b]
        for b in range(width):
            # The untouched logit joins, so that one that is not a number is not lost in exp.
            total[b] += exp(logits[c, b]) + _ZERO * logits[c, b]
        for b in range(width):
            logits[c, b] = exp(logits[c, b])
    for b in range(width):
        loss[b] = factor[b] * (log(total[b]) - at_target[b]) if factor[b] != _ZERO else _ZERO
    for b in range(width):
        total[b] = factor[b] / total[b] + _ZERO * loss[b]
    for c in range(num_classes):
        for b in range(width):
            value = logits[c, b] * total[b] - (factor[b] if target[b] == c else _ZERO)
            logits[c, b] = value if factor[b] != _ZERO else _ZERO
    correct = 0
    for b in range(width):
        correct += 1 if factor[b] != _ZERO and best[b] == target[b] else 0
    return correct

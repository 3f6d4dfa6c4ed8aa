"""What every loss of a block ends with: how much each position counts."""
import numpy as np

from .arithmetic import jit

__all__ = ['count_positions']

_ZERO = np.float32(0)


@jit
def count_positions(gradient, loss, factor, of_loss, of_gradient):
    """Multiply (B,) ``loss`` with factor * of_loss and (C, B) ``gradient`` with factor * of_gradient.

    Where the factor is 0 both are 0, whatever they hold.
    """
    num_classes, width = gradient.shape
    scale = np.empty(width, np.float32)
    for b in range(width):
        loss[b] = of_loss * factor[b] * loss[b] if factor[b] != _ZERO else _ZERO
    for b in range(width):
        # A loss that is not a number has a gradient that is none: nobody shall step on it unseen.
        scale[b] = of_gradient * factor[b] + _ZERO * loss[b]
    for c in range(num_classes):
        for b in range(width):
            gradient[c, b] = gradient[c, b] * scale[b] if factor[b] != _ZERO else _ZERO

"""Does a confidence of 80 % mean right in 80 % of the cases?"""
import torch
from torch import Tensor

__all__ = ['Calibration']


class Calibration:
    r"""Reliability of a classifier's confidence, gathered batch by batch.

    The positions are sorted into M bins of equal width by their confidence, ((m - 1) / M, m / M]; the expected
    calibration error is the mean gap between confidence and accuracy, weighed by the positions n_m in each bin:

    .. math:: ECE = \sum_m \frac{n_m}{n} | \mathrm{acc}(m) - \mathrm{conf}(m) |

    Reference: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, eq. 3 (M = 15).

    Args:
        bins: M.
    """

    def __init__(self, bins: int = 15):
        self.bins = bins
        self._sums = torch.zeros(3, bins, dtype=torch.float64)

    def update(self, confidence: Tensor, correct: Tensor) -> None:
        """Add positions.

        Args:
            confidence: Probability of the predicted class, in [0, 1], any shape.
            correct: bool, the same shape: whether the predicted class is the label.
        """
        confidence, correct = confidence.flatten().double().cpu(), correct.flatten().double().cpu()
        index = ((confidence * self.bins).ceil().long() - 1).clamp(0, self.bins - 1)
        self._sums.index_add_(1, index, torch.stack([torch.ones_like(confidence), confidence, correct]))

    @property
    def count(self) -> Tensor:
        """Positions in each bin, (M,)."""
        return self._sums[0]

    @property
    def confidence(self) -> Tensor:
        """Mean confidence in each bin, (M,); NaN in an empty one."""
        return self._sums[1] / self._sums[0]

    @property
    def accuracy(self) -> Tensor:
        """Share of right positions in each bin, (M,); NaN in an empty one."""
        return self._sums[2] / self._sums[0]

    @property
    def error(self) -> float:
        """Expected calibration error, in [0, 1]; NaN before any position."""
        return ((self._sums[2] - self._sums[1]).abs().sum() / self._sums[0].sum()).item()

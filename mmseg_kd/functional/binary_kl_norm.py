"""BinaryKL-Norm: how far the difference of two logits is from undecided."""
from torch import Tensor

from .binary import BinaryKLNorm
from .checks import checked, loss_function
from .evaluate import loss_of
from .upsampled import Logits


@loss_function
def binary_kl_norm_loss(student: Logits,
                        teacher: Logits,
                        target: Tensor | None = None,
                        weight: Tensor | None = None,
                        *,
                        temperature: float = 2.,
                        ignore_index: int | None = 255,
                        reduction: str = 'mean') -> Tensor:
    r"""Normalised binary divergences: the difference of the logits, as a Bernoulli distribution, against a fair coin.

    .. math:: L = T^2 \sum_c KL \bigl( B(1/2) \,\|\, B(\sigma((z_c - v_c) / T)) \bigr)
              = T^2 \sum_c \log \cosh \frac{z_c - v_c}{2 T}, \qquad
              \frac{\partial L}{\partial z_c} = \frac{T}{2} \tanh \frac{z_c - v_c}{2 T}

    z and v are the logits of student and teacher, B a Bernoulli distribution, sigma the logistic function. The
    gradient never vanishes for a wrong logit, however confident the teacher.

    Reference: Yang et al., Dual-Head Knowledge Distillation, 2024 (arXiv 2411.08937), the BinaryKL-Norm loss; T = 2.

    Args:
        student: (N, C) or (N, C, *) logits or :class:`~.Upsampled`, C at least 1, as for :func:`~.binary_kl_loss`.
        teacher: logits of the same shape, without gradient.
        target: (N, *) int64 labels, which only say by ``ignore_index`` which positions are left out.
        weight: (N, *) factor of each position; 0 leaves it out.
        temperature: T > 0.
        ignore_index: label of the positions that do not count; None when all count.
        reduction: 'mean' over valid positions, 'sum', or 'none' for an (N, *) map.

    Raises:
        ValueError: a setting or a tensor that does not fit; the message says which and what to do.

    Example:
        >>> import torch
        >>> binary_kl_norm_loss(torch.zeros(1, 2), torch.tensor([[4., -4.]]))
        tensor(3.4702)
    """
    inputs = checked(student, teacher, target, weight, ignore_index, reduction, min_classes=1)
    return loss_of(BinaryKLNorm(temperature), inputs)

"""BinaryKL: each class as a yes or no of its own."""
from torch import Tensor

from .binary import BinaryKL
from .checks import checked, loss_function
from .evaluate import loss_of
from .upsampled import Logits


@loss_function
def binary_kl_loss(student: Logits,
                   teacher: Logits,
                   target: Tensor | None = None,
                   weight: Tensor | None = None,
                   *,
                   temperature: float = 2.,
                   ignore_index: int | None = 255,
                   reduction: str = 'mean') -> Tensor:
    r"""Binary divergences of all classes: KL(teacher || student) of one Bernoulli distribution per class.

    .. math:: L = T^2 \sum_c KL \bigl( B(\sigma(v_c / T)) \,\|\, B(\sigma(z_c / T)) \bigr)

    z and v are the logits of student and teacher, B a Bernoulli distribution, sigma the logistic function. Unlike the
    softmax losses it sees the level of the logits.

    Reference: Yang et al., Dual-Head Knowledge Distillation, 2024 (arXiv 2411.08937), the BinaryKL loss; T = 2.

    Args:
        student: (N, C) or (N, C, *) logits of any floating type; the arithmetic is float32 or better. Small logits of
            (N, C, H, W) positions may be :class:`~.Upsampled`. C may be 1.
        teacher: logits of the same shape, without gradient.
        target: (N, *) int64 labels; not needed, but positions labelled ``ignore_index`` are left out.
        weight: (N, *) factor of each position; 0 leaves it out.
        temperature: T > 0.
        ignore_index: label of the positions that do not count; None when all count.
        reduction: 'mean' over valid positions, 'sum', or 'none' for an (N, *) map.

    Raises:
        ValueError: a setting or a tensor that does not fit; the message says which and what to do.

    Example:
        >>> import torch
        >>> binary_kl_loss(torch.zeros(1, 2), torch.tensor([[2., -2.]]))
        tensor(0.8876)
    """
    inputs = checked(student, teacher, target, weight, ignore_index, reduction, min_classes=1)
    return loss_of(BinaryKL(temperature), inputs)

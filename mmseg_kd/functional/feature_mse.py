"""Feature MSE: squared distance of features (FitNet)."""
from torch import Tensor

from .checks import checked, loss_function
from .evaluate import reduced
from .logit_mse import logit_mse_map


@loss_function
def feature_mse_loss(student: Tensor,
                     teacher: Tensor,
                     target: Tensor | None = None,
                     weight: Tensor | None = None,
                     *,
                     ignore_index: int | None = 255,
                     reduction: str = 'mean') -> Tensor:
    r"""Squared distance between features, averaged over the channels.

    .. math:: L = \frac{1}{C} \sum_c (s_c - t_c)^2

    s and t are the features of student (behind its adapter, where channels differ) and teacher at one position. The
    mean over the channels makes one weight mean the same at every width; with all positions valid the loss is
    ``torch.nn.functional.mse_loss``.

    Reference: Romero et al., FitNets: Hints for Thin Deep Nets, ICLR 2015, eq. 3 (there summed over the channels, with
    a factor 1/2).

    Args:
        student: (N, C) or (N, C, *) features of any floating type; the arithmetic is float32 or better.
        teacher: features of the same shape, without gradient.
        target: (N, *) int64 labels; not needed, but positions labelled ``ignore_index`` are left out.
        weight: (N, *) factor of each position; 0 leaves it out.
        ignore_index: label of the positions that do not count; None when all count.
        reduction: 'mean' over valid positions, 'sum', or 'none' for an (N, *) map.

    Raises:
        ValueError: a setting or a tensor that does not fit; the message says which and what to do.

    Example:
        >>> import torch
        >>> feature_mse_loss(torch.zeros(1, 2), torch.tensor([[1., -2.]]))
        tensor(2.5000)
    """
    inputs = checked(
        student, teacher, target, weight, ignore_index, reduction, min_classes=1, of_classes=False)
    return reduced(lambda student, teacher: logit_mse_map(student, teacher) / student.shape[1], inputs)

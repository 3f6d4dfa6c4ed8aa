"""Logit MSE: squared distance of the logits."""
from torch import Tensor

from .checks import checked, loss_function
from .evaluate import reduced


def logit_mse_map(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared distance per position, (N, *), of checked logits."""
    return (student - teacher).square().sum(1)


@loss_function
def logit_mse_loss(student: Tensor,
                   teacher: Tensor,
                   target: Tensor | None = None,
                   weight: Tensor | None = None,
                   *,
                   ignore_index: int | None = 255,
                   reduction: str = 'mean') -> Tensor:
    r"""Squared distance between the logits, summed over the classes.

    .. math:: L = \sum_c (z_c - v_c)^2

    z and v are the logits of student and teacher. There is no temperature: T^2 would cancel it. As all losses of the
    family it is a sum over classes; divide by C for the mean over all entries (``torch.nn.functional.mse_loss``).

    Reference: Ba and Caruana, Do Deep Nets Really Need to be Deep?, NeurIPS 2014, eq. 1 (there with a factor 1/2).

    Args:
        student: (N, C) or (N, C, *) logits of any floating type; the arithmetic is float32 or better. C may be 1.
        teacher: logits of the same shape, without gradient.
        target: (N, *) int64 labels; not needed, but positions labelled ``ignore_index`` are left out.
        weight: (N, *) factor of each position; 0 leaves it out.
        ignore_index: label of the positions that do not count; None when all count.
        reduction: 'mean' over valid positions, 'sum', or 'none' for an (N, *) map.

    Raises:
        ValueError: a setting or a tensor that does not fit; the message says which and what to do.

    Example:
        >>> import torch
        >>> logit_mse_loss(torch.zeros(1, 2), torch.tensor([[1., -2.]]))
        tensor(5.)
    """
    inputs = checked(student, teacher, target, weight, ignore_index, reduction, min_classes=1)
    return reduced(logit_mse_map, inputs)

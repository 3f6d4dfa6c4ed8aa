"""GDKD3: the teacher's top class, the classes up to rank k, the rest."""
from torch import Tensor

from .checks import checked, loss_function
from .evaluate import loss_of
from .gdkd import check_k
from .grouped import ByRank, GroupedLoss
from .upsampled import Logits


@loss_function
def gdkd3_loss(student: Logits,
               teacher: Logits,
               target: Tensor | None = None,
               weight: Tensor | None = None,
               *,
               k: int = 4,
               w0: float = 1.,
               w1: float = 2.,
               w2: float = 8.,
               divergence: str = 'forward',
               temperature: float = 4.,
               standardize: str | None = None,
               ignore_index: int | None = 255,
               reduction: str = 'mean') -> Tensor:
    r"""Generalized decoupled knowledge distillation in three groups: {top 1}, {ranks 2 .. k}, {rest}.

    .. math:: L = T^2 [ w_0 \, KL(b^v \| b^z) + w_1 \, D(p^v_{2..k} \| p^z_{2..k})
              + w_2 \, D(p^v_{rest} \| p^z_{rest}) ]

    Ranks are the teacher's, b the probabilities of the three groups, p the distributions inside; z student, v teacher,
    both at temperature T. D is the Kullback-Leibler divergence in the direction ``divergence``. With k = 1 the middle
    group is empty and the loss is that of GDKD with k = 1.

    Reference: Zheng and Cheng, Rethinking Decoupled Knowledge Distillation: A Predictive Distribution Perspective,
    2025 (arXiv 2512.04625), the three-group variant: k = 4 and the weights of GDKD, T = 4 on CIFAR-100.

    Args:
        student: (N, C) or (N, C, *) logits of any floating type; the arithmetic is float32 or better. Small logits of
            (N, C, H, W) positions may be :class:`~.Upsampled`.
        teacher: logits of the same shape, without gradient.
        target: (N, *) int64 labels; not needed, but positions labelled ``ignore_index`` are left out.
        weight: (N, *) factor of each position; 0 leaves it out.
        k: last rank of the middle group, 1 .. C - 1. The middle term is 0 by construction up to k = 2.
        w0: weight between the three groups.
        w1: weight within ranks 2 .. k.
        w2: weight within the rest.
        divergence: 'forward', 'reverse' or 'both', of the terms within groups, as for :func:`~.gdkd_loss`.
        temperature: T > 0.
        standardize: None, 'whole', 'group' or 'rest': z-score of the logits over the classes first.
        ignore_index: label of the positions that do not count; None when all count.
        reduction: 'mean' over valid positions, 'sum', or 'none' for an (N, *) map.

    Raises:
        ValueError: a setting or a tensor that does not fit; the message says which and what to do.

    Example:
        >>> import torch
        >>> student, teacher = torch.zeros(1, 5), torch.tensor([[4., 3., 2., 1., 0.]])
        >>> gdkd3_loss(student, teacher, k=3)
        tensor(2.1157)
    """
    inputs = checked(student, teacher, target, weight, ignore_index, reduction)
    if isinstance(k, (Tensor, tuple, list)):
        raise ValueError(f'`k` must be one integer for gdkd3_loss, got {k!r}')
    check_k('gdkd3_loss', k, student.shape[1], vanishing_top=2)
    return loss_of(GroupedLoss(ByRank((1, k)), w0, (0., w1, w2), temperature, divergence, standardize), inputs)

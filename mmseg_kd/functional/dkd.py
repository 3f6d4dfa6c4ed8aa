"""DKD: the target class against the rest, and the rest among itself."""
from torch import Tensor

from .checks import checked, loss_function, warn_once
from .evaluate import loss_of
from .grouped import GroupedLoss, TargetAndRest
from .upsampled import Logits


@loss_function
def dkd_loss(student: Logits,
             teacher: Logits,
             target: Tensor | None = None,
             weight: Tensor | None = None,
             *,
             alpha: float = 1.,
             beta: float = 8.,
             temperature: float = 4.,
             standardize: str | None = None,
             ignore_index: int | None = 255,
             reduction: str = 'mean') -> Tensor:
    r"""Decoupled knowledge distillation: groups {target} and {rest}.

    .. math:: L = T^2 [ \alpha \, KL(b^v \| b^z) + \beta \, KL(\hat p^v \| \hat p^z) ]

    b = (probability of the target class, of all others), :math:`\hat p` the distribution over the other classes; z
    student, v teacher, both at temperature T.

    Reference: Zhao et al., Decoupled Knowledge Distillation, CVPR 2022, eq. 7. alpha = 1, beta = 8, T = 4 is its
    setting for res32x4 -> res8x4 on CIFAR-100; ImageNet R34 -> R18: 1, 0.5, T = 1.

    Args:
        student: (N, C) or (N, C, *) logits of any floating type; the arithmetic is float32 or better. Small logits of
            (N, C, H, W) positions may be :class:`~.Upsampled`.
        teacher: logits of the same shape, without gradient.
        target: (N, *) int64 labels in 0 .. C - 1, or ``ignore_index``. Needed.
        weight: (N, *) factor of each position; 0 leaves it out.
        alpha: weight of the target term (TCKD).
        beta: weight of the non-target term (NCKD), which is 0 by construction when C = 2.
        temperature: T > 0.
        standardize: None, 'whole', 'group' or 'rest' (the non-target classes): z-score of the logits first.
        ignore_index: label of the positions that do not count; None when all count.
        reduction: 'mean' over valid positions, 'sum', or 'none' for an (N, *) map.

    Raises:
        ValueError: a setting or a tensor that does not fit; the message says which and what to do.

    Example:
        >>> import torch
        >>> student, teacher = torch.zeros(1, 3), torch.tensor([[4., 2., 0.]])
        >>> dkd_loss(student, teacher, torch.tensor([0]))
        tensor(4.8939)
        >>> dkd_loss(student, teacher, torch.tensor([255]))
        tensor(0.)
    """
    inputs = checked(student, teacher, target, weight, ignore_index, reduction, target_for='dkd_loss')
    if student.shape[1] == 2:
        warn_once('dkd_loss: with C = 2 classes the non-target term is 0 by construction, `beta` has no effect')
    return loss_of(GroupedLoss(TargetAndRest(), alpha, (0., beta), temperature, standardize=standardize), inputs)

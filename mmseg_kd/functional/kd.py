"""KD: one divergence over all classes."""
from torch import Tensor

from .checks import checked, loss_function
from .evaluate import loss_of
from .grouped import GroupedLoss, OneGroup
from .upsampled import Logits


@loss_function
def kd_loss(student: Logits,
            teacher: Logits,
            target: Tensor | None = None,
            weight: Tensor | None = None,
            *,
            temperature: float = 4.,
            standardize: str | None = None,
            ignore_index: int | None = 255,
            reduction: str = 'mean') -> Tensor:
    r"""Knowledge distillation: KL(teacher || student) of the softened distributions.

    .. math:: L = T^2 \sum_i p^v_i \log (p^v_i / p^z_i), \quad p^v = \mathrm{softmax}(v / T)

    z and v are the logits of student and teacher.

    Reference: Hinton et al., Distilling the Knowledge in a Neural Network, 2015, section 2; T = 4 is the setting of
    the CIFAR-100 experiments that followed (Tian et al., ICLR 2020).

    Args:
        student: (N, C) or (N, C, *) logits of any floating type; the arithmetic is float32 or better. Small logits of
            (N, C, H, W) positions may be :class:`~.Upsampled`.
        teacher: logits of the same shape, without gradient.
        target: (N, *) int64 labels; not needed, but positions labelled ``ignore_index`` are left out.
        weight: (N, *) factor of each position; 0 leaves it out.
        temperature: T > 0.
        standardize: None, 'whole', 'group' or 'rest' (here all the same): z-score of the logits over the classes first.
        ignore_index: label of the positions that do not count; None when all count.
        reduction: 'mean' over valid positions, 'sum', or 'none' for an (N, *) map.

    Raises:
        ValueError: a setting or a tensor that does not fit; the message says which and what to do.

    Example:
        >>> import torch
        >>> kd_loss(torch.zeros(2, 3), torch.tensor([[4., 0., 0.], [0., 0., 0.]]))
        tensor(0.9863)
    """
    inputs = checked(student, teacher, target, weight, ignore_index, reduction)
    return loss_of(GroupedLoss(OneGroup(), temperature=temperature, standardize=standardize), inputs)

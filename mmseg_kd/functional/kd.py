"""KD: one divergence over all classes."""
from typing import Optional

from torch import Tensor

from .checks import checked, operator_loss_function
from .grouped import GroupedKL
from .grouping import one_group
from .kernels import LossSpec, fused_or_plain
from .standardize import standardized_kl
from .upsampled import Logits


def kd_map(student: Tensor, teacher: Tensor, *, temperature: float, standardize: Optional[str] = None) -> GroupedKL:
    """KD per position, of checked logits."""
    groups = one_group(student)
    return standardized_kl(student, teacher, groups, 1, standardize=standardize, temperature=temperature)


@operator_loss_function
def kd_loss(student: Logits,
            teacher: Logits,
            target: Optional[Tensor] = None,
            weight: Optional[Tensor] = None,
            *,
            temperature: float = 4.,
            standardize: Optional[str] = None,
            ignore_index: Optional[int] = 255,
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
    student, teacher, valid = checked(student, teacher, target, weight, ignore_index, as_given=True)
    spec = None if standardize else LossSpec('all', temperature)
    return fused_or_plain(lambda z, v: kd_map(z, v, temperature=temperature, standardize=standardize).total, spec,
                          student, teacher, valid, weight, reduction)

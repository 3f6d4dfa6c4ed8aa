"""BinaryKL: each class as a yes or no of its own."""
from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import checked, operator_loss_function
from .grouped import kl_terms
from .kernels import LossSpec, fused_or_plain
from .upsampled import Logits


def binary_kl_map(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """BinaryKL per position, (N, *), of checked logits."""
    z, v = student / temperature, teacher / temperature
    everywhere = torch.ones_like(z, dtype=torch.bool)
    yes = kl_terms(F.logsigmoid(v), F.logsigmoid(z), everywhere)
    no = kl_terms(F.logsigmoid(-v), F.logsigmoid(-z), everywhere)
    return temperature**2 * (yes + no).sum(1)


@operator_loss_function
def binary_kl_loss(student: Logits,
                   teacher: Logits,
                   target: Optional[Tensor] = None,
                   weight: Optional[Tensor] = None,
                   *,
                   temperature: float = 2.,
                   ignore_index: Optional[int] = 255,
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
    student, teacher, valid = checked(student, teacher, target, weight, ignore_index, min_classes=1, as_given=True)
    return fused_or_plain(lambda z, v: binary_kl_map(z, v, temperature=temperature),
                          LossSpec('binary', temperature), student, teacher, valid, weight, reduction)

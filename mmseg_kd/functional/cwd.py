"""CWD: where in the image each channel looks."""
from typing import Optional

import torch
from torch import Tensor

from .checks import checked, operator_loss_function
from .grouped import kl_terms, masked_log_softmax
from .joined import divisor_of
from .kernels.channelwise import channelwise_loss
from .kernels.dispatch import may_fuse
from .reduce import reduce_map
from .upsampled import Logits, at_full_size, leaf_of


def cwd_map(student: Tensor, teacher: Tensor, valid: Tensor, *, temperature: float) -> Tensor:
    """What each position contributes, (N, *), of checked logits; the sum over an image is the loss of that image."""
    if valid.numel() == 0:
        return student.sum(1) * 0.
    member = valid.flatten(1).unsqueeze(2)  # (N, P, 1): distributions run over the positions
    log_q, log_p = (masked_log_softmax(logits.flatten(2).transpose(1, 2), member, temperature)[0]
                    for logits in (student, teacher))
    return temperature**2 * kl_terms(log_p, log_q, member).mean(2).view_as(valid)


@operator_loss_function
def cwd_loss(student: Logits,
             teacher: Logits,
             target: Optional[Tensor] = None,
             weight: Optional[Tensor] = None,
             *,
             temperature: float = 4.,
             ignore_index: Optional[int] = 255,
             reduction: str = 'mean') -> Tensor:
    r"""Channel-wise distillation: KL(teacher || student) of each channel's distribution over the positions.

    .. math:: L = \frac{T^2}{C} \sum_c \sum_i \phi(v_c)_i \log \frac{\phi(v_c)_i}{\phi(z_c)_i}, \qquad
              \phi(x)_i = \frac{\exp(x_i / T)}{\sum_j \exp(x_j / T)}

    z and v are the logits (or features) of student and teacher, i and j run over the *valid* positions of one image:
    ignored ones are in no sum, so that neither their logits nor their number matter.

    The unit of this loss is an image, not a position: one distribution has the mass 1 whatever the size of the crop.
    Hence 'mean' divides by the number of images that have a valid position. 'sum' adds them up, 'none' is the (N, *)
    map of what each position contributes: its sum over an image is the loss of the image.

    Reference: Shu et al., Channel-wise Knowledge Distillation for Dense Prediction, ICCV 2021, section 3.2; T = 4, with
    loss_weight 3 on logits.

    Args:
        student: (N, C, *) logits of any floating type, with at least one dimension of positions; the arithmetic is
            float32 or better. C may be 1. Small logits of (N, C, H, W) positions may be
            :class:`~.Upsampled`, and are upsampled channel by channel.
        teacher: logits of the same shape, without gradient.
        target: (N, *) int64 labels; not needed, but positions labelled ``ignore_index`` are left out.
        weight: (N, *) factor of what a position contributes; 0 leaves it out of the distributions, too.
        temperature: T > 0.
        ignore_index: label of the positions that do not count; None when all count.
        reduction: 'mean' over images, 'sum', or 'none' for an (N, *) map.

    Raises:
        ValueError: (N, C) logits, which have no positions; or a setting or a tensor that does not fit.

    Example:
        >>> import torch
        >>> cwd_loss(torch.zeros(1, 1, 2), torch.tensor([[[4., 0.]]]))
        tensor(1.7751)
    """
    student, teacher, valid = checked(student, teacher, target, weight, ignore_index, min_classes=1)
    if len(student.shape) < 3:
        raise ValueError('`student` must be (N, C, *) with positions for cwd_loss, whose distributions run over them, '
                         f'got shape {tuple(student.shape)}; for (N, C) use KDLoss')
    count = valid.flatten(1).any(1).sum()

    def plain(reduction: str = reduction) -> Tensor:
        values = cwd_map(at_full_size(student), at_full_size(teacher), valid, temperature=temperature)
        return reduce_map(values, valid, weight, reduction, count=count)

    small = leaf_of(student), leaf_of(teacher)
    if reduction == 'none' or student.dtype == torch.float64 or not may_fuse(*small, weight):
        return plain()
    divisor = divisor_of(count, reduction)
    return channelwise_loss(student, teacher, valid, weight, divisor, temperature, lambda: plain('sum') / divisor)

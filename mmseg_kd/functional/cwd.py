"""CWD: where in the image each channel looks."""
from torch import Tensor

from .checks import Inputs, checked, loss_function
from .evaluate import divisor_of, inputs_for, operators_for, reduced
from .kinds import ChannelWise
from .upsampled import Logits


@loss_function
def cwd_loss(student: Logits,
             teacher: Logits,
             target: Tensor | None = None,
             weight: Tensor | None = None,
             *,
             temperature: float = 4.,
             ignore_index: int | None = 255,
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
    inputs = checked(student, teacher, target, weight, ignore_index, reduction, min_classes=1)
    if len(student.shape) < 3:
        raise ValueError('`student` must be (N, C, *) with positions for cwd_loss, whose distributions run over them, '
                         f'got shape {tuple(student.shape)}; for (N, C) use KDLoss')
    loss = ChannelWise(temperature)
    count = inputs.valid.flatten(1).any(1).sum()

    def mean_of(inputs: Inputs) -> Tensor:
        return reduced(lambda student, teacher: loss.map(student, teacher, inputs.valid), inputs, count)

    operators = operators_for(loss, inputs)
    if operators is None:
        return mean_of(inputs)
    chosen, divisor = inputs_for(operators, loss, inputs), divisor_of(count, reduction)
    return operators.channel_wise(loss, chosen, divisor, lambda: mean_of(chosen._replace(reduction='sum')) / divisor)

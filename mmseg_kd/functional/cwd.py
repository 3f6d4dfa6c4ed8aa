"""CWD: where in the image each channel looks.

With an operator by PyTorch for any device: value and gradient of a few channels at a time. A channel's distribution
needs no other channel. So no full-size map of all channels is made, nor upsampled, and what is made for a few of them
is still in the cache when it is read again.
"""
import torch
from torch import Tensor

from .autograd import with_gradient
from .checks import checked, loss_function
from .evaluate import divisor_of, may_fuse, promoted, reduced
from .grouped import kl_summands, kl_terms, masked_log_softmax
from .upsampled import Logits, leaf_of, part_and_way_back, together_on


def cwd_map(student: Tensor, teacher: Tensor, valid: Tensor, *, temperature: float) -> Tensor:
    """What each position contributes, (N, *), of checked logits; the sum over an image is the loss of that image."""
    if valid.numel() == 0:
        return student.sum(1) * 0.
    member = valid.flatten(1).unsqueeze(2)  # (N, P, 1): distributions run over the positions
    log_q, log_p = (masked_log_softmax(logits.flatten(2).transpose(1, 2), member, temperature)[0]
                    for logits in (student, teacher))
    return temperature**2 * kl_terms(log_p, log_q, member).mean(2).view_as(valid)


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
    count = inputs.valid.flatten(1).any(1).sum()
    inputs = promoted(inputs)

    def map_of(student: Tensor, teacher: Tensor) -> Tensor:
        return cwd_map(student, teacher, inputs.valid, temperature=temperature)

    if inputs.student.dtype == torch.float64 or not may_fuse(inputs):
        return reduced(map_of, inputs, count)
    divisor = divisor_of(count, reduction)

    def compute() -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            return _value_and_gradient(inputs.student, inputs.teacher, inputs.valid, weight,
                                       temperature / (student.shape[1] * divisor), temperature)

    return with_gradient(leaf_of(inputs.student), compute,
                         lambda: reduced(map_of, inputs._replace(reduction='sum')) / divisor)


def _value_and_gradient(student: Logits, teacher: Logits, valid: Tensor, weight: Tensor | None, scale: Tensor,
                        temperature: float) -> tuple[Tensor, Tensor]:
    number, channels = student.shape[:2]
    together = max(1, together_on(student.device) // valid[0].numel())
    valid = valid.flatten(1)
    if weight is not None:
        # Weights of positions that do not count may be anything.
        weight = weight.detach().to(student.dtype).flatten(1).masked_fill(~valid, 0.)
    gradient = torch.empty_like(leaf_of(student))
    total = torch.zeros((), dtype=torch.float64, device=student.device)
    for n in range(number):
        for first in range(0, channels, together):
            some = slice(n, n + 1), slice(first, first + together)
            z, way_back = part_and_way_back(student, *some)
            v, _ = part_and_way_back(teacher, *some)
            value, slope = _of_channels(z[0].flatten(1), v[0].flatten(1), valid[n],
                                        None if weight is None else weight[n], temperature)
            total += value
            gradient[some] = way_back(slope.mul_(scale).view(z.shape))
    return (total * temperature * scale).to(student.dtype), gradient


def _of_channels(student: Tensor, teacher: Tensor, valid: Tensor, weight: Tensor | None,
                 temperature: float) -> tuple[Tensor, Tensor]:
    """KL of (C, P) channels over the (P,) valid positions, summed, and T times its gradient.

    With w the weights, D = sum of w (p log(p / q) - p + q) has T dD/dz = w (q - p) + q sum(w (p - q)).
    """
    log_q, log_p = (_log_softmax(logits, valid, temperature) for logits in (student, teacher))
    difference = log_p - log_q
    p, q = log_p.exp_(), log_q.exp_()
    terms = kl_summands(p, q, difference)
    if weight is None:
        return terms.sum(1).sum(dtype=torch.float64), q.sub_(p)
    terms, slope = terms * weight, (q - p) * weight
    return terms.sum(1).sum(dtype=torch.float64), slope.sub_(q.mul_(slope.sum(1, keepdim=True)))


def _log_softmax(logits: Tensor, valid: Tensor, temperature: float) -> Tensor:
    """Over the valid positions; at the others so low that their probability is 0, and finite."""
    logits = logits.masked_fill(~valid, -1e30 * min(temperature, 1.))
    # The leader is subtracted before the division: two large logits are far apart only in rounding.
    return (logits - logits.amax(1, keepdim=True)).mul_(1 / temperature).log_softmax(1)

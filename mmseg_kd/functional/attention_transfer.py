"""Attention transfer: where in the image the features are strong."""
from torch import Tensor
from torch.nn import functional as F

from .checks import checked, loss_function
from .evaluate import reduced


def attention(features: Tensor, valid: Tensor) -> Tensor:
    """Energy of the features over the valid positions of each image, (N, P), of Euclidean length 1.

    An image without any energy has the attention 0.
    """
    features = features.flatten(2).masked_fill(~valid.flatten(1).unsqueeze(1), 0.)
    # Attention does not see the scale of an image's features; without it their fourth power would overflow.
    scale = features.detach().abs().amax((1, 2), keepdim=True)
    energy = (features / scale.masked_fill(scale == 0, 1.)).square().sum(1)
    return F.normalize(energy, dim=1)


def attention_transfer_map(student: Tensor, teacher: Tensor, valid: Tensor) -> Tensor:
    """What each position contributes, (N, *), of checked features; the sum over an image is the loss of that image."""
    if valid.numel() == 0:
        return student.sum(1) * 0.
    return (attention(student, valid) - attention(teacher, valid)).square().view_as(valid)


@loss_function
def attention_transfer_loss(student: Tensor,
                            teacher: Tensor,
                            target: Tensor | None = None,
                            weight: Tensor | None = None,
                            *,
                            ignore_index: int | None = 255,
                            reduction: str = 'mean') -> Tensor:
    r"""Attention transfer: squared distance of the normalised maps of the features' energy.

    .. math:: L = \sum_i \Bigl( \frac{q_i}{\|q\|_2} - \frac{r_i}{\|r\|_2} \Bigr)^2, \qquad
              q_i = \sum_c s_{ci}^2, \quad r_i = \sum_c t_{ci}^2

    s and t are the features of student and teacher, i runs over the *valid* positions of one image: ignored ones are in
    no sum. The number of channels may differ, so no adapter is needed. The unit of this loss is an image, as for
    :func:`~.cwd_loss`: 'mean' divides by the number of images that have a valid position, 'sum' adds
    them up, 'none' is the (N, *) map of what each position contributes. The published code divides by the number of
    positions, too, which its large weights make up for.

    Reference: Zagoruyko and Komodakis, Paying More Attention to Attention, ICLR 2017, eq. 1 with p = 2 and eq. 2, there
    with weight beta / 2 on the distance; the published code squares it.

    Args:
        student: (N, C, *) features of any floating type, with at least one dimension of positions; the arithmetic is
            float32 or better.
        teacher: (N, C', *) features of the same positions, without gradient.
        target: (N, *) int64 labels; not needed, but positions labelled ``ignore_index`` are left out.
        weight: (N, *) factor of what a position contributes; 0 leaves it out of the maps, too.
        ignore_index: label of the positions that do not count; None when all count.
        reduction: 'mean' over images, 'sum', or 'none' for an (N, *) map.

    Raises:
        ValueError: (N, C) features, which have no positions; or a setting or a tensor that does not fit.

    Example:
        >>> import torch
        >>> attention_transfer_loss(torch.tensor([[[1., 0.]]]), torch.tensor([[[0., 2.], [0., 1.]]]))
        tensor(2.)
    """
    inputs = checked(
        student, teacher, target, weight, ignore_index, reduction, min_classes=1, same_channels=False, of_classes=False)
    if len(student.shape) < 3:
        raise ValueError('`student` must be (N, C, *) with positions for attention_transfer_loss, whose maps are over '
                         f'them, got shape {tuple(student.shape)}; for (N, C) use FeatureMSELoss')
    return reduced(lambda student, teacher: attention_transfer_map(student, teacher, inputs.valid), inputs,
                   count=inputs.valid.flatten(1).any(1).sum())

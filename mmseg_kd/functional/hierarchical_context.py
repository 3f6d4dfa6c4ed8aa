"""Hierarchical context: features compared at each position and over ever larger regions (ReviewKD)."""
from torch import Tensor
from torch.nn import functional as F

from .checks import checked, loss_function
from .evaluate import reduced

# Regions along each side of the image, from fine to coarse; each level counts half as much as the one before.
_LEVELS = (4, 2, 1)


def hierarchical_context_map(student: Tensor, teacher: Tensor, valid: Tensor) -> Tensor:
    """Loss per position, (N, H, W), of checked features; what regions contribute is the same all over their image."""
    if valid.numel() == 0:
        return student.sum(1) * 0.
    present = valid.unsqueeze(1).to(student.dtype)
    # Averaging is linear: the distance of averages is the average distance.
    difference = (student - teacher) * present
    values, share, total = difference.square().mean(1), 1., 1.
    for regions in _LEVELS:
        if regions >= min(valid.shape[1:]):
            continue
        covered = F.adaptive_avg_pool2d(present, regions)
        pooled = F.adaptive_avg_pool2d(difference, regions) / covered.clamp(min=1. / valid[0].numel())
        distance = pooled.square().mean(1, keepdim=True).sum((1, 2, 3)) / (covered > 0).sum((1, 2, 3)).clamp(min=1)
        share /= 2
        values, total = values + share * distance[:, None, None], total + share
    return values / total


@loss_function
def hierarchical_context_loss(student: Tensor,
                              teacher: Tensor,
                              target: Tensor | None = None,
                              weight: Tensor | None = None,
                              *,
                              ignore_index: int | None = 255,
                              reduction: str = 'mean') -> Tensor:
    r"""Hierarchical context loss of ReviewKD: squared distance of the features and of their averages over regions.

    .. math:: L = \frac{1}{\sum_l w_l} \sum_l w_l \, \mathrm{mean}\, (P_l s - P_l t)^2, \qquad w = 1, \tfrac12,
              \tfrac14, \tfrac18

    s and t are the features of student and teacher. P_0 leaves them alone; P_1, P_2, P_3 average them over 4 x 4,
    2 x 2 and 1 region; a level that is not smaller than the map is left out and the weights move up. A region's average
    is over its *valid* positions, the mean over the regions that have one, and over the channels, which makes one
    weight mean the same at every width. In 'none' and 'sum' an image's distance over regions is added to each of its
    valid positions, so that 'mean' is the loss above, with images weighed by their valid positions.

    Reference: Chen et al., Distilling Knowledge via Knowledge Review, CVPR 2021, section 3.3 and the published code.

    Args:
        student: (N, C, H, W) features of any floating type; the arithmetic is float32 or better.
        teacher: features of the same shape, without gradient.
        target: (N, H, W) int64 labels; not needed, but positions labelled ``ignore_index`` are left out.
        weight: (N, H, W) factor of each position; 0 leaves it out of the averages, too.
        ignore_index: label of the positions that do not count; None when all count.
        reduction: 'mean' over valid positions, 'sum', or 'none' for an (N, H, W) map.

    Raises:
        ValueError: features that are no (N, C, H, W) map; or a setting or a tensor that does not fit.

    Example:
        >>> import torch
        >>> student, teacher = torch.zeros(1, 1, 2, 2), torch.tensor([[[[2., -2.], [2., 2.]]]])
        >>> hierarchical_context_loss(student, teacher)  # (4 + 1 / 2) / (3 / 2)
        tensor(3.)
    """
    inputs = checked(
        student, teacher, target, weight, ignore_index, reduction, min_classes=1, of_classes=False)
    if len(student.shape) != 4:
        raise ValueError('`student` must be an (N, C, H, W) map for hierarchical_context_loss, which averages over '
                         f'regions, got shape {tuple(student.shape)}; use FeatureMSELoss')
    return reduced(lambda student, teacher: hierarchical_context_map(student, teacher, inputs.valid), inputs)

"""Which class is taken for which."""
import torch
from torch import Tensor

__all__ = ['accuracy', 'confusion_matrix', 'iou', 'row_shares']


def confusion_matrix(predicted: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Count label and predicted class together.

    Args:
        predicted: int64 class indices, any shape.
        labels: the same shape; labels that are not a class (the ignored one) are left out.
        num_classes: C.

    Returns:
        (C, C) int64: rows are labels, columns predictions.
    """
    valid = (labels >= 0) & (labels < num_classes)
    pairs = num_classes * labels[valid] + predicted[valid]
    return torch.bincount(pairs, minlength=num_classes**2).view(num_classes, num_classes).cpu()


def iou(matrix: Tensor) -> Tensor:
    """Intersection over union of each class, (C,) float64; NaN where a class is neither labelled nor predicted."""
    matrix = matrix.double()
    return matrix.diag() / (matrix.sum(0) + matrix.sum(1) - matrix.diag())


def accuracy(matrix: Tensor) -> float:
    """Share of right positions, in [0, 1]; NaN without any."""
    return (matrix.diag().sum() / matrix.sum().double()).item()


def row_shares(matrix: Tensor) -> Tensor:
    """Each row as shares of its sum, (C, C) float64; a row without labels is 0."""
    matrix = matrix.double()
    return matrix / matrix.sum(1, keepdim=True).clamp(min=1)

"""How close a student is to its teacher."""
import torch
from torch import Tensor

__all__ = ['Agreement']


class Agreement:
    r"""Agreement of two models' classes and distance of their logits, gathered batch by batch, by label.

    The distance at a position is the root mean square over the classes of z - v, student's and teacher's logits, each
    without its mean over the classes, which no softmax sees. The squared distance is the mean over the classes of
    (z - v)^2 with the logits as they are.

    Args:
        num_classes: C.
    """

    def __init__(self, num_classes: int):
        self.num_classes = num_classes
        self._sums = torch.zeros(4, num_classes, dtype=torch.float64)

    def update(self, student: Tensor, teacher: Tensor, labels: Tensor) -> None:
        """Add positions.

        Args:
            student: (N, C, *) logits.
            teacher: (N, C, *) logits.
            labels: (N, *); labels that are not a class are left out.
        """
        valid = (labels >= 0) & (labels < self.num_classes)
        difference = (student - student.mean(1, keepdim=True)) - (teacher - teacher.mean(1, keepdim=True))
        distance = difference.square().mean(1).sqrt()[valid]
        squared = (student - teacher).square().mean(1)[valid]
        agree = (student.argmax(1) == teacher.argmax(1))[valid]
        self._sums.index_add_(1, labels[valid].cpu(), torch.stack(
            [torch.ones_like(distance), agree.to(distance), distance, squared]).double().cpu())

    @property
    def agreement(self) -> float:
        """Share of positions where both name the same class, in [0, 1]."""
        return (self._sums[1].sum() / self._sums[0].sum()).item()

    @property
    def agreement_of_class(self) -> Tensor:
        """The same by label, (C,); NaN for a class without labels."""
        return self._sums[1] / self._sums[0]

    @property
    def distance(self) -> float:
        """Mean distance of the logits."""
        return (self._sums[2].sum() / self._sums[0].sum()).item()

    @property
    def squared_distance(self) -> float:
        """Mean squared difference of the logits as they are, over positions and classes."""
        return (self._sums[3].sum() / self._sums[0].sum()).item()

    @property
    def distance_of_class(self) -> Tensor:
        """The same by label, (C,); NaN for a class without labels."""
        return self._sums[2] / self._sums[0]

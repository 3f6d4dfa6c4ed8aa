"""How many classes a teacher means at a position: which k GDKD wants."""
import torch
from torch import Tensor

from mmseg_kd.functional import k_by_mass

__all__ = ['TopKMass']


class TopKMass:
    """The fewest classes that hold a share of the teacher's probability, counted over positions batch by batch.

    Args:
        num_classes: C.
        mass: The share, in (0, 1].
        temperature: Softens the distribution first.
    """

    def __init__(self, num_classes: int, mass: float = 0.95, temperature: float = 1.):
        self.num_classes = num_classes
        self.mass = mass
        self.temperature = temperature
        self.count = torch.zeros(num_classes, num_classes, dtype=torch.int64)

    def update(self, teacher: Tensor, labels: Tensor) -> None:
        """Add positions.

        Args:
            teacher: (N, C, *) logits.
            labels: (N, *); labels that are not a class are left out.
        """
        valid = (labels >= 0) & (labels < self.num_classes)
        k = k_by_mass(teacher, self.mass, self.num_classes, self.temperature)[valid]
        pairs = self.num_classes * labels[valid] + k
        self.count += torch.bincount(pairs, minlength=self.num_classes**2).view(self.num_classes, -1).cpu()

    @property
    def share(self) -> Tensor:
        """Share of positions that need exactly k classes, (C - 1,): entry 0 is k = 1; k = C - 1 also stands for C."""
        count = self.count.sum(0)[1:].double()
        return count / count.sum()

    @property
    def mean_k_of_class(self) -> Tensor:
        """Mean k by label, (C,); NaN for a class without labels."""
        k = torch.arange(self.num_classes, dtype=torch.float64)
        return (self.count * k).sum(1) / self.count.sum(1)

    def quantile(self, share: float) -> int:
        """The smallest k that is enough at this share of the positions."""
        return 1 + int((self.share.cumsum(0) < share - 1e-12).sum())

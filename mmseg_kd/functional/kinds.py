"""Which losses the operators know, and the number that stands for each in a kernel, on a CPU as on a GPU."""
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from .binary import BinaryKL, BinaryKLNorm
from .grouped import ByRank, GroupedLoss, OneGroup, RandomPart, TargetAndRest

__all__ = ['ALL', 'BINARY_KL', 'BINARY_KL_NORM', 'CROSS_ENTROPY', 'CrossEntropy', 'GIVEN', 'Loss', 'RANDOM', 'RANK',
           'TARGET', 'kind_of']

#: How groups are formed; those that a kernel does not form itself are given to it.
ALL, TARGET, RANK, RANDOM, GIVEN = range(5)
#: The losses without groups.
BINARY_KL, BINARY_KL_NORM, CROSS_ENTROPY = range(5, 8)


@dataclass(frozen=True)
class CrossEntropy:
    """With labels and without a teacher: it rides along where the operators upsample."""

    temperature = 1.
    needs_target = True

    def map(self, student: Tensor, teacher: Tensor | None, target: Tensor) -> Tensor:
        """(N, *) values of (N, C, *) logits."""
        return F.cross_entropy(student, target, reduction='none')


Loss = GroupedLoss | BinaryKL | BinaryKLNorm | CrossEntropy

_OF_GROUPS = {OneGroup: ALL, TargetAndRest: TARGET, ByRank: RANK, RandomPart: RANDOM}
_OF_LOSS = {BinaryKL: BINARY_KL, BinaryKLNorm: BINARY_KL_NORM, CrossEntropy: CROSS_ENTROPY}


def kind_of(loss: Loss) -> int:
    """The number of a loss.

    Raises:
        ValueError: as many weights as there are not groups.
    """
    if not isinstance(loss, GroupedLoss):
        return _OF_LOSS[type(loss)]
    if len(loss.w_within) != loss.groups.number:
        raise ValueError(f'`w_within` must hold one weight for each of {loss.groups.number} groups, got '
                         f'{len(loss.w_within)}')
    kind = _OF_GROUPS.get(type(loss.groups), GIVEN)
    # Kernels form two groups by rank, or three of which the first is one class.
    if kind == RANK:
        first, *others = loss.groups.boundaries
        return kind if not others or (first, len(others)) == (1, 1) else GIVEN
    return kind

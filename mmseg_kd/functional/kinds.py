"""Which losses the operators know, and the number that stands for each in a kernel, on a CPU as on a GPU."""
import functools
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from .binary import BinaryKL, BinaryKLNorm
from .grouped import ByRank, GroupedLoss, OneGroup, RandomPart, TargetAndRest, kl_terms, masked_log_softmax

__all__ = ['ALL', 'BINARY_KL', 'BINARY_KL_NORM', 'CHANNEL_WISE', 'COUPLED', 'CROSS_ENTROPY', 'ChannelWise',
           'CrossEntropy', 'GIVEN', 'Loss', 'RANDOM', 'RANK', 'TARGET',
           'has_operators', 'kind_of']

#: How groups are formed; those that a kernel does not form itself are given to it.
ALL, TARGET, RANK, RANDOM, GIVEN = range(5)
#: The losses without groups.
BINARY_KL, BINARY_KL_NORM, CROSS_ENTROPY, CHANNEL_WISE = range(5, 9)
#: DKD with the coupling term of DGKD.
COUPLED = 9


@dataclass(frozen=True)
class CrossEntropy:
    """With labels and without a teacher: it rides along where the operators upsample."""

    temperature = 1.
    needs_target = True

    def map(self, student: Tensor, teacher: Tensor | None, target: Tensor) -> Tensor:
        """(N, *) values of (N, C, *) logits."""
        return F.cross_entropy(student, target, reduction='none')


@dataclass(frozen=True)
class ChannelWise:
    """See :func:`.cwd.cwd_loss`: its distributions run over the positions, so that it has operators of its own."""

    temperature: float
    needs_target = False

    def map(self, student: Tensor, teacher: Tensor, valid: Tensor) -> Tensor:
        """What each position contributes, (N, *), of checked (N, C, *) logits; its sum over an image is the loss of
        that image.

        Args:
            valid: (N, *) bool, the positions that the distributions run over.
        """
        if valid.numel() == 0:
            return student.sum(1) * 0.
        member = valid.flatten(1).unsqueeze(2)  # (N, P, 1)
        log_q, log_p = (masked_log_softmax(logits.flatten(2).transpose(1, 2), member, self.temperature)[0]
                        for logits in (student, teacher))
        return self.temperature**2 * kl_terms(log_p, log_q, member).mean(2).view_as(valid)


Loss = GroupedLoss | BinaryKL | BinaryKLNorm | CrossEntropy | ChannelWise

_OF_GROUPS = {OneGroup: ALL, TargetAndRest: TARGET, ByRank: RANK, RandomPart: RANDOM}
_OF_LOSS = {BinaryKL: BINARY_KL, BinaryKLNorm: BINARY_KL_NORM, CrossEntropy: CROSS_ENTROPY, ChannelWise: CHANNEL_WISE}


@functools.lru_cache(maxsize=64)
def has_operators(loss: Loss) -> bool:
    """Whether the operators know a loss."""
    if not isinstance(loss, GroupedLoss):
        return True
    one_out = isinstance(loss.groups, RandomPart) and loss.groups.one_out
    return loss.standardize is None and not loss.by_mass and not one_out


@functools.lru_cache(maxsize=64)
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

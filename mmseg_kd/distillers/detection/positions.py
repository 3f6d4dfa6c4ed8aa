"""Where a detector's losses are computed: anchors, points, proposals, edges of boxes, pixels of masks."""
from typing import NamedTuple

import torch
from torch import Tensor

from mmseg_kd.taps import Arguments

__all__ = ['WEIGHTS', 'LossCall', 'Positions', 'Scored', 'foreground_confidence', 'joined', 'weighted']

#: What a term's ``weight`` may be, beside None.
WEIGHTS = ('foreground', 'confidence')


class LossCall(NamedTuple):
    """One call of a loss module of mmdet, ``loss(prediction, target, weight=None, ...)``."""

    prediction: Tensor
    target: Tensor
    weight: Tensor | None

    @classmethod
    def of(cls, call: Arguments) -> 'LossCall':
        """Read it from the arguments of a call."""
        prediction, target = call.positional[:2]
        return cls(prediction, target, call.positional[2] if len(call.positional) > 2 else call.named.get('weight'))


class Positions(NamedTuple):
    """The positions of one of the student's own losses, and how they count there."""

    logits: Tensor  #: (N, C) or (N, C, *) of the student, with gradient
    target: Tensor  #: (N, *) int64; of class logits the assigned class, the last one is the background
    weight: Tensor  #: (N, *) factor of each position; 0: it does not count
    count: Tensor  #: what the student's own mean divides by, a scalar
    groups: int = 1  #: how many means of equal rank lie side by side (the stages of a cascade)

    @property
    def foreground(self) -> Tensor:
        """(N,) bool: an object is assigned; only for class logits."""
        return self.target < self.logits.shape[1] - 1


class Scored(NamedTuple):
    """Where a student computed its own losses in a training step; a teacher scores the same."""

    positions: dict[str, Positions]  #: by tap; empty where no term reads scores
    boxes: list[Tensor]  #: of a second stage: the proposals of each of its stages, (n, 5): image, x1, y1, x2, y2
    masked: list[Tensor]  #: of a second stage: the boxes of each stage that have a mask

    @classmethod
    def nothing(cls) -> 'Scored':
        """Nothing yet; it is filled while the student runs."""
        return cls({}, [], [])


def foreground_confidence(logits: Tensor, sigmoid: bool) -> Tensor:
    """The highest probability of a class that is not the background, (N,).

    Args:
        logits: (N, C), the last column is the background.
        sigmoid: Whether each class is a yes or no of its own; else a softmax over all columns.
    """
    classes = logits[:, :-1].float()
    if sigmoid:
        return classes.amax(1).sigmoid()
    return (classes.amax(1) - logits.float().logsumexp(1)).exp()


def weighted(positions: Positions, weight: str | None, confidence: Tensor | None) -> tuple[Tensor, Tensor]:
    """Weight of each position under a term's ``weight``, and what the mean divides by.

    Args:
        positions: Those of the student's loss.
        weight: None: as there. ``'foreground'``: only where an object is assigned; the mean is over these positions.
            ``'confidence'``: times the teacher's ``confidence``; the mean divides by its sum.
        confidence: (N,) of the teacher, in [0, 1]; only for ``'confidence'``.

    Returns:
        (N, *) weights and a scalar.
    """
    if weight is None:
        return positions.weight, positions.count
    factor = positions.foreground.to(positions.weight.dtype) if weight == 'foreground' else confidence
    return positions.weight * factor, (factor * (positions.weight != 0)).sum() / positions.groups


def joined(parts: list[Positions]) -> Positions:
    """Positions of several calls of one loss, or of several losses, as one.

    The counts are added up; see :attr:`Positions.groups`.
    """
    return Positions(*(torch.cat([getattr(part, name) for part in parts]) for name in ('logits', 'target', 'weight')),
                     sum(part.count for part in parts))

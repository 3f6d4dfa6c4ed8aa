"""The loss of one block of positions, whichever loss it is, and what it needs to know."""
from typing import NamedTuple

import numpy as np

from .arithmetic import jit
from .binary import binary_kl_block, binary_kl_norm_block
from .cross_entropy import cross_entropy_block
from .grouped import grouped_block
from .groups import TARGET, assign_groups
from .one_set import one_set_block
from .two_sets import two_sets_block

__all__ = ['BINARY_KL', 'BINARY_KL_NORM', 'CROSS_ENTROPY', 'Settings', 'block_loss', 'block_width']

#: Values of ``Settings.kind`` beyond those of :mod:`.groups`.
BINARY_KL, BINARY_KL_NORM, CROSS_ENTROPY = 4, 5, 6


class Settings(NamedTuple):
    """What the machine code reads; see :func:`.groups.assign_groups` and :func:`.grouped.grouped_block`."""

    kind: int
    temperature: np.float32
    num_groups: int
    w_between: np.float32
    w_within: np.ndarray  #: (3,) float32
    forward: np.float32
    reverse: np.float32
    boundaries: np.ndarray  #: (1 or 2,) int32
    largest: int  #: the largest boundary at any position
    leading: bool
    ratio: np.float32
    keep: np.float32


def block_width(num_classes: int) -> int:
    """Positions of a block: its scratch, 20 bytes per entry, stays in a core's own cache."""
    return 128 if num_classes <= 64 else 64


@jit
def block_loss(student, teacher, group, target, boundaries, draws, settings, factor, loss):
    """(C, B) ``student`` becomes factor * gradient, (B,) ``loss`` factor * value; the rest is scratch.

    Returns:
        For cross-entropy how many positions are classified rightly, else 0.
    """
    if settings.kind == CROSS_ENTROPY:
        return cross_entropy_block(student, target, factor, loss)
    if settings.kind == BINARY_KL:
        binary_kl_block(student, teacher, settings.temperature, factor, loss)
    elif settings.kind == BINARY_KL_NORM:
        binary_kl_norm_block(student, teacher, settings.temperature, factor, loss)
    elif settings.kind <= TARGET and settings.reverse == 0:
        # All classes, or all but the target.
        one_set_block(student, teacher, target, settings.kind == TARGET, settings.temperature, settings.w_between,
                      settings.w_within[settings.kind], factor, loss)
    else:
        assign_groups(group, teacher, settings.kind, target, boundaries, settings.largest, settings.leading,
                      settings.ratio, settings.temperature, draws, settings.keep)
        if settings.num_groups == 2 and settings.reverse == 0:
            two_sets_block(student, teacher, group, settings.temperature, settings.w_between, settings.w_within, factor,
                           loss)
            return 0
        grouped_block(student, teacher, group, settings.num_groups, settings.temperature, settings.w_between,
                      settings.w_within, settings.forward, settings.reverse, factor, loss)
    return 0

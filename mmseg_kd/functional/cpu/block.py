"""The loss of one block of positions, whichever loss it is; and blocks shared between threads."""
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

from ..kinds import BINARY_KL, BINARY_KL_NORM, COUPLED, CROSS_ENTROPY, TARGET
from .arithmetic import jit
from .grouped import assign_groups, coupled_block, grouped_block, one_set_block, two_sets_block
from .ungrouped import binary_kl_block, binary_kl_norm_block, cross_entropy_block

__all__ = ['Settings', 'block_loss', 'block_width', 'in_parallel']


class Settings(NamedTuple):
    """What the machine code reads; see :func:`.grouped.assign_groups` and :func:`.grouped.grouped_block`."""

    kind: int
    temperature: np.float32
    num_groups: int
    w_between: np.float32
    w_within: np.ndarray  #: float32, one for each group, and at least 3
    forward: np.float32
    reverse: np.float32
    boundaries: np.ndarray  #: (1 or 2,) int32
    largest: int  #: the largest boundary at any position
    leading: bool
    ratio: np.float32
    keep: np.float32
    slope: np.float32 = np.float32(0)  #: of the coupling term, see :func:`.grouped.coupled_block`
    sums_only: bool = False  #: whether only its figures are wanted


def block_width(num_classes: int) -> int:
    """Positions of a block: its scratch, 20 bytes per entry, stays in a core's own cache."""
    return 128 if num_classes <= 64 else 64


@jit
def block_loss(student, teacher, group, target, boundaries, draws, settings, factor, loss, figures):
    """(C, B) ``student`` becomes factor * gradient, (B,) ``loss`` factor * value; the rest is scratch.
    ``figures`` (5,) are the coupling term's, see :func:`.grouped.coupled_block`.

    Returns:
        For cross-entropy how many positions are classified rightly, else 0.
    """
    if settings.kind == CROSS_ENTROPY:
        return cross_entropy_block(student, target, factor, loss)
    if settings.kind == BINARY_KL:
        binary_kl_block(student, teacher, settings.temperature, factor, loss)
    elif settings.kind == BINARY_KL_NORM:
        binary_kl_norm_block(student, teacher, settings.temperature, factor, loss)
    elif settings.kind == COUPLED:
        coupled_block(student, teacher, target, settings.temperature, settings.w_between, settings.w_within[TARGET],
                      settings.slope, settings.sums_only, factor, loss, figures)
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


@lru_cache(maxsize=1)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    # A forked child has the parent's pool without its threads; the process number makes it one of its own.
    return ThreadPoolExecutor(threads, thread_name_prefix='mmseg_kd')


def in_parallel(work: Callable[[int, int], None], pieces: int) -> None:
    """Call ``work(first, last)`` until 0 .. pieces - 1 are done; it releases the GIL and writes only to its pieces."""
    threads = min(torch.get_num_threads(), pieces)
    if threads <= 1:
        work(0, pieces)
        return
    # More shares than threads: a busy core takes fewer.
    shares = min(pieces, 4 * threads)
    bounds = [pieces * share // shares for share in range(shares + 1)]
    pool = _pool(os.getpid(), threads)
    for future in [pool.submit(work, *pair) for pair in zip(bounds[:-1], bounds[1:], strict=True)]:
        future.result()

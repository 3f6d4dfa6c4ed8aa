"""A loss in the words of the kernels."""
import functools
from typing import Any, Dict, NamedTuple, Tuple

from ..spec import LossSpec

__all__ = ['Settings', 'settings_of']

_KINDS = dict(all=0, target=1, rank=2, random=3, binary=4, binary_norm=5, cross_entropy=6)


class Settings(NamedTuple):
    """What a kernel is compiled for, and what it is called with."""

    constants: Dict[str, Any]  #: one kernel is compiled for each of these
    numbers: Tuple[float, ...]  #: temperature, w_between, w_a, w_b, ratio, keep
    boundary: int  #: the rank at which the second set begins at every position
    needs_target: bool
    needs_draws: bool


@functools.lru_cache(maxsize=64)
def settings_of(spec: LossSpec, num_classes: int) -> Settings:
    """Of the groups of a spec at most one is a class by itself, and none but the others have a weight within."""
    within, has_one = spec.w_within, spec.kind in ('target', 'random') or len(spec.boundaries) == 2
    if spec.kind == 'random':
        _, w_b, w_a = within
    else:
        w_a, w_b = (*within[int(has_one):], 0.)[:2]
    boundary = min(spec.boundaries[-1], num_classes) if spec.boundaries else 1
    constants = dict(
        NUM_CLASSES=num_classes, KIND=_KINDS[spec.kind], SETS=len(within) - has_one, HAS_ONE=has_one,
        DIVERGENCE=dict(forward=0, both=1, reverse=2)[spec.divergence], LEADING=spec.strategy == 'best',
        BY_RATIO=bool(spec.ratio))
    numbers = (spec.temperature, spec.w_between, w_a, w_b, spec.ratio or 0., spec.keep)
    return Settings(constants, tuple(map(float, numbers)), boundary, spec.needs_target or spec.kind == 'cross_entropy',
                    spec.kind == 'random')

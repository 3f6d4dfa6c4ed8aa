"""How far two computations of the same logits are apart."""
from collections.abc import Iterable

from torch import Tensor

__all__ = ['difference', 'refuse']


def difference(pairs: Iterable[tuple[Tensor, Tensor]]) -> dict:
    """Compare expected and found outputs.

    Args:
        pairs: (expected, found) of logits or probabilities (N, C, *).

    Returns:
        ``shape`` of the first output, ``largest`` absolute difference, ``relative`` to the largest expected value, and
        the share of positions whose class differs (``other_class``).
    """
    shape, largest, scale, other, positions = None, 0., 0., 0, 0
    for expected, found in pairs:
        shape = shape or list(found.shape)
        if expected.shape != found.shape:
            return dict(shape=shape, largest=float('inf'), relative=float('inf'), other_class=1.)
        gap = (expected.double() - found.double()).abs().max().item()
        # NaN is not a number that a maximum keeps.
        largest = max(largest, gap) if gap == gap else float('inf')
        scale = max(scale, expected.double().abs().max().item())
        classes = (expected > 0, found > 0) if expected.shape[1] == 1 else (expected.argmax(1), found.argmax(1))
        other += (classes[0] != classes[1]).sum().item()
        positions += classes[0].numel()
    return dict(shape=shape, largest=largest, relative=largest / scale if scale else largest,
                other_class=other / max(positions, 1))


def refuse(what: str, found: dict, tolerance: float) -> None:
    """Refuse an output that differs.

    Raises:
        ValueError: the relative difference is above the tolerance; the message has the figures.
    """
    if not found['relative'] <= tolerance:
        raise ValueError(f'{what} computes other outputs than the trained student: the largest difference is '
                         f'{found["largest"]:.3g}, {found["relative"]:.3g} of the largest value (allowed: '
                         f'{tolerance:g}), and {found["other_class"]:.2%} of the classes differ, for an output of '
                         f'shape {tuple(found["shape"])}.')

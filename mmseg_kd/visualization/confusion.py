"""What a student confuses more, or less, than another."""
from collections.abc import Sequence

import numpy as np
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from .theme import ALONE, DISTILLED, MUTED, figure_style

__all__ = ['draw_confusion_difference']


def draw_confusion_difference(difference: np.ndarray, classes: Sequence[str], limit: float | None = None) -> Figure:
    """Draw the difference of two row-normalised confusion matrices.

    Blue is better: more on the diagonal, less beside it; orange is worse. Strength of the colour is the size.

    Args:
        difference: (C, C) in percentage points, rows are labels; NaN rows (no such label) stay empty.
        classes: Names.
        limit: Difference that has the full colour; None: the 98th percentile of the sizes.
    """
    number = len(classes)
    size = np.abs(np.nan_to_num(difference))
    limit = limit or max(float(np.percentile(size, 98)), 1e-9)
    better = np.where(np.eye(number, dtype=bool), difference, -difference) > 0
    with figure_style():
        figure = Figure(figsize=(10.5, 8.4), layout='constrained')
        axis = figure.subplots()
        for row, column in np.ndindex(number, number):
            strength = min(size[row, column] / limit, 1.)
            if strength > 0.02:
                axis.add_patch(_cell(column, row, DISTILLED[0] if better[row, column] else ALONE, strength))
            if size[row, column] >= max(0.995, 0.25 * limit):
                axis.text(column, row, f'{difference[row, column]:+.0f}', ha='center', va='center', fontsize=7.5)
        axis.set(xlim=(-0.5, number - 0.5), ylim=(number - 0.5, -0.5), xticks=range(number), yticks=range(number),
                 yticklabels=classes, xlabel='predicted', ylabel='labelled', aspect='auto')
        axis.set_xticks(range(number), classes, rotation=45, ha='right', rotation_mode='anchor')
        axis.tick_params(length=0)
        axis.grid(visible=False)
        axis.set_xticks(np.arange(number + 1) - 0.5, minor=True)
        axis.set_yticks(np.arange(number + 1) - 0.5, minor=True)
        axis.grid(which='minor', visible=True)
        axis.tick_params(which='minor', length=0)
        for at in range(number):
            axis.add_patch(Rectangle((at - 0.5, at - 0.5), 1, 1, facecolor='none', edgecolor=MUTED, linewidth=0.9))
    return figure


def _cell(column: int, row: int, color: str, strength: float) -> Rectangle:
    # Opacity as an attribute of its own, so that the colour stays one of the theme's.
    return Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=to_rgba(color), alpha=0.85 * strength, edgecolor='none')

"""A picture of predictions side by side."""
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

__all__ = ['colorize', 'draw_predictions']

_VOID = (0, 0, 0)


def colorize(labels: np.ndarray, palette: Sequence[Sequence[int]], ignore_index: int = 255) -> np.ndarray:
    """Paint a label map.

    Args:
        labels: (H, W) class indices; ``ignore_index`` becomes black.
        palette: RGB of each class, 0 to 255.
        ignore_index: The label without a class.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: a label that the palette does not have.
    """
    table = np.zeros((max(256, len(palette)), 3), np.uint8)
    table[:len(palette)] = palette
    table[ignore_index] = _VOID
    unknown = set(np.unique(labels).tolist()) - set(range(len(palette))) - {ignore_index}
    if unknown:
        raise ValueError(f'`labels`: expected 0 to {len(palette) - 1} or {ignore_index}, got {sorted(unknown)}.')
    return table[labels]


def draw_predictions(columns: dict[str, Sequence[np.ndarray]], classes: Sequence[str] = (),
                     palette: Sequence[Sequence[int]] = ()) -> Figure:
    """Draw a grid: a row per image, a column per source, the column's name above it, the classes below.

    Args:
        columns: Name to (H, W, 3) uint8 RGB pictures, as many in each column.
        classes: Names for the legend.
        palette: Their RGB colours, 0 to 255.

    Returns:
        A matplotlib figure of its own (no pyplot state); save it with ``figure.savefig``.
    """
    rows = len(next(iter(columns.values())))
    height, width = next(iter(columns.values()))[0].shape[:2]
    cell = 2.6
    cell_height = cell * height / width
    legend = 0.62 if classes else 0.
    figure = Figure(figsize=(cell * len(columns), 0.3 + rows * cell_height + legend), dpi=160)
    axes = figure.subplots(rows, len(columns), squeeze=False)
    total = figure.get_figheight()
    figure.subplots_adjust(left=0.004, right=0.996, top=1 - 0.27 / total, bottom=legend / total + 0.005, wspace=0.02,
                           hspace=0.03)
    for column, (name, pictures) in enumerate(columns.items()):
        for row, picture in enumerate(pictures):
            axes[row, column].imshow(picture, interpolation='nearest')
            axes[row, column].set_axis_off()
        axes[0, column].set_title(name, fontsize=9, pad=3)
    if classes:
        handles = [matplotlib.patches.Patch(facecolor=np.array(color) / 255, label=name)
                   for name, color in zip(classes, palette, strict=True)]
        figure.legend(handles=handles, loc='lower center', ncols=10, fontsize=6.5, frameon=False, handlelength=1.2,
                      columnspacing=1.2, borderaxespad=0.2)
    return figure

"""A value of each class over time, for several runs."""
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from .theme import figure_style

__all__ = ['draw_class_heat']


def draw_class_heat(values: Mapping[str, np.ndarray], classes: Sequence[str], steps: Mapping[str, Sequence[int]],
                    label: str, columns: int = 3) -> Figure:
    """A map for each run: classes down, time across, the value as a colour, on one logarithmic scale for all.

    Args:
        values: Name of a run to (classes, steps); NaN and 0 stay empty.
        classes: Names.
        steps: Name of a run to its steps, increasing.
        label: What is measured.
        columns: Maps in a row.
    """
    everything = np.concatenate([each[np.isfinite(each) & (each > 0)] for each in values.values()])
    scale = LogNorm(everything.min(), everything.max())
    columns = min(columns, len(values))
    rows = -(-len(values) // columns)
    with figure_style():
        figure = Figure(figsize=(10.5, rows * (0.8 + 0.2 * len(classes)) + 0.3), layout='constrained')
        axes = list(figure.subplots(rows, columns, squeeze=False, sharey=True).flat)
        for axis, (name, each) in zip(axes, values.items(), strict=False):
            drawn = axis.pcolormesh(np.ma.masked_invalid(np.where(each > 0, each, np.nan)), norm=scale, cmap='cividis')
            marks = np.unique(np.linspace(0, len(steps[name]) - 1, min(5, len(steps[name]))).astype(int))
            axis.set(title=name, xticks=marks + 0.5, xticklabels=[steps[name][index] for index in marks],
                     yticks=np.arange(len(classes)) + 0.5, ylim=(len(classes), 0))
            axis.set_yticklabels(classes)
            axis.grid(visible=False)
            axis.tick_params(length=0)
        for axis in axes[len(values):]:
            axis.set_visible(False)
        bar = figure.colorbar(drawn, ax=axes, label=label, shrink=0.8, format='{x:g}', ticks=LogLocator(subs=(1, 2, 5)))
        bar.ax.yaxis.set_minor_formatter(NullFormatter())
    return figure

"""A value of each class for several runs."""
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from .theme import MUTED, figure_style

__all__ = ['draw_class_bars', 'draw_class_dots']


def draw_class_bars(values: Mapping[str, Sequence[float]], classes: Sequence[str], colors: Mapping[str, str],
                    xlabel: str, baseline: str | None = None, compared: Sequence[str] = ()) -> Figure:
    """Bars of each class for each run, and beside them the difference of some of them to a baseline.

    Args:
        values: Name of a run to a value per class; NaN leaves a gap.
        classes: Their names.
        colors: Name of a run to its colour.
        xlabel: What is measured, with its unit.
        baseline: A run of ``values``; None: no differences.
        compared: Runs whose difference to it is drawn.
    """
    names, position = list(values), np.arange(len(classes))
    thick = 0.8 / len(names)
    with figure_style():
        figure = Figure(figsize=(10.5, 0.9 + len(classes) * max(0.34, 0.125 * len(names) + 0.08)), layout='constrained')
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=[1.7, 1]) if baseline else (
            figure.subplots(), None)
        for index, name in enumerate(names):
            left.barh(position + (index - (len(names) - 1) / 2) * thick, values[name], thick * 0.92,
                      color=colors[name], label=name)
        left.set(yticks=position, yticklabels=classes, xlabel=xlabel, ylim=(len(classes) - 0.5, -0.5))
        left.grid(axis='y', visible=False)
        left.tick_params(axis='y', length=0)
        if right is not None:
            _draw_differences(right, values, colors, baseline, compared)
            right.set(xlabel=f'difference to {baseline}')
        figure.legend(*left.get_legend_handles_labels(), loc='outside upper left', ncols=min(len(names), 6),
                      handlelength=1.1)
    return figure


def _draw_differences(axis, values, colors, baseline: str, compared: Sequence[str]) -> None:
    base = np.asarray(values[baseline], float)
    thick = 0.8 / len(compared)
    for index, name in enumerate(compared):
        at = np.arange(len(base)) + (index - (len(compared) - 1) / 2) * thick
        difference = np.asarray(values[name], float) - base
        axis.hlines(at, 0, difference, color=colors[name], linewidth=1.4)
        axis.plot(difference, at, 'o', color=colors[name], markersize=4.5)
    axis.axvline(0, color=MUTED, linewidth=1)
    axis.grid(axis='y', visible=False)
    axis.tick_params(axis='y', length=0)


def draw_class_dots(values: Mapping[str, Sequence[float]], classes: Sequence[str], colors: Mapping[str, str],
                    xlabel: str) -> Figure:
    """A row per class with a dot for each run.

    Args:
        values: Name of a run to a value per class; NaN leaves a gap.
        classes: Their names.
        colors: Name of a run to its colour.
        xlabel: What is measured, with its unit.
    """
    with figure_style():
        figure = Figure(figsize=(10.5, 0.9 + 0.27 * len(classes)), layout='constrained')
        axis = figure.subplots()
        table = np.array([np.asarray(each, float) for each in values.values()])
        rows = np.arange(len(classes))
        seen = np.isfinite(table).any(0)
        axis.hlines(rows[seen], np.nanmin(table[:, seen], 0), np.nanmax(table[:, seen], 0), color=MUTED, linewidth=1.2,
                    alpha=0.5)
        for (name, each), marker in zip(values.items(), 'osD^vP' * len(values), strict=False):
            axis.plot(each, rows, marker, color=colors[name], markersize=6.5, label=name)
        axis.set(yticks=rows, yticklabels=classes, xlabel=xlabel, ylim=(len(classes) - 0.5, -0.5))
        axis.tick_params(axis='y', length=0)
        figure.legend(*axis.get_legend_handles_labels(), loc='outside upper left', ncols=6, handletextpad=0.2)
    return figure

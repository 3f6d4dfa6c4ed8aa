"""Gains over a baseline as a figure."""
from collections.abc import Sequence

from matplotlib.figure import Figure

from .theme import DISTILLED, MUTED, figure_style

__all__ = ['draw_gains']


def draw_gains(names: Sequence[str], gains: Sequence[Sequence[float]], baseline: str, metric: str) -> Figure:
    """A bar for each row's mean gain, and a dot for each seed.

    Args:
        names: Names of the rows, from top to bottom.
        gains: The gains of each row, in points of the metric: one for each seed, or one for the difference of means.
        baseline: Name of the row that they are counted from.
        metric: What is gained.
    """
    with figure_style():
        figure = Figure(figsize=(9, 0.9 + 0.3 * len(names)), layout='constrained')
        axis = figure.subplots()
        means = [sum(each) / len(each) for each in gains]
        axis.barh(range(len(names)), means, height=0.62, color=DISTILLED[0], alpha=0.55)
        for row, each in enumerate(gains):
            axis.plot(each, [row] * len(each), 'o', color=DISTILLED[0], markersize=4.5)
        right = max(max(each) for each in gains)
        for row, mean in enumerate(means):
            axis.annotate(f'{mean:+.2f}', (max(0., *gains[row]), row), xytext=(7, 0), textcoords='offset points',
                          va='center', fontsize=9)
        axis.axvline(0, color=MUTED, linewidth=1)
        axis.set(yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.5, -0.5),
                 xlabel=f'gain in {metric} over "{baseline}"; a dot for each seed')
        axis.set_xmargin(0.12)
        axis.set_xlim(right=max(right, 0.) + 0.12 * (abs(right) + 1))
        axis.grid(axis='y', visible=False)
        axis.tick_params(axis='y', length=0)
    return figure

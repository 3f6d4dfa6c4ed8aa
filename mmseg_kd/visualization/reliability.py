"""Confidence against accuracy."""
from collections.abc import Mapping

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from .theme import LINES, MUTED, figure_style

__all__ = ['draw_reliability']


def draw_reliability(calibrations: Mapping, colors: Mapping[str, str]) -> Figure:
    """Draw the reliability diagram of several runs, and how often each is how confident.

    Args:
        calibrations: Name of a run to its :class:`~mmseg_kd.evaluation.calibration.Calibration`.
        colors: Name of a run to its colour.
    """
    with figure_style():
        figure = Figure(figsize=(10.5, 4.6), layout='constrained')
        left, right = figure.subplots(1, 2)
        left.plot([0, 1], [0, 1], color=MUTED, linewidth=1)
        left.text(0.03, 0.96, 'right more often than it says', fontsize=8.5, color=MUTED, transform=left.transAxes,
                  va='top')
        left.text(0.97, 0.04, 'sure, and wrong', fontsize=8.5, color=MUTED, transform=left.transAxes, ha='right')
        for (name, each), line in zip(calibrations.items(), LINES * len(calibrations), strict=False):
            filled = each.count > 0
            left.plot(each.confidence[filled], each.accuracy[filled], color=colors[name], linestyle=line, marker='o',
                      markersize=3.5, label=f'{name}: ECE {100 * each.error:.1f} %')
            edges = [(2 * m + 1) / (2 * each.bins) for m in range(each.bins)]
            right.plot(edges, each.count / each.count.sum(), color=colors[name], linestyle=line, marker='o',
                       markersize=3.5)
        left.set(xlim=(0, 1), ylim=(0, 1), xlabel='confidence', ylabel='share of right pixels',
                 title='Is it as right as it is sure?')
        right.set(xlim=(0, 1), ylim=(0, None), xlabel='confidence', ylabel='share of pixels',
                  title='How sure is it?')
        for axis in (left.xaxis, left.yaxis, right.xaxis, right.yaxis):
            axis.set_major_formatter(PercentFormatter(1., decimals=0))
        figure.legend(*left.get_legend_handles_labels(), loc='outside lower center', ncols=3, handlelength=3)
    return figure

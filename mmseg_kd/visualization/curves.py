"""Curves of several runs together."""
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from .theme import LINES, MUTED, figure_style

__all__ = ['Panel', 'draw_curves']


class Panel(NamedTuple):
    """One pair of axes.

    Attributes:
        title: Above it.
        ylabel: What is measured, with its unit.
        curves: Name of a curve to (x, y).
        log: Whether the vertical axis is logarithmic.
        zero: Whether to mark y = 0.
    """

    title: str
    ylabel: str
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]]
    log: bool = False
    zero: bool = False


def draw_curves(panels: Sequence[Panel], colors: Mapping[str, str], xlabel: str = 'iteration',
                columns: int = 2, height: float = 3.3) -> Figure:
    """Draw panels of curves, a run in one colour everywhere, with one legend below.

    Args:
        panels: Those without curves are left out.
        colors: Name of a curve to its colour, in the order of the legend.
        xlabel: Of all panels.
        columns: Panels in a row.
        height: Of a row, in inches.
    """
    panels = [panel for panel in panels if panel.curves]
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    with figure_style():
        figure = Figure(figsize=(10.5, rows * height + 0.45), layout='constrained')
        axes = list(figure.subplots(rows, columns, squeeze=False).flat)
        handles = {}
        for axis, panel in zip(axes, panels, strict=False):
            for position, (name, color) in enumerate(colors.items()):
                if name in panel.curves:
                    x, y = panel.curves[name]
                    handles[name], = axis.plot(x, y, color=color, linestyle=LINES[position % len(LINES)],
                                               marker='o' if len(x) < 40 else '', markersize=3.2, label=name)
            if panel.log:
                axis.set_yscale('log')
                # 0.2 and not 2 x 10^-1.
                axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axis.yaxis.set_major_formatter(StrMethodFormatter('{x:g}'))
                axis.yaxis.set_minor_formatter(NullFormatter())
            if panel.zero:
                axis.axhline(0, color=MUTED, linewidth=1)
            axis.set(title=panel.title, ylabel=panel.ylabel, xlabel=xlabel)
        for axis in axes[len(panels):]:
            axis.set_visible(False)
        ordered = [name for name in colors if name in handles]
        figure.legend([handles[name] for name in ordered], ordered, loc='outside lower center',
                      ncols=min(len(ordered), 6), handlelength=3)
    return figure

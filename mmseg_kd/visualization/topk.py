"""How many classes the teacher means."""
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from .theme import DISTILLED, figure_style

__all__ = ['draw_topk_mass']


def draw_topk_mass(masses: Mapping[str, object], classes: Sequence[str], largest: int = 8, positions: str = 'pixels',
                   chosen: Sequence[int] | None = None) -> Figure:
    """Draw how many classes hold the teacher's mass: over the pixels, and on average by label.

    Args:
        masses: Words for a temperature to its :class:`~mmseg_kd.evaluation.topk_mass.TopKMass`.
        classes: Names, of the chosen classes.
        largest: The last bar stands for this k and all above it.
        positions: What a position is.
        chosen: Classes whose mean k is drawn; None: all.
    """
    with figure_style():
        figure = Figure(figsize=(10.5, 1.1 + 0.25 * len(classes)), layout='constrained')
        left, right = figure.subplots(1, 2)
        width = 0.8 / len(masses)
        largest = min(largest, len(next(iter(masses.values())).share))
        for index, (words, mass) in enumerate(masses.items()):
            share = mass.share.numpy()
            bars = np.append(share[:largest - 1], share[largest - 1:].sum())
            at = np.arange(1, largest + 1) + (index - (len(masses) - 1) / 2) * width
            left.bar(at, bars, width * 0.92, color=DISTILLED[index], label=words)
            mean_k = mass.mean_k_of_class if chosen is None else mass.mean_k_of_class[chosen]
            right.plot(mean_k, range(len(classes)), 'os^D'[index % 4], color=DISTILLED[index], markersize=6.5)
        percent = 100 * next(iter(masses.values())).mass
        left.set(xticks=range(1, largest + 1), xlabel=f'classes that hold {percent:.0f} % of the probability, k',
                 ylabel=f'share of {positions}', title=f'Over the {positions}')
        left.set_xticklabels([*map(str, range(1, largest)), f'{largest}+'])
        left.yaxis.set_major_formatter(PercentFormatter(1., decimals=0))
        left.grid(axis='x', visible=False)
        right.set(yticks=range(len(classes)), yticklabels=classes, ylim=(len(classes) - 0.5, -0.5), xlabel='mean k',
                  title='By label', xlim=(0.8, None))
        right.tick_params(axis='y', length=0)
        figure.legend(*left.get_legend_handles_labels(), loc='outside lower center', ncols=4, handlelength=1.1)
    return figure

"""One look for all figures: colours that everybody can tell apart, on light and on dark ground."""
import io
import re
from contextlib import contextmanager
from html import escape

import matplotlib
from matplotlib.figure import Figure

__all__ = ['ALONE', 'DISTILLED', 'GRID', 'INK', 'LINES', 'MUTED', 'TEACHER', 'figure_style', 'theme_css', 'to_svg']

# Okabe and Ito's palette, which people with any colour blindness can tell apart, and for dark ground a lighter form.
# The figures are drawn in the light form; on a page each of these colours becomes a CSS variable. No two may be alike.
INK, MUTED, GRID = '#1c2128', '#626b78', '#dde2e8'
TEACHER, ALONE = '#4f5966', '#d55e00'
DISTILLED = ('#0072b2', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#8c6d1f')
_DARK = {
    INK: '#e8ebef', MUTED: '#a3adba', GRID: '#353c46', TEACHER: '#c3cad3', ALONE: '#f28c3f', '#0072b2': '#4ea8ec',
    '#009e73': '#2cc99a', '#cc79a7': '#e59cc5', '#e69f00': '#f5c24a', '#56b4e9': '#9ad7f7', '#8c6d1f': '#c9ab5b'}
_GROUND = ('#ffffff', '#14181d')
# Beside the colours, for those who see none.
LINES = ('-', (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (5, 1.2, 1.2, 1.2)), (0, (8, 2, 2, 2)), (0, (3, 3)))

_FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'


@contextmanager
def figure_style():
    """matplotlib's settings for every figure of ours."""
    with matplotlib.rc_context({
            'font.size': 10, 'axes.titlesize': 11, 'axes.titleweight': 'bold', 'axes.titlelocation': 'left',
            'text.color': INK, 'axes.labelcolor': MUTED, 'axes.titlecolor': INK, 'axes.edgecolor': MUTED,
            'xtick.color': MUTED, 'ytick.color': MUTED, 'axes.grid': True, 'grid.color': GRID, 'grid.linewidth': 0.8,
            'axes.axisbelow': True, 'axes.spines.top': False, 'axes.spines.right': False, 'legend.frameon': False,
            'lines.linewidth': 2, 'figure.facecolor': 'none', 'axes.facecolor': 'none', 'svg.fonttype': 'none',
            # Names are text, whatever signs are in them.
            'text.parse_math': False, 'figure.dpi': 100, 'savefig.dpi': 200, 'font.family': 'DejaVu Sans',
            'axes.titlepad': 8}):
        yield


def to_svg(figure: Figure, name: str, label: str) -> str:
    """A figure as inline SVG whose colours follow the page's theme and whose text is text.

    Args:
        figure: Drawn under :func:`figure_style`.
        name: Of the figure; different on one page, so that no two share an id.
        label: What it shows, for screen readers.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context({'svg.fonttype': 'none', 'svg.hashsalt': name}):
        figure.savefig(buffer, format='svg', transparent=True, metadata=dict(Date=None, Creator=None))
    svg = buffer.getvalue()
    svg = svg[svg.index('<svg'):]
    svg = re.sub(r'<metadata>.*?</metadata>', '', svg, flags=re.S)
    svg = re.sub(r' (?:width|height)="[\d.]+pt"', '', svg, count=2)
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda found: found[0] if found[1] in used else '', svg)
    for color in _DARK:
        svg = svg.replace(color, f'var(--{color[1:]})')
    svg = re.sub(r"'DejaVu Sans'(?:, [^;\"]*)?", 'inherit_family', svg)
    svg = svg.replace('inherit_family', _FONT.replace('"', "'"))
    return svg.replace('<svg', f'<svg role="img" aria-label="{escape(label)}"', 1)


def theme_css() -> str:
    """The colours as CSS variables, light or dark as the reader's system is, and a ground to put them on."""
    light, dark = (''.join(f'--{color[1:]}:{shown};' for color, shown in pairs) for pairs in (
        [(color, color) for color in _DARK], _DARK.items()))
    named = f'--ink:var(--{INK[1:]});--muted:var(--{MUTED[1:]});--line:var(--{GRID[1:]});font-family:{_FONT};'
    return (f':root{{color-scheme:light dark;--ground:{_GROUND[0]};--card:#f6f8fa;{light}{named}}}\n'
            f'@media (prefers-color-scheme:dark){{:root{{--ground:{_GROUND[1]};--card:#1c222a;{dark}}}}}\n')

"""Figures whose colours follow the page."""
import re
import xml.dom.minidom

from matplotlib.figure import Figure

from mmseg_kd.visualization import theme
from mmseg_kd.visualization.theme import ALONE, DISTILLED, GRID, INK, MUTED, TEACHER, figure_style, theme_css, to_svg


def luminance(color):
    """Relative luminance of WCAG 2."""
    values = [int(color[at:at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055)**2.4 for value in values]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_a_figure_has_no_colour_of_its_own():
    with figure_style():
        figure = Figure()
        axis = figure.subplots()
        for color in (TEACHER, ALONE, *DISTILLED):
            axis.plot([0, 1], [0, 1], color=color)
        axis.set_title('A <title>')
        svg = to_svg(figure, 'name', 'what it shows')
    xml.dom.minidom.parseString(svg)
    used = set(re.findall(r'var\(--(\w{6})\)', svg))
    assert {color[1:] for color in (INK, MUTED, GRID, TEACHER, ALONE, *DISTILLED)} <= used
    assert not re.findall(r'#[0-9a-f]{6}', svg)
    assert 'A &lt;title&gt;' in svg and 'what it shows' in svg


def test_two_figures_share_no_id():
    ids = []
    for name in ('one', 'other'):
        with figure_style():
            figure = Figure()
            figure.subplots().plot([0, 1], [0, 1], marker='o')
            ids.append(set(re.findall(r'id="([^"]+)"', to_svg(figure, name, name))))
    assert ids[0] and not ids[0] & ids[1]


def test_text_and_curves_can_be_read_on_both_grounds():
    css = theme_css()
    light, dark = css.split('@media')
    for block, ground in zip((light, dark), theme._GROUND, strict=True):
        shown = {name: value for name, value in re.findall(r'--(\w{6}):(#\w{6})', block)}
        assert len(set(shown.values())) == len(shown)
        for color in (INK, MUTED):
            assert contrast(shown[color[1:]], ground) >= 4.5
        # What is thick needs less; the lightest of Okabe and Ito's colours have dashes and markers beside them.
        for color in (TEACHER, ALONE, *DISTILLED[:2]):
            assert contrast(shown[color[1:]], ground) >= 3

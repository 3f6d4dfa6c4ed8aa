"""A page shows what it is told as text, markup and all."""
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import pytest

from mmseg_kd.visualization import page as pages
from mmseg_kd.visualization.theme import figure_style, to_svg

EVIL = '"><img src=x onerror=alert(1)><script>alert(2)</script>\'&amp;$x^{$'


class Reader(HTMLParser):
    """Tags, attributes and text."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.text = set(), [], ''
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes += attributes

    def handle_data(self, data):
        self.text += data


SECTION = pages.Section(EVIL, EVIL, EVIL, '')
PARTS = dict(
    tiles=(lambda: pages.tiles([(EVIL, EVIL, EVIL, EVIL)]), 3),
    table=(lambda: pages.table([EVIL], [(EVIL, [EVIL, EVIL])]), 3),
    picture_grid=(lambda: pages.picture_grid([EVIL], [pages.PictureRow(EVIL, ['data:,'])]), 2),
    keys=(lambda: pages.keys([(EVIL, EVIL)]), 1),
    scales=(lambda: pages.scales([(EVIL, EVIL, EVIL)]), 2),
    sources=(lambda: pages.sources([(EVIL, EVIL)]), 2),
    page=(lambda: pages.page(EVIL, EVIL, '', [SECTION], ''), 7))


@pytest.mark.parametrize('part', PARTS)
def test_markup_is_text(part):
    """It comes back from the parser letter by letter, as often as it was put in, and nothing else does."""
    make, times = PARTS[part]
    found = Reader(make())
    assert found.text.count(EVIL) == times
    assert 'script' not in found.tags and not [name for name, _ in found.attributes if name.startswith('on')]
    assert not [value for name, value in found.attributes if name == 'src' and value != 'data:,']
    assert not [value for name, value in found.attributes if name == 'style' and part != 'scales' and 'img' in value]


def test_every_function_that_makes_html_is_here():
    assert {name for name in pages.__all__ if name.islower()} == set(PARTS)


def test_markup_in_a_figure_is_text():
    with figure_style():
        figure, axes = plt.subplots()
        axes.plot([0, 1], label=EVIL)
        axes.set_title(EVIL)
        axes.legend()
        found = Reader(to_svg(figure, 'a', EVIL))
    plt.close(figure)
    assert found.text.count(EVIL) == 2 and not {'img', 'script'} & found.tags
    assert dict(found.attributes)['aria-label'] == EVIL
    assert not [name for name, _ in found.attributes if name.startswith('on')]

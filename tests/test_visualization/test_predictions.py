"""Pictures of label maps."""
import numpy as np
import pytest

from mmseg_kd.visualization.predictions import colorize, draw_predictions

PALETTE = [(10, 20, 30), (200, 0, 100)]


def test_each_label_gets_its_colour_and_void_is_black():
    painted = colorize(np.array([[0, 1], [255, 0]]), PALETTE)
    assert painted.tolist() == [[[10, 20, 30], [200, 0, 100]], [[0, 0, 0], [10, 20, 30]]]


def test_a_label_without_a_colour_is_refused():
    with pytest.raises(ValueError, match=r'`labels`: expected 0 to 1 or 255, got \[7\]'):
        colorize(np.array([[7]]), PALETTE)


def test_the_pictures_are_in_the_figure_under_their_names():
    left, right = np.full((8, 16, 3), 50, np.uint8), np.full((8, 16, 3), 90, np.uint8)
    figure = draw_predictions(dict(left=[left, left], right=[right, right]), ['a', 'b'], PALETTE)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ['left', 'right', '', '']
    shown = [axes.images[0].get_array() for axes in figure.axes]
    assert [int(each.mean()) for each in shown] == [50, 90, 50, 90]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ['a', 'b']

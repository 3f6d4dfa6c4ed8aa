"""The figure of gains shows each row's mean and each seed."""
import pytest

from mmseg_kd.visualization.gains import draw_gains


def test_bars_are_means_and_dots_are_seeds():
    axis, = draw_gains(['KD', 'DKD'], [[1., 3.], [-2.]], 'alone', 'mIoU').axes
    assert [bar.get_width() for bar in axis.patches] == pytest.approx([2., -2.])
    dots = [line.get_xdata() for line in axis.lines if line.get_marker() == 'o']
    assert [list(each) for each in dots] == [[1., 3.], [-2.]]
    assert [each.get_text() for each in axis.texts] == ['+2.00', '-2.00']
    assert [each.get_text() for each in axis.get_yticklabels()] == ['KD', 'DKD']

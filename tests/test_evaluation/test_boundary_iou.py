"""Boundary IoU against SciPy's distance transform and a hand-made case."""
import numpy as np
import pytest
from scipy.ndimage import distance_transform_cdt

from mmseg_kd.evaluation.boundary_iou import BoundaryIoU, boundary


def rim(mask, width):
    """Pixels at most ``width`` chessboard steps from the nearest pixel that is not of the mask."""
    return mask & (distance_transform_cdt(np.pad(mask, 1), metric='chessboard')[1:-1, 1:-1] <= width)


@pytest.mark.parametrize('width', [1, 2, 5])
def test_boundary_is_the_rim(width):
    mask = np.random.default_rng(0).random((12, 17)) < 0.97
    mask[4:9, 6:16] = True
    found = boundary(mask, width)
    assert (found == rim(mask, width)).all()
    assert width == 5 or 0 < found.sum() < mask.sum()


def test_by_hand():
    # A square of 6 in an image of 10x10, predicted one column to the right; d = round(0.02 * 14.14) = 0, at least 1.
    labels, predicted = np.zeros((10, 10), int), np.zeros((10, 10), int)
    labels[2:8, 2:8] = predicted[2:8, 3:9] = 1
    metric = BoundaryIoU(3)
    metric.update(predicted, labels)
    # Both rims have 20 pixels; they share two rows of 5 (the outer columns do not meet).
    assert metric.of_class[1] == pytest.approx(10 / 30)
    assert np.isnan(metric.of_class[2])


def test_sums_over_images_and_leaves_void_out():
    generator = np.random.default_rng(1)
    metric, intersection, union = BoundaryIoU(4, ratio=0.05), np.zeros(4), np.zeros(4)
    for size in ((40, 60), (30, 30)):
        labels, predicted = (np.kron(generator.integers(0, 4, (size[0] // 10, size[1] // 10)), np.ones((10, 10), int))
                             for _ in range(2))
        labels[:3, :7] = 255
        metric.update(predicted, labels)
        width = round(0.05 * (size[0]**2 + size[1]**2)**0.5)
        for c in range(4):
            one, other = rim((predicted == c) & (labels != 255), width), rim(labels == c, width)
            intersection[c] += (one & other).sum()
            union[c] += (one | other).sum()
    np.testing.assert_allclose(metric.of_class, intersection / union)
    assert (metric.of_class > 0).all()

"""The geometry that is read off positions, against the one that was applied."""
import cv2
import numpy as np
import pytest

from mmseg_kd.datasets.tracked_geometry import axis_geometry, image_geometry, positions


def applied(height, width, resized, crop, flips):
    """Positions through cv2's resizing, a crop and flips, as mmcv does them to labels."""
    seen = positions(height, width)
    seen = cv2.resize(seen, resized[::-1], interpolation=cv2.INTER_NEAREST)
    top, left, rows, columns = crop
    seen = seen[top:top + rows, left:left + columns]
    return seen[::-1 if flips[0] else 1, ::-1 if flips[1] else 1]


@pytest.mark.parametrize('seed', range(40))
def test_resizing_crop_and_flip_are_found(seed):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(20, 400, 2)
    resized = tuple(int(round(side * rng.uniform(.5, 2.))) for side in (height, width))
    rows, columns = (int(rng.integers(side // 2, side + 1)) for side in resized)
    top, left = int(rng.integers(resized[0] - rows + 1)), int(rng.integers(resized[1] - columns + 1))
    flips = rng.random(2) < .5
    found = image_geometry(applied(height, width, resized, (top, left, rows, columns), flips), (height, width))
    for geometry, length, size, offset, flip, number in zip(
            found, (height, width), resized, (top, left), flips, (rows, columns), strict=True):
        assert geometry.flipped == flip
        # Where each output's centre lies in the original, in pixels: bilinear resizing by the formula.
        x = np.arange(number)
        expected = ((x[::-1] if flip else x) + offset + .5) * length / size - .5
        # Several sizes can leave the same positions in a small crop; they differ by less than a pixel.
        assert np.abs(geometry.source(x, number) - expected).max() < 1
        assert np.abs(geometry.source(x, number) - expected).mean() < .5


def test_nothing_happened():
    rows, columns = image_geometry(positions(30, 50), (30, 50))
    assert rows == (1., 0, False) and columns == (1., 0, False)


def test_one_pixel():
    assert axis_geometry(np.array([7]), 9).source(np.array([0]), 1) == 7


@pytest.mark.parametrize('damage', ['rotated', 'shuffled', 'padded'])
def test_more_is_refused(damage):
    seen = positions(30, 50)
    if damage == 'rotated':
        seen = cv2.warpAffine(seen, cv2.getRotationMatrix2D((25, 15), 8, 1), (50, 30), flags=cv2.INTER_NEAREST)
    elif damage == 'shuffled':
        seen = seen[np.random.default_rng(0).permutation(30)]
    else:
        seen = np.pad(seen, ((0, 10), (0, 0), (0, 0)))
    with pytest.raises(ValueError, match='more than resizing, cropping and flipping'):
        image_geometry(seen, (30, 50))

"""Pictures of changes and of heat, pixel by pixel."""
import base64

import cv2
import numpy as np

from mmseg_kd.visualization.pixels import BOTH_WRONG, BROKEN, FIXED, change_picture, data_uri, heat_picture


def test_change_picture_by_hand():
    image = np.full((1, 5, 3), 100, np.uint8)
    labels = np.array([[1, 1, 1, 1, 255]])
    first, second = np.array([[1, 2, 1, 2, 2]]), np.array([[1, 1, 2, 0, 1]])
    picture = change_picture(image, first, second, labels)
    faded = (65, 65, 65)
    assert [tuple(pixel) for pixel in picture[0].tolist()] == [faded, FIXED, BROKEN, BOTH_WRONG, faded]


def test_heat_grows_lighter_up_to_its_limit():
    picture = heat_picture(np.array([[0., 1., 2., 4., np.nan]]), 2.).astype(int)
    light = picture.sum(2)[0]
    assert light[0] < light[1] < light[2] == light[3] and light[4] == light[0]


def test_data_uri_is_the_picture():
    picture = np.random.default_rng(0).integers(0, 256, (6, 8, 3)).astype(np.uint8)

    def read(uri):
        data = np.frombuffer(base64.b64decode(uri.removeprefix('data:image/png;base64,')), np.uint8)
        return cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]
    assert (read(data_uri(picture)) == picture).all()
    small = read(data_uri(picture, width=4))
    assert small.shape == (3, 4, 3)
    assert {tuple(pixel) for pixel in small.reshape(-1, 3)} <= {tuple(pixel) for pixel in picture.reshape(-1, 3)}

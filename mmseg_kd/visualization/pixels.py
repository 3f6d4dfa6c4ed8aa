"""Pictures of what happens at each pixel."""
import base64

import cv2
import matplotlib
import numpy as np

__all__ = ['BOTH_WRONG', 'BROKEN', 'FIXED', 'change_picture', 'data_uri', 'heat_picture']

#: RGB of the pixels that a second model gets right and the first one not, the reverse, and neither.
FIXED, BROKEN, BOTH_WRONG = (0, 158, 255), (255, 110, 0), (150, 150, 150)


def change_picture(image: np.ndarray, first: np.ndarray, second: np.ndarray, labels: np.ndarray,
                   ignore_index: int = 255) -> np.ndarray:
    """Where a second model corrects a first one and where it spoils it, over the faded image.

    Args:
        image: (H, W, 3) uint8 RGB.
        first: (H, W) predicted classes.
        second: (H, W) predicted classes.
        labels: (H, W); pixels labelled ``ignore_index`` keep the faded image.
        ignore_index: The label without a class.

    Returns:
        (H, W, 3) uint8 RGB: pixels in ``FIXED``, ``BROKEN``, ``BOTH_WRONG``, and the faded image where both are right.
    """
    grey = image.mean(2, keepdims=True)
    picture = np.broadcast_to(35 + 0.3 * grey, image.shape).copy()
    valid, right, right_then = labels != ignore_index, first == labels, second == labels
    for where, color in ((right_then & ~right, FIXED), (right & ~right_then, BROKEN),
                         (~right & ~right_then, BOTH_WRONG)):
        picture[where & valid] = color
    return picture.astype(np.uint8)


def heat_picture(values: np.ndarray, limit: float) -> np.ndarray:
    """A map of values >= 0 in colours that grow lighter, (H, W, 3) uint8 RGB.

    Args:
        values: (H, W).
        limit: Value that has the lightest colour; larger ones have it too.
    """
    scaled = np.clip(np.nan_to_num(values) / max(limit, 1e-12), 0, 1)
    return (255 * matplotlib.colormaps['cividis'](scaled)[..., :3]).astype(np.uint8)


def data_uri(picture: np.ndarray, width: int = 640) -> str:
    """A (H, W, 3) RGB picture as a PNG inside a URI, made smaller if it is wider than ``width``."""
    if picture.shape[1] > width:
        # No mixing: a mixture of two classes' colours would be a third class's.
        size = (width, round(picture.shape[0] * width / picture.shape[1]))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_NEAREST)
    encoded = cv2.imencode('.png', picture[..., ::-1])[1]
    return 'data:image/png;base64,' + base64.b64encode(encoded).decode()

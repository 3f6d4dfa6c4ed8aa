"""A pinhole camera above a street."""
from dataclasses import dataclass

import numpy as np

# Points nearer than this are pulled back to it: a street scene needs no clipping of polygons behind the camera.
NEAREST = 1.2


@dataclass(frozen=True)
class Camera:
    """Pinhole camera above a road that runs along z. World: x right, y up, z ahead, in metres; y = 0 is the ground.

    Args:
        focal: Focal length in canvas pixels.
        centre: Column of the vanishing point, in canvas pixels.
        horizon: Row of the vanishing point, in canvas pixels.
        eye: Height of the camera in metres.
        bend: Sideways drift of the road in metres per metre squared, so that streets curve.
    """
    focal: float
    centre: float
    horizon: float
    eye: float
    bend: float

    def project(self, points):
        """World points of shape (..., 3) in metres to canvas positions (column, row) of shape (..., 2)."""
        points = np.asarray(points, np.float64)
        x, y, z = points[..., 0], points[..., 1], np.maximum(points[..., 2], NEAREST)
        column = self.centre + self.focal * (x / z + self.bend * z)
        row = self.horizon + self.focal * (self.eye - y) / z
        return np.stack([column, row], -1)

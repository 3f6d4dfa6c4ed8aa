"""Small pieces of geometry that many things are made of."""
import numpy as np

UP = np.array([0., 1., 0.])


def disc(centre, radius, axis_a, axis_b, corners=14):
    """A flat regular polygon as (corners, 3) world points: ``centre`` plus ``radius`` in the plane of two unit axes."""
    angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)[:, None]
    axis_a, axis_b = np.asarray(axis_a, float), np.asarray(axis_b, float)
    return np.asarray(centre, float) + radius * (np.cos(angle) * axis_a + np.sin(angle) * axis_b)


def patch(face, left, bottom, right, top):
    """Part of a four-cornered face (bottom left, bottom right, top right, top left), in fractions of its sides."""
    u, v = np.array([left, right, right, left])[:, None], np.array([bottom, bottom, top, top])[:, None]
    return (1 - u) * (1 - v) * face[0] + u * (1 - v) * face[1] + u * v * face[2] + (1 - u) * v * face[3]


class Pose:
    """Where an object stands: local (forward, right, up) metres to world, with the faces of boxes in that frame.

    Args:
        x, z: Position of its middle on the ground, in metres.
        heading: Radians; 0 drives away from the camera, pi towards it, pi / 2 to the right.
        sun: -1 or 1: the side the light comes from.
        size: Metres per local unit.
    """

    def __init__(self, x, z, heading, sun, size=1.):
        self.middle = np.array([x, 0., z])
        self.forward = np.array([np.sin(heading), 0., np.cos(heading)])
        self.right = np.array([np.cos(heading), 0., -np.sin(heading)])
        self.sun, self.size = sun, size

    def at(self, forward, right, up):
        return self.middle + self.size * (forward * self.forward + right * self.right + up * UP)

    def outline(self, points, right=0.):
        """Points (forward, up) of a side view as world points, (N, 3)."""
        return np.array([self.at(forward, right, up) for forward, up in points])

    def box(self, back, front, width, low, high, taper=0., slant=0.):
        """The faces that the camera sees, far to near: (name, corners (4, 3), shade). ``taper`` narrows the roof,
        ``slant`` shortens it, both in metres on each side."""
        half, top = width / 2, width / 2 - taper
        roof_back, roof_front = back + slant, front - slant
        faces = {
            'rear': [(back, -half, low), (back, half, low), (roof_back, top, high), (roof_back, -top, high)],
            'front': [(front, half, low), (front, -half, low), (roof_front, -top, high), (roof_front, top, high)],
            'left': [(front, -half, low), (back, -half, low), (roof_back, -top, high), (roof_front, -top, high)],
            'right': [(back, half, low), (front, half, low), (roof_front, top, high), (roof_back, top, high)],
            'roof': [(roof_back, -top, high), (roof_back, top, high), (roof_front, top, high),
                     (roof_front, -top, high)],
        }
        centre = self.at((back + front) / 2, 0, (low + high) / 2)
        seen = []
        for name, local in faces.items():
            corners = np.array([self.at(*point) for point in local])
            normal = np.cross(corners[1] - corners[0], corners[3] - corners[0])
            normal = normal / max(np.linalg.norm(normal), 1e-6)
            outward = corners.mean(0) - centre
            normal = normal if normal @ outward > 0 else -normal
            if normal @ (corners.mean(0) - np.array([0, 1.5, 0])) < 0:
                shade = .78 + .22 * normal[0] * self.sun + .3 * max(normal[1], 0)
                seen.append((name, corners, shade))
        return sorted(seen, key=lambda face: -face[1][:, 2].mean())


def shadow(canvas, pose, back, front, width, strength=.45):
    corners = [(back, -width), (front, -width), (front, width), (back, width)]
    ground = np.array([pose.at(f, r * .5, 0) for f, r in corners])
    ground[:, 0] -= pose.sun * .25
    canvas.darken(canvas.camera.project(ground), strength)

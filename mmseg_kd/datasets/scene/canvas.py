"""The two maps of a scene: the picture, and who owns each pixel."""
import cv2
import numpy as np
from cityscapesscripts.helpers.labels import name2label

from .camera import NEAREST


class Canvas:
    """Picture and ids, painted from far to near.

    ``image`` is float32 RGB, (height, width, 3), about 0 to 255. ``ids`` is uint16, (height, width), in the encoding
    of Cityscapes' instanceIds: ``labelId`` for stuff, ``labelId * 1000 + n`` for the n-th object of a class with
    instances. All four annotation files follow from this one map, so they cannot disagree.

    Args:
        height, width: Canvas size in pixels.
        camera: What turns metres into pixels.
        rng: numpy Generator of this scene; all randomness comes from it.
        haze_colour: RGB that far things fade to.
        haze: Fading per metre.
        scale: Canvas pixels per pixel of the final picture.
    """

    GRAINS = (2, 5, 12, 32)

    def __init__(self, height, width, camera, rng, haze_colour, haze, scale):
        self.image = np.zeros((height, width, 3), np.float32)
        self.ids = np.zeros((height, width), np.uint16)
        self.camera, self.rng, self.scale = camera, rng, scale
        # Small pictures draw small things stouter, as small-scale maps do, or none would be wide enough to be told.
        self.stout = float(np.clip((256 * scale / height) ** .5, 1, 2))
        self._haze_colour, self._haze = np.asarray(haze_colour, np.float32), haze
        self._count = {}
        self._noise = {grain: self._value_noise(height + 48, width + 48, grain) for grain in self.GRAINS}

    def _value_noise(self, height, width, grain):
        coarse = self.rng.random((height // grain + 3, width // grain + 3), np.float32) * 2 - 1
        return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)

    def new_id(self, name):
        """Id of a new object of class ``name``: a fresh instance where the class has instances, else the label id."""
        label = name2label[name]
        if not label.hasInstances:
            return label.id
        number = self._count.get(name, 0)
        self._count[name] = number + 1
        return label.id * 1000 + number

    def pixels_per_metre(self, z):
        return self.camera.focal / max(z, NEAREST)

    def noise(self, height, width, grain_px):
        """A (height, width) patch in [-1, 1] whose grain is the nearest to ``grain_px``, cut at a random place."""
        grain = min(self.GRAINS, key=lambda g: abs(g - grain_px))
        field = self._noise[grain]
        top = self.rng.integers(0, field.shape[0] - height + 1)
        left = self.rng.integers(0, field.shape[1] - width + 1)
        return field[top:top + height, left:left + width]

    def tone(self, colour, z):
        """``colour`` (RGB) as it arrives from ``z`` metres away."""
        clear = np.exp(-self._haze * z)
        return clear * np.asarray(colour, np.float32) + (1 - clear) * self._haze_colour

    def fill(self, polygons, colour, z, owner=None, rough=0., grain=5, alpha=1.):
        """Paints polygons given in canvas pixels.

        Args:
            polygons: One (N, 2) array or a list of them; those of one call must not overlap.
            colour: RGB, 0 to 255.
            z: Distance in metres, for the haze.
            owner: Id written into ``ids``; None leaves the ids as they are (a detail of what is already there).
            rough: Strength of the texture, relative to the colour.
            grain: Size of the texture's features, in canvas pixels.
            alpha: Opacity of the colour; ids are written in full in any case.
        """
        polygons = polygons if isinstance(polygons, list) else [polygons]
        polygons = [np.rint(np.clip(polygon, -30000, 30000)).astype(np.int32) for polygon in polygons]
        points = np.concatenate(polygons)
        left, top = np.maximum(points.min(0), 0)
        right, bottom = np.minimum(points.max(0) + 1, self.ids.shape[::-1])
        if left >= right or top >= bottom:
            return
        tone = self.tone(colour, z)
        if owner is not None:
            cv2.fillPoly(self.ids, polygons, int(owner))
        if rough == 0 and alpha == 1:
            cv2.fillPoly(self.image, polygons, tone.tolist())
            return
        height, width = int(bottom - top), int(right - left)
        mask = np.zeros((height, width), np.uint8)
        cv2.fillPoly(mask, polygons, 1, offset=(int(-left), int(-top)))
        self.blend(mask > 0, int(top), int(left), tone, rough, grain, alpha)

    def blend(self, mask, top, left, tone, rough=0., grain=5, alpha=1.):
        """Paints ``tone``, RGB or (h, w, 3), with texture where ``mask``, boolean (h, w) at (top, left), is set."""
        height, width = mask.shape
        area = self.image[top:top + height, left:left + width]
        paint = np.broadcast_to(np.asarray(tone, np.float32), area.shape)
        if rough:
            texture = .6 * self.noise(height, width, grain) + .4 * self.noise(height, width, max(2, grain / 3))
            paint = paint * (1 + rough * texture)[..., None]
        np.copyto(area, alpha * paint + (1 - alpha) * area if alpha < 1 else paint, where=mask[..., None])

    def solid(self, corners, colour, owner=None, **kwargs):
        """Paints one or several world polygons, (N, 3) in metres each; the distance is their mean z."""
        corners = corners if isinstance(corners, list) else [corners]
        z = float(np.mean([np.mean(np.asarray(c)[:, 2]) for c in corners]))
        self.fill([self.camera.project(c) for c in corners], colour, z, owner, **kwargs)

    def seen(self, metres, z, least):
        """Whether something ``metres`` large is at least ``least`` final pixels large from ``z`` metres away."""
        return metres * self.pixels_per_metre(z) >= least * self.scale

    def post(self, x, z, low, high, diameter, colour, owner=None, least=2.4, **kwargs):
        """Paints a thin upright bar, at least ``least`` final pixels wide so that it survives the reduction."""
        foot, head = self.camera.project([[x, low, z], [x, high, z]])
        half = max(diameter * self.pixels_per_metre(z), least * self.scale) / 2
        outline = np.array([[foot[0] - half, foot[1]], [foot[0] + half - 1, foot[1]],
                            [head[0] + half - 1, head[1]], [head[0] - half, head[1]]])
        self.fill(outline, colour, z, owner, **kwargs)

    def bar(self, start, end, diameter, colour, owner=None, least=1.6):
        """Paints a thin straight bar between two world points, at least ``least`` final pixels wide."""
        z = (start[2] + end[2]) / 2
        a, b = self.camera.project([start, end])
        along = (b - a) / max(np.hypot(*(b - a)), 1e-6)
        half = np.array([-along[1], along[0]]) * max(diameter * self.pixels_per_metre(z), least * self.scale) / 2
        self.fill(np.array([a + half, b + half, b - half, a - half]), colour, z, owner)

    def darken(self, polygon, factor):
        """Multiplies the picture inside a polygon (canvas pixels) by ``factor``: a shadow on whatever is there."""
        polygon = np.rint(np.clip(polygon, -30000, 30000)).astype(np.int32)
        left, top = np.maximum(polygon.min(0), 0)
        right, bottom = np.minimum(polygon.max(0) + 1, self.ids.shape[::-1])
        if left >= right or top >= bottom:
            return
        mask = np.zeros((int(bottom - top), int(right - left)), np.uint8)
        cv2.fillPoly(mask, [polygon], 1, offset=(int(-left), int(-top)))
        self.image[top:bottom, left:right][mask > 0] *= factor

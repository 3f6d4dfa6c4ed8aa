"""One procedural street scene: (seed, split, index, size) to a picture and its Cityscapes instance ids."""
import cv2
import numpy as np
from cityscapesscripts.helpers.labels import name2label

from .camera import Camera
from .canvas import Canvas
from .ground import draw_ground, draw_sky, draw_skyline, strip
from .palette import ID, LACQUER, pick
from .placement import draw_fronts, draw_things
from .schedule import required_classes
from .street import plan_street

LEAST_SIZE = (32, 64)
_ATTEMPTS = 40


def draw_scene(seed, split, index, size):
    """Draws one street scene; the same arguments give the same pixels, in any process and order.

    Args:
        seed: Non-negative int.
        split: Name of the split; scenes of different splits are unrelated.
        index: Number of the picture in its split.
        size: (height, width) in pixels, at least ``LEAST_SIZE``.

    Returns:
        Picture, uint8 RGB of shape (height, width, 3), and ids, uint16 of shape (height, width), in the encoding of
        Cityscapes' instanceIds.

    Raises:
        ValueError: ``size`` is too small for anything to be told.
    """
    if size[0] < LEAST_SIZE[0] or size[1] < LEAST_SIZE[1]:
        raise ValueError(f'size must be at least {LEAST_SIZE[0]} {LEAST_SIZE[1]} (height width), got {tuple(size)}')
    required = required_classes(index)
    least = max(4, size[0] * size[1] // 1200)
    for attempt in range(_ATTEMPTS):
        entropy = [seed, *split.encode(), index, attempt]
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))
        image, ids = _draw(rng, size, required)
        # Something nearer may hide what the schedule promised; then the scene is drawn anew.
        count = np.bincount(np.where(ids >= 1000, ids // 1000, ids).ravel(), minlength=max(ID.values()) + 1)
        if all(count[name2label[name].id] >= least for name in required):
            break
    return image, ids


def _draw(rng, size, required):
    height, width = size
    # Drawn larger and reduced: edges are mixed pixels, as in a photograph.
    scale = 4 if height <= 80 else 2 if height <= 400 else 1
    camera = Camera(
        focal=width * scale * rng.uniform(.9, 1.05),
        centre=width * scale * rng.uniform(.45, .55),
        horizon=height * scale * rng.uniform(.39, .46),
        eye=rng.uniform(1.4, 1.8),
        bend=rng.uniform(-.0016, .0016))
    cloudy = rng.random()
    zenith = (1 - cloudy) * np.float32([92, 138, 196]) + cloudy * np.float32([170, 174, 182])
    low_sky = (1 - cloudy) * np.float32([186, 206, 222]) + cloudy * np.float32([208, 208, 208])
    canvas = Canvas(height * scale, width * scale, camera, rng, low_sky, rng.choice([.002, .004, .007]), scale)
    sun = int(rng.choice([-1, 1]))
    contrast = (1 - cloudy) * .3 + .06

    street = plan_street(rng, required)
    draw_sky(canvas, zenith, low_sky, rng.uniform(0, 1))
    draw_ground(canvas, street)
    draw_skyline(canvas)
    draw_fronts(canvas, street, sun, contrast, required)
    if rng.random() < .45 * (1 - cloudy) + .1:
        _cast_shadow(canvas, street, sun, 1 - contrast * rng.uniform(1., 1.6))
    draw_things(canvas, street, sun, required)
    if rng.random() < .5:
        _draw_bonnet(canvas)
    return _develop(canvas, size)


def _cast_shadow(canvas, street, sun, factor):
    """The shadow of the houses on the sunny side lies over part of the road."""
    side = sun
    reach = street.edge(side) - side * canvas.rng.uniform(.5, street.right - street.left)
    start = canvas.rng.uniform(1.3, 10)
    canvas.darken(strip(canvas, *sorted((reach, street.edge(side) + side * 3)), start,
                                start + canvas.rng.uniform(8, 60)), factor)


def _draw_bonnet(canvas):
    """The bonnet of the car that carries the camera."""
    height, width = canvas.ids.shape
    top, half = canvas.rng.uniform(.88, .95) * height, canvas.rng.uniform(.32, .5) * width
    middle = width * canvas.rng.uniform(.45, .55)
    angle = np.linspace(np.pi, 2 * np.pi, 24)
    hood = np.stack([middle + half * np.cos(angle), height + 2 + (height + 2 - top) * np.sin(angle)], -1)
    colour = pick(canvas.rng, LACQUER) * .7
    canvas.fill(hood, colour, 0, ID['ego vehicle'], rough=.05, grain=12)
    canvas.fill((hood - [middle, height]) * [.8, .55] + [middle, height + 2], colour * 1.35, 0, alpha=.5)


def _develop(canvas, size):
    """Exposure, colour cast, vignette, blur, reduction to the final size and sensor noise."""
    rng, scale = canvas.rng, canvas.scale
    height, width = size
    image = cv2.resize(canvas.image, (width, height), interpolation=cv2.INTER_AREA) if scale > 1 else canvas.image
    ids = canvas.ids[scale // 2::scale, scale // 2::scale].copy()
    image = image * rng.uniform(.82, 1.1) * (1 + .015 * rng.standard_normal(3)).astype(np.float32)
    v, u = np.linspace(-1, 1, height, dtype=np.float32)[:, None], np.linspace(-1, 1, width, dtype=np.float32)[None]
    image = image * (1 - rng.uniform(0, .2) * (u * u + v * v) / 2)[..., None]
    if rng.random() < .15:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(.3, .7) * max(height / 128, 1))
    image = 255 * (np.clip(image, 0, 255) / 255) ** rng.uniform(.92, 1.12)
    image = image + rng.uniform(.8, 3.) * rng.standard_normal(image.shape, np.float32)
    return np.rint(np.clip(image, 0, 255)).astype(np.uint8), ids

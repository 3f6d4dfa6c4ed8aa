"""One procedural street scene: (seed, split, index, size) to a picture and its Cityscapes instance ids."""
from dataclasses import dataclass, field

import cv2
import numpy as np
from cityscapesscripts.helpers.labels import id2label, name2label

from . import scenery, traffic
from .canvas import Camera, Canvas
from .scenery import ID, pick
from .traffic import Pose

# Each picture must show one class of every row, taken in turn: 8 pictures or more hold all 19 classes and void.
SCHEDULE = (
    ('truck', 'bus', 'train', 'motorcycle', 'bicycle'),
    ('wall', 'fence', 'terrain'),
    ('traffic light', 'traffic sign'),
    ('car', 'person', 'building', 'vegetation', 'pole', 'sidewalk', 'sky', 'static'),
)
LEAST_SIZE = (32, 64)
_ATTEMPTS = 40


@dataclass
class Street:
    """Cross-section of the street in metres; keys -1 and 1 are its left and right side."""
    left: float
    right: float
    lines: list
    lanes: list  # (x, heading)
    pavement: dict
    verge: dict
    outer: dict
    bay: dict
    rails: float | None
    crossing: float | None
    taken: list = field(default_factory=list)

    def edge(self, side):
        return self.left if side < 0 else self.right

    def front(self, side):
        """x where the fronts of houses, walls and fences stand."""
        return self.edge(side) + side * (self.pavement[side] + .2)

    def claim(self, x, z, across, along):
        """Whether a rectangle of the ground is free; if so it is taken."""
        for other_x, other_z, other_across, other_along in self.taken:
            if abs(x - other_x) < (across + other_across) / 2 and abs(z - other_z) < (along + other_along) / 2:
                return False
        self.taken.append((x, z, across, along))
        return True


def in_view(x):
    """Least distance in metres at which something ``x`` metres aside is surely inside the picture."""
    return max(5., 2.3 * abs(x))


def required_classes(index):
    """Names of the classes that picture ``index`` of any split shows for certain."""
    names = [row[index % len(row)] for row in SCHEDULE]
    return tuple(names + (['rider'] if names[0] in ('motorcycle', 'bicycle') else []))


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
        ValueError: ``size`` is too small for the thinnest objects.
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
        labels = np.where(ids >= 1000, ids // 1000, ids)
        count = np.bincount(labels.ravel(), minlength=len(id2label))
        if all(count[name2label[name].id] >= least for name in required):
            break
    return image, ids


def _draw(rng, size, required):
    height, width = size
    scale = 4 if height <= 80 else 2 if height <= 400 else 1
    camera = Camera(
        focal=width * scale * rng.uniform(.85, 1.1),
        centre=width * scale * rng.uniform(.42, .58),
        horizon=height * scale * rng.uniform(.36, .48),
        eye=rng.uniform(1.3, 1.9),
        bend=rng.uniform(-.0016, .0016))
    cloudy = rng.random()
    zenith = (1 - cloudy) * np.float32([92, 138, 196]) + cloudy * np.float32([170, 174, 182])
    low_sky = (1 - cloudy) * np.float32([186, 206, 222]) + cloudy * np.float32([208, 208, 208])
    canvas = Canvas(height * scale, width * scale, camera, rng, low_sky, rng.choice([.002, .005, .01]), scale)
    sun = int(rng.choice([-1, 1]))
    contrast = (1 - cloudy) * .3 + .06

    street = _plan(rng, required)
    scenery.draw_sky(canvas, zenith, low_sky, rng.uniform(0, 1))
    scenery.draw_ground(canvas, street)
    scenery.draw_skyline(canvas)
    _draw_fronts(canvas, street, sun, contrast, required)
    if rng.random() < .45 * (1 - cloudy) + .1:
        _cast_shadow(canvas, street, sun, 1 - contrast * rng.uniform(1., 1.6))
    for _, draw in sorted(_things(canvas, street, sun, required), key=lambda thing: -thing[0]):
        draw()
    if rng.random() < .5:
        _draw_bonnet(canvas)
    return _develop(canvas, size, scale)


def _plan(rng, required):
    """Lays out the cross-section: lanes, rails, pavements, verges."""
    oncoming, ahead = (2 if rng.random() < share else 1 for share in (.3, .2))
    lane = rng.uniform(2.9, 3.5)
    shift = rng.uniform(-.5, .5)
    left, right = shift - lane / 2 - oncoming * lane, shift + lane / 2 + (ahead - 1) * lane
    lanes = [(shift - lane * (i + 1), np.pi) for i in range(oncoming)] + [(shift + lane * i, 0.) for i in range(ahead)]
    lines = [left + lane * i for i in range(1, oncoming + ahead)]
    parked = rng.random(2) < .4
    if parked[0]:
        left -= 2.2
        lanes.append((left + 1.1, np.pi))
    if parked[1]:
        right += 2.2
        lanes.append((right - 1.1, 0.))
    verge, outer = {-1: 0., 1: 0.}, {-1: 'sidewalk', 1: 'sidewalk'}
    for side in (-1, 1):
        if rng.random() < .25:
            verge[side] = rng.uniform(1.2, 2.5)
        if rng.random() < .35:
            outer[side] = 'terrain'
    if 'terrain' in required:
        side = int(rng.choice([-1, 1]))
        verge[side], outer[side] = rng.uniform(1.5, 3.), 'terrain'
    pavement = {side: rng.uniform(2.2, 4.5) + verge[side] for side in (-1, 1)}
    bay = {side: None for side in (-1, 1)}
    for side in (-1, 1):
        if parked[(side + 1) // 2] and rng.random() < .35:
            start = rng.uniform(3, 14)
            bay[side] = (start, start + rng.uniform(5, 15))
    rails = lanes[0][0] if 'train' in required or rng.random() < .1 else None
    crossing = rng.uniform(5, 18) if rng.random() < .25 else None
    return Street(left, right, lines, lanes, pavement, verge, outer, bay, rails, crossing)


def _draw_fronts(canvas, street, sun, contrast, required):
    rng = canvas.rng
    green = rng.uniform(.1, .8)
    promised = [name for name in ('wall', 'fence') if name in required]
    promised_side = int(rng.choice([-1, 1]))
    for side in (-1, 1):
        light = 1 + contrast * (-1 if side == sun else .35)
        pieces, z = [], 1.5
        while z < 85:
            length = rng.uniform(6, 22)
            kind = rng.choice(['building', 'wall', 'fence', 'green', 'open'],
                              p=np.array([.62 - .35 * green, .1, .1, .1 + .3 * green, .08 + .05 * green]))
            if promised and side == promised_side and z < 4:
                kind, length = promised[0], in_view(street.front(side)) + rng.uniform(4, 12)
            pieces.append((z, z + length, kind))
            z += length
        for start, end, kind in reversed(pieces):
            x = street.front(side) + side * rng.uniform(0, 2.5)
            if kind == 'fence' and rng.random() < .4:
                # A railing at the kerb.
                x = street.edge(side) + side * .35
            if kind in ('wall', 'fence', 'open') and rng.random() < .75:
                behind = street.front(side) + side * rng.uniform(3, 9)
                if rng.random() < .5:
                    scenery.draw_building(canvas, behind, side, start, end, rng.uniform(5, 13), light)
                else:
                    scenery.draw_greenery(canvas, behind, side, start, end, light)
            if kind == 'building':
                scenery.draw_building(canvas, x, side, start, end, rng.uniform(5, 19), light)
            elif kind == 'wall':
                scenery.draw_wall(canvas, x, side, start, end, rng.uniform(1.4, 3.8), light)
            elif kind == 'fence':
                scenery.draw_fence(canvas, x, side, start, end, rng.uniform(1.2, 2.4), light)
            elif kind == 'green':
                scenery.draw_greenery(canvas, x, side, start, end, light)


def _cast_shadow(canvas, street, sun, factor):
    """The shadow of the houses on the sunny side lies over part of the road."""
    side = sun
    reach = street.edge(side) - side * canvas.rng.uniform(.5, street.right - street.left)
    start = canvas.rng.uniform(1.3, 10)
    canvas.darken(scenery.strip(canvas, *sorted((reach, street.edge(side) + side * 3)), start,
                                start + canvas.rng.uniform(8, 60)), factor)


def _things(canvas, street, sun, required):
    """All that stands on the ground, as (distance, function that draws it)."""
    rng = canvas.rng
    things = []

    def add(z, draw, *args, **kwargs):
        things.append((z, lambda: draw(canvas, *args, **kwargs)))

    draw_vehicle = {
        'car': (traffic.draw_car, 4.6, {}), 'truck': (traffic.draw_truck, 9, {}), 'bus': (traffic.draw_bus, 12, {}),
        'train': (traffic.draw_train, 27, {}), 'motorcycle': (traffic.draw_bicycle, 2.3, dict(motor=True)),
        'bicycle': (traffic.draw_bicycle, 2, {})}

    def add_vehicle(name, x, z, heading, **extra):
        draw, length, options = draw_vehicle[name]
        crosswise = abs(np.sin(heading)) > .5
        wide = .8 if length < 3 else 2.6
        across, along = (length + .5, wide) if crosswise else (wide, length + 1)
        if z - along / 2 < 2 or not street.claim(x, z, across, along):
            return False
        size = canvas.stout ** .4 if length < 3 else 1.
        add(z, draw, Pose(x, z, heading, sun, size), **options, **extra)
        return True

    # First what this picture promises, near enough to be seen.
    name = next(n for n in required if n in SCHEDULE[0])
    small = name in ('motorcycle', 'bicycle')
    for _ in range(20):
        x, heading = street.lanes[rng.integers(len(street.lanes))]
        if name == 'train':
            x, heading, z = street.rails, np.pi * rng.integers(2), rng.uniform(19, 30)
        else:
            z = rng.uniform(4.5, 8) if small else rng.uniform(8, 20)
        if rng.random() < (.5 if small else .3):
            heading, x = rng.choice([-1, 1]) * np.pi / 2, rng.uniform(street.left, street.right)
            z = z if small else rng.uniform(10, 22)
        if small:
            x += rng.uniform(-1, 1)
        if add_vehicle(name, x, z, heading + rng.normal(0, .08), **(dict(rider=True) if small else {})):
            break

    side = int(rng.choice([-1, 1]))
    name = next(n for n in required if n in SCHEDULE[2])
    draw = traffic.draw_traffic_light if name == 'traffic light' else traffic.draw_traffic_sign
    x = street.edge(side) + side * rng.uniform(.3, .7)
    z = max(in_view(x), 7.) * rng.uniform(1, 1.2)
    add(z, draw, x, z, side)
    if 'person' in required:
        x = street.edge(side) + side * rng.uniform(.4, 1.5)
        z = in_view(x) * rng.uniform(1, 1.2)
        add(z, traffic.draw_person, x, z, sun)
    if 'static' in required or rng.random() < .3:
        x = street.edge(-side) - side * rng.uniform(.2, 1.)
        z = in_view(x) * rng.uniform(1, 1.2)
        add(z, traffic.draw_clutter, x, z, sun)

    # Then ordinary traffic.
    busy = rng.uniform(.2, .8)
    for x, heading in street.lanes:
        z = rng.uniform(7, 18)
        while z < 70 and canvas.seen(1.8, z, 8):
            if rng.random() < busy:
                kind = rng.choice(['car', 'truck', 'bus', 'motorcycle', 'bicycle'], p=[.66, .07, .05, .1, .12])
                slim = kind in ('motorcycle', 'bicycle')
                if not canvas.seen(1.2, z, 11) and slim:
                    kind, slim = 'car', False
                extra = dict(rider=bool(rng.random() < .75)) if slim else {}
                add_vehicle(kind, x + rng.normal(0, .2), z, heading + rng.normal(0, .06), **extra)
            z += rng.uniform(5, 12)
    # Bicycles and motorcycles left on the pavement, walkers, posts, trees.
    for side in (-1, 1):
        walk = street.edge(side), street.edge(side) + side * street.pavement[side]
        if rng.random() < .5:
            # Parked in a row, more or less square to the view.
            kind, x = rng.choice(['motorcycle', 'bicycle']), rng.uniform(*sorted(walk))
            z, heading = in_view(x) + rng.uniform(-1, 4), rng.choice([-1, 1]) * np.pi / 2 + rng.normal(0, .4)
            for _ in range(rng.integers(1, 4)):
                add_vehicle(kind, x, z, heading)
                x, z = x + rng.normal(0, .1), z + .9
        for _ in range(rng.poisson(2.)):
            z, x = rng.uniform(4.5, 32), rng.uniform(*sorted(walk))
            for _ in range(rng.integers(1, 3) if canvas.seen(1.7, z, 14) else 0):
                add(z, traffic.draw_person, x, z, sun)
                x, z = x + rng.uniform(.35, .8), z + rng.uniform(-.3, .3)
        z, lamp = rng.uniform(4, 14), rng.random() < .7
        while z < 60:
            x = street.edge(side) + side * rng.uniform(.3, .7)
            kind = rng.choice(['pole', 'light', 'sign', 'tree', 'none'], p=[.42, .1, .18, .14, .16])
            # What would be a speck is left out: no annotator would find it either.
            if kind == 'pole' and canvas.seen(.2, z, 1.2):
                add(z, traffic.draw_pole, x, z, side, lamp)
            elif kind == 'light' and canvas.seen(1.4, z, 10):
                add(z, traffic.draw_traffic_light, x, z, side)
            elif kind == 'sign' and canvas.seen(1.2, z, 9):
                add(z, traffic.draw_traffic_sign, x, z, side)
            elif kind == 'tree' and canvas.seen(4, z, 14):
                add(z, scenery.draw_tree, x + side * .4, z, rng.uniform(3.5, 8), pick(rng, scenery.FOLIAGE),
                    np.float32([92, 84, 74]) * rng.uniform(.6, 1.3))
            z += rng.uniform(8, 18)
    if rng.random() < .35:
        for _ in range(rng.integers(1, 4)):
            z = rng.uniform(5, 20)
            add(z, traffic.draw_person, rng.uniform(street.left, street.right), z, sun)
    return things


def _draw_bonnet(canvas):
    """The bonnet of the car that carries the camera."""
    height, width = canvas.ids.shape
    top, half = canvas.rng.uniform(.88, .95) * height, canvas.rng.uniform(.32, .5) * width
    middle = width * canvas.rng.uniform(.45, .55)
    angle = np.linspace(np.pi, 2 * np.pi, 24)
    hood = np.stack([middle + half * np.cos(angle), height + 2 + (height + 2 - top) * np.sin(angle)], -1)
    colour = pick(canvas.rng, traffic.LACQUER) * .7
    canvas.fill(hood, colour, 0, ID['ego vehicle'], rough=.05, grain=12)
    canvas.fill((hood - [middle, height]) * [.8, .55] + [middle, height + 2], colour * 1.35, 0, alpha=.5)


def _develop(canvas, size, scale):
    """Exposure, colour cast, vignette, blur, reduction to the final size and sensor noise."""
    rng = canvas.rng
    height, width = size
    image = cv2.resize(canvas.image, (width, height), interpolation=cv2.INTER_AREA) if scale > 1 else canvas.image
    ids = canvas.ids[scale // 2::scale, scale // 2::scale].copy()
    image = image * rng.uniform(.75, 1.12) * (1 + .03 * rng.standard_normal(3)).astype(np.float32)
    v, u = np.linspace(-1, 1, height, dtype=np.float32)[:, None], np.linspace(-1, 1, width, dtype=np.float32)[None]
    image = image * (1 - rng.uniform(0, .2) * (u * u + v * v) / 2)[..., None]
    if rng.random() < .25:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(.3, .7) * max(height / 128, 1))
    image = 255 * (np.clip(image, 0, 255) / 255) ** rng.uniform(.85, 1.2)
    image = image + rng.uniform(1., 4.) * rng.standard_normal(image.shape, np.float32)
    return np.rint(np.clip(image, 0, 255)).astype(np.uint8), ids

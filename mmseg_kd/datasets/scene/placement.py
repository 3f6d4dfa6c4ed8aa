"""Where things stand along the street, and in which order they are drawn."""
import numpy as np

from .fronts import draw_building, draw_fence, draw_wall
from .furniture import draw_clutter, draw_pole, draw_traffic_light, draw_traffic_sign
from .palette import FOLIAGE, pick
from .people import draw_bicycle, draw_person
from .plants import draw_greenery, draw_tree
from .schedule import SCHEDULE
from .shapes import Pose
from .vehicles import draw_bus, draw_car, draw_train, draw_truck

# Length in metres, and what draws it.
_VEHICLES = {'car': (4.6, draw_car), 'truck': (9, draw_truck), 'bus': (12, draw_bus), 'train': (27, draw_train)}
_TWO_WHEELERS = {'motorcycle': 2.3, 'bicycle': 2.}


def in_view(x):
    """Least distance in metres at which something ``x`` metres aside is surely inside the picture."""
    return max(5., 2.3 * abs(x))


def draw_fronts(canvas, street, sun, contrast, required):
    """Both sides of the street, piece by piece, the far ones first."""
    rng = canvas.rng
    green = rng.uniform(.1, .8)
    promised = [name for name in ('wall', 'fence') if name in required]
    promised_side = int(rng.choice([-1, 1]))
    for side in (-1, 1):
        light = 1 + contrast * (-1 if side == sun else .35)
        pieces, z = [], 1.5
        while z < 85:
            length = rng.uniform(10, 26)
            kind = rng.choice(['building', 'wall', 'fence', 'green', 'open'],
                              p=np.array([.62 - .35 * green, .1, .1, .1 + .3 * green, .08 + .05 * green]))
            if promised and side == promised_side and not pieces:
                kind, length = promised[0], in_view(street.front(side)) + rng.uniform(4, 12)
            pieces.append((z, z + length, kind))
            z += length
        for start, end, kind in reversed(pieces):
            _draw_front(canvas, street, side, start, end, kind, light)


def _draw_front(canvas, street, side, start, end, kind, light):
    rng = canvas.rng
    x = street.front(side) + side * rng.uniform(0, 1.5)
    if kind == 'fence' and rng.random() < .4:
        # A railing at the kerb.
        x = street.edge(side) + side * .35
    if kind in ('wall', 'fence', 'open') and rng.random() < .75:
        behind = street.front(side) + side * rng.uniform(3, 9)
        if rng.random() < .5:
            draw_building(canvas, behind, side, start, end, rng.uniform(5, 13), light)
        else:
            draw_greenery(canvas, behind, side, start, end, light)
    if kind == 'building':
        draw_building(canvas, x, side, start, end, rng.uniform(5, 19), light)
    elif kind == 'wall':
        draw_wall(canvas, x, side, start, end, rng.uniform(1.4, 3.8), light)
    elif kind == 'fence':
        draw_fence(canvas, x, side, start, end, rng.uniform(1.2, 2.4), light)
    elif kind == 'green':
        draw_greenery(canvas, x, side, start, end, light)


def draw_things(canvas, street, sun, required):
    """All that stands or moves on the ground, the far ones first."""
    things = _Things(canvas, street, sun)
    things.add_promised(required)
    things.add_traffic()
    for side in (-1, 1):
        things.add_parked_two_wheelers(side)
        things.add_walkers(side)
        things.add_kerb(side)
    things.add_crossing_people()
    things.draw()


class _Things:
    """Collects things with their distance.

    The thresholds given to ``canvas.seen`` are final pixels: specks are left out, which no annotator would find either.
    """

    def __init__(self, canvas, street, sun):
        self.canvas, self.rng, self.street, self.sun = canvas, canvas.rng, street, sun
        self._calls = []

    def draw(self):
        for _, draw, args, kwargs in sorted(self._calls, key=lambda call: -call[0]):
            draw(self.canvas, *args, **kwargs)

    def _add(self, z, draw, *args, **kwargs):
        self._calls.append((z, draw, args, kwargs))

    def _add_vehicle(self, name, x, z, heading, rider=False):
        """Adds a vehicle where the ground is free; returns whether it was."""
        slim = name in _TWO_WHEELERS
        length, draw = (_TWO_WHEELERS[name], draw_bicycle) if slim else _VEHICLES[name]
        wide = .8 if slim else 2.6
        across, along = (length + .5, wide) if abs(np.sin(heading)) > .5 else (wide, length + 1)
        if z - along / 2 < 2 or not self.street.claim(x, z, across, along):
            return False
        pose = Pose(x, z, heading, self.sun, self.canvas.stout ** .4 if slim else 1.)
        self._add(z, draw, pose, **(dict(rider=rider, motor=name == 'motorcycle') if slim else {}))
        return True

    def add_promised(self, required):
        """What this picture must show, near enough to be seen."""
        rng, street = self.rng, self.street
        self._add_promised_vehicle(required[0])
        side = int(rng.choice([-1, 1]))
        draw = draw_traffic_light if 'traffic light' in required else draw_traffic_sign
        x = street.edge(side) + side * rng.uniform(.3, .7)
        z = max(in_view(x), 7.) * rng.uniform(1, 1.2)
        self._add(z, draw, x, z, side)
        if 'person' in required:
            x = street.edge(side) + side * rng.uniform(.4, 1.5)
            z = in_view(x) * rng.uniform(1, 1.2)
            self._add(z, draw_person, x, z, self.sun)
        if 'static' in required or rng.random() < .3:
            x = street.edge(-side) - side * rng.uniform(.2, 1.)
            z = in_view(x) * rng.uniform(1, 1.2)
            self._add(z, draw_clutter, x, z, self.sun)

    def _add_promised_vehicle(self, name):
        rng, street = self.rng, self.street
        assert name in SCHEDULE[0]
        slim = name in _TWO_WHEELERS
        for _ in range(20):
            x, heading = street.lanes[rng.integers(len(street.lanes))]
            if name == 'train':
                x, heading, z = street.rails, np.pi * rng.integers(2), rng.uniform(19, 30)
            else:
                z = rng.uniform(4.5, 8) if slim else rng.uniform(8, 20)
            if rng.random() < (.5 if slim else .3):
                # It crosses the street, and is seen from the side.
                heading, x = rng.choice([-1, 1]) * np.pi / 2, rng.uniform(street.left, street.right)
                z = z if slim else rng.uniform(10, 22)
            if slim:
                x += rng.uniform(-1, 1)
            if self._add_vehicle(name, x, z, heading + rng.normal(0, .08), rider=slim):
                return

    def add_traffic(self):
        rng = self.rng
        busy = rng.uniform(.2, .7)
        for x, heading in self.street.lanes:
            z = rng.uniform(7, 18)
            while z < 70 and self.canvas.seen(1.8, z, 8):
                if rng.random() < busy:
                    kind = rng.choice(['car', 'truck', 'bus', 'motorcycle', 'bicycle'], p=[.66, .07, .05, .1, .12])
                    if kind in _TWO_WHEELERS and not self.canvas.seen(1.2, z, 11):
                        kind = 'car'
                    rider = kind in _TWO_WHEELERS and bool(rng.random() < .75)
                    self._add_vehicle(kind, x + rng.normal(0, .2), z, heading + rng.normal(0, .06), rider)
                z += rng.uniform(5, 12)

    def add_parked_two_wheelers(self, side):
        """A short row, more or less square to the view."""
        rng = self.rng
        if rng.random() > .65:
            return
        kind, x = rng.choice(list(_TWO_WHEELERS)), self.street.on_pavement(side, rng)
        z, heading = in_view(x) + rng.uniform(-1, 3), rng.choice([-1, 1]) * np.pi / 2 + rng.normal(0, .4)
        for _ in range(rng.integers(1, 4)):
            self._add_vehicle(kind, x, z, heading)
            x, z = x + rng.normal(0, .1), z + .9

    def add_walkers(self, side):
        rng = self.rng
        for _ in range(rng.poisson(2.)):
            z, x = rng.uniform(4.5, 32), self.street.on_pavement(side, rng)
            if not self.canvas.seen(1.7, z, 14):
                continue
            for _ in range(rng.integers(1, 3)):
                self._add(z, draw_person, x, z, self.sun)
                x, z = x + rng.uniform(.35, .8), z + rng.uniform(-.3, .3)

    def add_crossing_people(self):
        rng = self.rng
        if rng.random() < .35:
            for _ in range(rng.integers(1, 4)):
                z = rng.uniform(5, 20)
                if self.canvas.seen(1.7, z, 14):
                    self._add(z, draw_person, rng.uniform(self.street.left, self.street.right), z, self.sun)

    def add_kerb(self, side):
        """Poles, lights, signs and trees at intervals along the kerb."""
        rng, canvas = self.rng, self.canvas
        z, lamp = rng.uniform(7, 15), rng.random() < .7
        while z < 60:
            x = self.street.edge(side) + side * rng.uniform(.3, .7)
            kind = rng.choice(['pole', 'light', 'sign', 'tree', 'none'], p=[.42, .1, .18, .14, .16])
            if kind == 'pole' and canvas.seen(.2, z, 1.2):
                self._add(z, draw_pole, x, z, side, lamp)
            elif kind == 'light' and canvas.seen(1.4, z, 10):
                self._add(z, draw_traffic_light, x, z, side)
            elif kind == 'sign' and canvas.seen(1.2, z, 9):
                self._add(z, draw_traffic_sign, x, z, side)
            elif kind == 'tree' and canvas.seen(4, z, 14):
                trunk = np.float32([92, 84, 74]) * rng.uniform(.6, 1.3)
                self._add(z, draw_tree, x + side * .4, z, rng.uniform(3.5, 8), pick(rng, FOLIAGE), trunk)
            z += rng.uniform(9, 20)

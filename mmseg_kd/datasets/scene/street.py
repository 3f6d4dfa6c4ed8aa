"""The cross-section of a street: lanes, kerbs, pavements."""
from dataclasses import dataclass, field

import numpy as np


@dataclass
class Street:
    """Cross-section of the street in metres; keys -1 and 1 are its left and right side.

    Args:
        left, right: x of the two kerbs.
        lines: x of the painted lines between lanes.
        lanes: (x, heading) of every lane, parked cars included.
        pavement: Width of the pavement, the verge included.
        verge: Width of the strip of grass at the kerb, 0 for none.
        outer: Class of the ground beyond the pavement.
        bay: (start, end) in z of a parking bay, or None.
        rails: x of the tram, or None.
        crossing: z of the zebra crossing, or None.
    """
    left: float
    right: float
    lines: list
    lanes: list
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

    def on_pavement(self, side, rng):
        """A random x on the pavement."""
        return self.edge(side) + side * rng.uniform(0, self.pavement[side])

    def claim(self, x, z, across, along):
        """Whether a rectangle of the ground is free; if so it is taken."""
        for other_x, other_z, other_across, other_along in self.taken:
            if abs(x - other_x) < (across + other_across) / 2 and abs(z - other_z) < (along + other_along) / 2:
                return False
        self.taken.append((x, z, across, along))
        return True


def plan_street(rng, required):
    """A random street on which the ``required`` classes can be."""
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
    bay = {-1: None, 1: None}
    for side in (-1, 1):
        if parked[(side + 1) // 2] and rng.random() < .35:
            start = rng.uniform(3, 14)
            bay[side] = (start, start + rng.uniform(5, 15))
    rails = lanes[0][0] if 'train' in required or rng.random() < .1 else None
    crossing = rng.uniform(5, 18) if rng.random() < .25 else None
    return Street(left, right, lines, lanes, pavement, verge, outer, bay, rails, crossing)

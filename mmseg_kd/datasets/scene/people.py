"""People on foot and on two wheels, dressed alike."""
import numpy as np

from .palette import CLOTH, LACQUER, SKIN, pick
from .shapes import UP, Pose, disc, shadow


def draw_person(canvas, x, z, sun):
    """Somebody on foot, from any side, in any step; some carry a bag."""
    rng = canvas.rng
    owner = canvas.new_id('person')
    height = rng.choice([1.15, 1.6, 1.7, 1.8], p=[.12, .28, .3, .3]) * rng.uniform(.96, 1.04)
    jacket, trousers = pick(rng, CLOTH), pick(rng, CLOTH) * .85
    height *= canvas.stout ** .25
    broad = height * canvas.stout ** .75
    skin, hair = SKIN[rng.integers(len(SKIN))], rng.choice([30., 60., 130.]) * np.float32([1, .85, .7])
    pose = Pose(x, z, 0., sun)
    shadow(canvas, pose, -.2, .2, .6, .55)

    def figure(points):
        return np.array([[x + s * broad, t * height, z] for s, t in points])

    stride, turn = rng.uniform(-.13, .13), rng.uniform(.7, 1.)
    for sign in (-1, 1):
        foot = sign * (.035 + abs(stride))
        canvas.solid(figure([(sign * .01 - .045, .48), (sign * .01 + .055, .48), (foot + .04, 0), (foot - .04, 0)]),
                     trousers * (1 if sign > 0 else .85), owner)
    coat = rng.uniform(.38, .5)
    wide = .13 * turn
    torso = [(-.1 * turn, coat), (.1 * turn, coat), (wide, .8), (.06, .84), (-.06, .84), (-wide, .8)]
    canvas.solid(figure(torso), jacket, owner, rough=.08)
    for sign in (-1, 1):
        hand = sign * (wide + rng.uniform(0, .07))
        canvas.solid(figure([(sign * wide - .03, .8), (sign * wide + .03, .8), (hand + .028, .45), (hand - .028, .45)]),
                     jacket * .9, owner)
    canvas.solid(disc([x, .915 * height, z], .068 * (height + broad) / 2, [1, 0, 0], UP), skin, owner)
    canvas.solid(disc([x, .945 * height, z], .066 * (height + broad) / 2, [1, 0, 0], UP * .75), hair, owner)
    if rng.random() < .3:
        side = rng.choice([-1, 1]) * (wide + .05)
        canvas.solid(figure([(side - .06, .3), (side + .06, .3), (side + .05, .48), (side - .05, .48)]),
                     pick(rng, CLOTH), owner)


def draw_bicycle(canvas, pose, rider=False, motor=False):
    """A bicycle or (``motor``) a motorcycle; ``rider`` True seats somebody on it.

    The whole wheel belongs to the bicycle although the street shows between the spokes, as Cityscapes annotates it.
    """
    rng = canvas.rng
    owner = canvas.new_id('motorcycle' if motor else 'bicycle')
    paint = pick(rng, LACQUER) * .9
    radius, reach = (.32, .68) if motor else (.34, .53)
    shadow(canvas, pose, -reach - radius, reach + radius, .5 if motor else .25, .55)
    rubber = np.float32([26, 26, 28])
    for forward in (-reach, reach):
        hub = pose.at(forward, 0, radius)
        wheel = disc(hub, radius, pose.forward, UP)
        canvas.solid(wheel, rubber, owner, alpha=1. if motor else .35)
        if motor:
            canvas.solid(disc(hub, radius * .5, pose.forward, UP), np.float32([110, 110, 112]))
        else:
            for a, b in zip(wheel, np.roll(wheel, -1, 0), strict=True):
                canvas.bar(a, b, .07, rubber, owner)
        # Seen from behind the disc has no width of its own.
        canvas.post(hub[0], hub[2], 0, 2 * radius, .16 if motor else .07, rubber, owner)
    if motor:
        tank = pose.outline([(-.75, .72), (-.3, .5), (.1, .35), (.5, .6), (.55, .95), (.3, 1.), (0, .82), (-.5, .84)])
        for _, face, shade in pose.box(-.45, .5, .42, .35, .85):
            canvas.solid(face, paint * shade, owner)
        canvas.solid(tank, paint, owner)
        canvas.solid(pose.outline([(-.7, .8), (0, .78), (0, .88), (-.7, .92)]), rubber, owner)
        canvas.solid(pose.outline([(-.2, .25), (.25, .25), (.3, .5), (-.25, .5)]), np.float32([90, 90, 92]), owner)
    else:
        for a, b in (((-reach, radius), (-.15, .8)), ((-.15, .8), (.4, .8)), ((.4, .8), (0, .3)), ((0, .3), (-.15, .9)),
                     ((0, .3), (-reach, radius)), ((reach, radius), (.42, 1.)), ((-.28, .92), (-.02, .92))):
            canvas.bar(pose.at(a[0], 0, a[1]), pose.at(b[0], 0, b[1]), .08, paint, owner)
    bar = (.42, 1.05)
    canvas.bar(pose.at(bar[0], -.3, bar[1]), pose.at(bar[0], .3, bar[1]), .06, rubber, owner)
    if rider:
        _draw_rider(canvas, pose, motor)


def _draw_rider(canvas, pose, motor):
    rng = canvas.rng
    owner = canvas.new_id('rider')
    jacket, trousers = pick(rng, CLOTH), pick(rng, CLOTH) * .8
    skin = SKIN[rng.integers(len(SKIN))]
    lean = rng.uniform(.15, .4)
    hip, knee, foot = (-.2, .9), (.22, .68), (.05, .2)
    shoulder = (-.2 + lean, 1.45)
    for side in (-.16, .16):
        canvas.bar(pose.at(*_beside(hip, side)), pose.at(*_beside(knee, side)), .17 * canvas.stout, trousers, owner)
        canvas.bar(pose.at(*_beside(knee, side)), pose.at(*_beside(foot, side)), .13 * canvas.stout, trousers, owner)
    half = .22 * canvas.stout ** .5
    across = np.array([1., 0, 0]) * pose.size
    low, high = pose.at(hip[0], 0, hip[1] - .08), pose.at(shoulder[0], 0, shoulder[1])
    torso = np.array([low - .17 * across, low + .17 * across, high + half * across, high - half * across])
    canvas.solid(torso, jacket, owner, rough=.08)
    for side in (-.24, .24):
        canvas.bar(pose.at(*_beside(shoulder, side)), pose.at(.4, side, 1.08), .12 * canvas.stout, jacket * .9, owner)
    head = pose.at(shoulder[0] + .08, 0, 1.62)
    canvas.solid(disc(head, .15 * pose.size, across / pose.size, UP), skin, owner)
    helmet = pick(rng, LACQUER) if motor or rng.random() < .6 else np.float32([50, 40, 34])
    canvas.solid(disc(head + .05 * UP, .16 * pose.size, across / pose.size, UP * .8), helmet, owner)


def _beside(point, side):
    """(forward, up) in the middle of the machine to (forward, right, up) at one of its sides."""
    return point[0], side, point[1]

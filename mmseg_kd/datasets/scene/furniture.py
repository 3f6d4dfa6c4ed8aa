"""What is planted along the kerb: poles, traffic lights, signs, clutter."""
import numpy as np

from .palette import GREYS, ID, LACQUER, pick
from .shapes import UP, Pose, disc, shadow


def draw_pole(canvas, x, z, side, lamp):
    rng = canvas.rng
    colour = pick(rng, GREYS) * rng.uniform(.6, 1.3)
    height = rng.uniform(5, 8.5) if lamp else rng.uniform(2.6, 4)
    canvas.post(x, z, 0, height, rng.uniform(.14, .26) * canvas.stout, colour, ID['pole'])
    if lamp:
        tip = [x - side * rng.uniform(1., 2.4), height + .1, z]
        canvas.bar([x, height, z], tip, .1 * canvas.stout, colour, ID['pole'])
        canvas.solid(np.array([[tip[0] - .35, height, z], [tip[0] + .35, height, z], [tip[0] + .35, height + .2, z],
                               [tip[0] - .35, height + .2, z]]), colour * 1.2, ID['pole'])
    return height, colour


def draw_traffic_light(canvas, x, z, side):
    """A light on its pole; sometimes a second one hangs over the road."""
    rng = canvas.rng
    height = rng.uniform(2.4, 3.)
    _, colour = draw_pole(canvas, x, z, side, False)
    canvas.post(x, z, 0, height, .16 * canvas.stout, colour, ID['pole'])
    spots = [(x, height)]
    if rng.random() < .4:
        reach = rng.uniform(2, 3.5)
        canvas.post(x, z, 0, 5.2, .18, colour, ID['pole'])
        canvas.bar([x, 5.2, z], [x - side * reach, 5.2, z], .12, colour, ID['pole'])
        spots.append((x - side * reach, 4.5))
    case = np.float32([34, 36, 36]) if rng.random() < .75 else pick(rng, GREYS)
    lit = rng.integers(3)
    for column, low in spots:
        tall = 1.2 * canvas.stout ** .5
        half = .25 * tall
        box = np.array([[column - half, low, z], [column + half, low, z], [column + half, low + tall, z],
                        [column - half, low + tall, z]])
        canvas.solid(box, case, ID['traffic light'])
        for i, glow in enumerate(([60, 230, 130], [250, 190, 60], [250, 60, 50])):
            bulb = disc([column, low + tall * (.2 + .3 * i), z], .15 * tall, [1, 0, 0], UP, 8)
            canvas.solid(bulb, np.float32(glow) if i == lit else np.float32(glow) * .28)


def draw_traffic_sign(canvas, x, z, side):
    rng = canvas.rng
    height, _ = draw_pole(canvas, x, z, side, False)
    size = rng.uniform(.42, .62) * canvas.stout ** .5
    centre = np.array([x, max(height - size, 2.2), z])
    red, blue, white = np.float32([186, 40, 40]), np.float32([36, 76, 152]), np.float32([224, 222, 214])
    across = np.array([1., 0, 0])
    kind = rng.integers(6)
    if kind == 5:
        # The back of a sign: grey, and only its outline tells.
        canvas.solid(disc(centre, size, across, UP, 10), pick(rng, GREYS) * 1.3, ID['traffic sign'])
        return
    if kind == 0:
        shape, rim, inner = disc(centre, size, across, UP), red, white
    elif kind == 1:
        shape, rim, inner = disc(centre, size, across, UP), blue, blue * 1.1
    elif kind == 2:
        shape, rim, inner = disc(centre, size * 1.2, UP, across, 3), red, white
    elif kind == 3:
        shape, rim, inner = disc(centre, size * 1.15, UP, across, 4), white, np.float32([226, 180, 50])
    else:
        wide = np.array([[-1.5, -.6], [1.5, -.6], [1.5, .6], [-1.5, .6]]) * size
        shape, rim, inner = np.array([centre + [a, b, 0] for a, b in wide]), white, rng.choice([blue, white, red * .9])
    canvas.solid(shape, rim, ID['traffic sign'])
    canvas.solid(centre + (shape - centre) * .68, inner)
    canvas.solid(centre + (shape - centre) * [.35, .12, 1], white if kind in (1, 4) else np.float32([40, 40, 42]))


def draw_clutter(canvas, x, z, sun):
    """Bins, cabinets, benches, prams: what Cityscapes calls static or dynamic and leaves out of the evaluation."""
    rng = canvas.rng
    owner = ID['static'] if rng.random() < .75 else ID['dynamic']
    wide, deep, high = rng.uniform(.6, 1.5), rng.uniform(.4, .9), rng.uniform(.6, 1.4)
    colour = pick(rng, np.concatenate([LACQUER, GREYS]))
    pose = Pose(x, z, rng.uniform(-.4, .4), sun)
    shadow(canvas, pose, -deep / 2, deep / 2, wide, .55)
    for _, face, shade in pose.box(-deep / 2, deep / 2, wide, 0, high):
        canvas.solid(face, colour * shade, owner, rough=.08)

"""Trees and bushes."""
import numpy as np

from .palette import FOLIAGE, ID, pick


def bush(canvas, column, row, half_width, half_height, colour, z, owner=None):
    """A ragged leafy blob around a canvas position, lit from above; half sizes in canvas pixels."""
    height, width = canvas.ids.shape
    left, right = max(int(column - 1.3 * half_width), 0), min(int(column + 1.3 * half_width) + 1, width)
    top, bottom = max(int(row - 1.3 * half_height), 0), min(int(row + 1.3 * half_height) + 1, height)
    if left >= right or top >= bottom:
        return
    v = (np.arange(top, bottom, dtype=np.float32)[:, None] - row) / half_height
    u = (np.arange(left, right, dtype=np.float32)[None] - column) / half_width
    grain = max(half_width / 2.5, 3)
    shape = (bottom - top, right - left)
    edge = .75 * canvas.noise(*shape, grain) + .4 * canvas.noise(*shape, grain / 2.5)
    mask = u * u + v * v + .4 * edge < .95
    light = (1 - .28 * v + .35 * canvas.noise(*shape, grain) + .25 * canvas.noise(*shape, grain / 3))[..., None]
    tone = canvas.tone(colour, z) * np.clip(light, .35, 1.7)
    canvas.blend(mask, top, left, tone, rough=.2, grain=2)
    canvas.ids[top:bottom, left:right][mask] = ID['vegetation'] if owner is None else owner


def draw_tree(canvas, x, z, height, colour, trunk_colour):
    """A tree: the trunk belongs to the vegetation, as in Cityscapes, though it looks much like a pole."""
    scale = canvas.pixels_per_metre(z)
    crown = height * canvas.rng.uniform(.5, .68)
    trunk = canvas.rng.uniform(.2, .4) * canvas.stout
    canvas.post(x, z, 0, height - crown * .7, trunk, trunk_colour, ID['vegetation'], rough=.2, grain=3)
    column, row = canvas.camera.project([x, height - crown / 2, z])
    half = crown * .5 * canvas.rng.uniform(.85, 1.2)
    for _ in range(3):
        du, dv = canvas.rng.uniform(-.45, .45, 2)
        bush(canvas, column + du * half * scale, row + dv * crown * .4 * scale, .75 * half * scale, .36 * crown * scale,
             colour * canvas.rng.uniform(.85, 1.15), z)


def draw_greenery(canvas, x, side, start, end, light):
    """Hedges and trees along a stretch of the street."""
    rng = canvas.rng
    colour = pick(rng, FOLIAGE) * light
    trunk = np.float32([92, 80, 66]) * rng.uniform(.6, 1.2)
    hedge = rng.random() < .6
    z = end
    while z > start:
        scale = canvas.pixels_per_metre(z)
        if hedge:
            column, row = canvas.camera.project([x + side * .8, .8, z])
            bush(canvas, column, row, 1.8 * scale, 1.3 * scale, colour * rng.uniform(.9, 1.1), z)
        if rng.random() < .65:
            draw_tree(canvas, x + side * rng.uniform(.8, 3), z, rng.uniform(5, 10), colour, trunk)
        z -= rng.uniform(1.2, 2.6) * max(1., z / 15)

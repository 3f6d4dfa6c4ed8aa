"""What lines the street: houses, walls, fences."""
import numpy as np

from .palette import FOLIAGE, GREYS, ID, MASONRY, pick
from .shapes import patch


def facade(x, start, end, low, high):
    """The wall that faces the street, as a face seen from it: (4, 3), from near to far."""
    return np.array([[x, low, start], [x, low, end], [x, high, end], [x, high, start]], float)


def gable(x, side, z, depth, low, high):
    """The wall that faces the camera, reaching ``depth`` metres away from the street."""
    return np.array([[x, low, z], [x + side * depth, low, z], [x + side * depth, high, z], [x, high, z]], float)


def draw_building(canvas, x, side, start, end, height, light):
    """A house: plain or plastered, with a grid of windows, a shop floor, a cornice."""
    rng = canvas.rng
    colour = pick(rng, MASONRY)
    owner = ID['building']
    rough, grain = rng.uniform(.04, .16), canvas.pixels_per_metre(start) * .5
    glass = rng.choice([38., 62., 120.]) * np.float32([.9, 1., 1.12])
    across, floor = rng.uniform(2.2, 4.), rng.uniform(2.8, 3.6)
    shop = rng.random() < .4
    for face, length, shade in ((gable(x, side, start, 12, 0, height), 12, .78),
                                (facade(x, start, end, 0, height), end - start, light)):
        canvas.solid(face, colour * shade, owner, rough=rough, grain=grain)
        canvas.solid(patch(face, 0, .955, 1, 1), colour * shade * rng.uniform(.6, 1.25))
        columns, rows = max(int(length / across), 1), max(int((height - .6) / floor), 1)
        panes, frames = [], []
        for row in range(1 if shop else 0, rows):
            for column in range(columns):
                u0, v0 = (column + .27) / columns, (row + .3) * floor / height
                u1, v1 = (column + .73) / columns, min((row + .82) * floor / height, .95)
                if rng.random() < .93:
                    frames.append(patch(face, u0 - .04 / columns, v0, u1 + .04 / columns, v1))
                    panes.append(patch(face, u0, v0 + .02 / rows, u1, v1))
        if panes:
            z = float(np.mean(face[:, 2]))
            project = canvas.camera.project
            canvas.fill([project(p) for p in frames], colour * shade * 1.2, z)
            canvas.fill([project(p) for p in panes], glass * shade, z)
            bright = [project(p) for p in panes if rng.random() < .2]
            if bright:
                canvas.fill(bright, np.float32([190, 180, 150]) * shade, z)
        if shop:
            canvas.solid(patch(face, .04, 0, .96, min(2.6 / height, .5)), glass * .9 * shade, rough=.25, grain=grain)
            sign = rng.uniform(40, 220, 3) * shade
            canvas.solid(patch(face, .04, min(2.6 / height, .5), .96, min(3.2 / height, .6)), sign)


def draw_wall(canvas, x, side, start, end, height, light):
    """A free-standing wall: the masonry of a house without its windows and its height."""
    rng = canvas.rng
    # Bare concrete, or the masonry of the houses.
    colour, owner = pick(rng, GREYS * 1.45 if rng.random() < .5 else MASONRY), ID['wall']
    rough, grain = rng.uniform(.06, .2), canvas.pixels_per_metre(start) * .4
    canvas.solid(gable(x, side, start, .5, 0, height), colour * .7, owner, rough=rough, grain=grain)
    face = facade(x, start, end, 0, height)
    canvas.solid(face, colour * light, owner, rough=rough, grain=grain)
    canvas.solid(patch(face, 0, .93, 1, 1), colour * light * 1.15)
    for u in np.arange(0, 1, 4 / max(end - start, 4)):
        canvas.solid(patch(face, u, 0, u + .15 / (end - start), 1), colour * light * .8)
    if rng.random() < .3:
        u = rng.uniform(.1, .6)
        canvas.solid(patch(face, u, .2, u + .25, .75), rng.uniform(40, 220, 3) * light, alpha=.6, rough=.4, grain=grain)


def draw_fence(canvas, x, side, start, end, height, light):
    """Bars or mesh: what is behind shows through, yet the whole outline is fence, as Cityscapes annotates it."""
    rng = canvas.rng
    colour = pick(rng, np.concatenate([GREYS * .6, GREYS * 1.9, MASONRY[:2], FOLIAGE[:2] * .8])) * light
    face = facade(x, start, end, 0, height)
    canvas.solid(face, colour, ID['fence'], alpha=rng.uniform(.15, .4), rough=.1)
    # Too fine for the picture, the bars would melt into a plain surface.
    gap = rng.uniform(.35, .6) * canvas.stout
    z = start
    while z < end:
        canvas.post(x, z, 0, height, .09 * canvas.stout, colour, ID['fence'], least=.8)
        z += gap * max(1., z / 12)
    for v in (.08, .55, .94) if rng.random() < .6 else (.94,):
        canvas.solid(patch(face, 0, v, 1, v + .06), colour)
    if rng.random() < .3:
        canvas.solid(patch(face, 0, 0, 1, .3), pick(rng, MASONRY) * light, rough=.1)

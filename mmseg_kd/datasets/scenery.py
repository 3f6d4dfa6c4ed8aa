"""What does not move: sky, ground, the fronts along the street, trees."""
import numpy as np
from cityscapesscripts.helpers.labels import name2label

from .canvas import patch

ID = {name: label.id for name, label in name2label.items()}

# Walls, houses, lorries and buses share these: colour alone must not give a class away.
MASONRY = np.array([[176, 160, 138], [150, 96, 78], [188, 184, 176], [128, 122, 114], [206, 190, 152], [112, 90, 80],
                    [160, 172, 180], [214, 206, 196]], np.float32)
FOLIAGE = np.array([[66, 88, 44], [84, 104, 52], [52, 74, 44], [104, 110, 56], [96, 88, 48]], np.float32)
GREYS = np.array([[96, 96, 98], [112, 110, 108], [84, 86, 92], [124, 120, 114]], np.float32)


def pick(rng, table, spread=.06):
    """A colour of ``table`` (N, 3), shifted at random."""
    return table[rng.integers(len(table))] * (1 + spread * rng.standard_normal(3)) * rng.uniform(.85, 1.12)


def draw_sky(canvas, zenith, horizon_colour, cloud):
    height, width = canvas.ids.shape
    rows = max(int(canvas.camera.horizon) + 2, 1)
    mix = np.linspace(0, 1, rows, dtype=np.float32)[:, None, None] ** .8
    sky = (1 - mix) * np.asarray(zenith, np.float32) + mix * np.asarray(horizon_colour, np.float32)
    clouds = .7 * canvas.noise(rows, width, 32) + .3 * canvas.noise(rows, width, 12)
    weight = np.clip((clouds + cloud - .5) * 1.6, 0, .85)[..., None]
    canvas.image[:rows] = (1 - weight) * sky + weight * np.float32([226, 226, 228])
    canvas.ids[:rows] = ID['sky']


def strip(canvas, left, right, start, end, samples=14):
    """Outline in canvas pixels of the ground from x = ``left`` to ``right``, from ``start`` to ``end`` metres ahead."""
    z = np.geomspace(start, end, samples)
    flat = np.zeros_like(z)
    edges = [np.stack([flat + left, flat, z], -1), np.stack([flat + right, flat, z], -1)[::-1]]
    return canvas.camera.project(np.concatenate(edges))


def draw_ground(canvas, street):
    """Road with its markings, sidewalks, verges of grass, parking bays. ``street`` is a scene.Street."""
    rng = canvas.rng
    asphalt = pick(rng, GREYS, .03)
    height, width = canvas.ids.shape
    top = min(int(canvas.camera.horizon) + 1, height - 2)
    whole = np.array([[0, top], [width, top], [width, height], [0, height]])
    canvas.fill(whole, pick(rng, GREYS, .04), 25, ID['sidewalk'], rough=.1, grain=5)
    for side in (-1, 1):
        edge = street.edge(side)
        ground, colour, rough = street.outer[side], pick(rng, GREYS, .05) * 1.05, .1
        if ground == 'terrain':
            colour, rough = pick(rng, FOLIAGE, .03) * 1.15, .32
        far = side * 60
        canvas.fill(strip(canvas, *sorted((edge, far)), 1.3, 150), colour, 20, ID[ground], rough=rough, grain=5)
        pavement = sorted((edge, edge + side * street.pavement[side]))
        # Slabs or clinker: lighter than the road, or redder, or nearly alike.
        tint = asphalt * rng.uniform(1.1, 1.5) * (1 + rng.choice([0., .14]) * np.float32([1, 0, -.7]))
        canvas.fill(strip(canvas, *pavement, 1.3, 150), tint, 15, ID['sidewalk'], rough=.09, grain=5)
        if rng.random() < .6:
            _tiles(canvas, *pavement, tint * .86)
        verge = street.verge[side]
        if verge:
            grass = sorted((edge, edge + side * verge))
            canvas.fill(strip(canvas, *grass, 1.3, 150), pick(rng, FOLIAGE, .03) * 1.2, 15, ID['terrain'], rough=.35)
        canvas.fill(strip(canvas, *sorted((edge - side * .1, edge + side * .14)), 1.3, 150), tint * 1.2, 15)
    canvas.fill(strip(canvas, street.edge(-1), street.edge(1), 1.3, 150), asphalt, 12, ID['road'], rough=.09, grain=4)
    _markings(canvas, street, asphalt)


def _tiles(canvas, left, right, colour):
    joints = []
    for z in np.arange(3, 26, 1.5):
        joints.append(np.array([[left, 0, z], [right, 0, z], [right, 0, z + .1], [left, 0, z + .1]]))
    canvas.solid(joints, colour, alpha=.6)


def _markings(canvas, street, asphalt):
    rng = canvas.rng
    paint = np.float32([205, 203, 196]) * rng.uniform(.75, 1.1)
    for _ in range(rng.integers(0, 4)):
        x, z = rng.uniform(street.edge(-1), street.edge(1)), rng.uniform(4, 30)
        repair = strip(canvas, x, x + rng.uniform(.5, 2), z, z + rng.uniform(1, 8), 2)
        canvas.fill(repair, asphalt * rng.uniform(.8, 1.2), z, rough=.08)
    for x in street.lines:
        if rng.random() < .85:
            dash, gap = (3., 4.) if rng.random() < .75 else (200., 1.)
            for z in np.arange(rng.uniform(1, 5), 70, dash + gap):
                canvas.fill(strip(canvas, x - .09, x + .09, max(z, 1.3), min(z + dash, 90), 4), paint, z, alpha=.85)
    if street.crossing:
        for x in np.arange(street.edge(-1) + .4, street.edge(1) - .4, 1.):
            bar = strip(canvas, x, x + .5, street.crossing, street.crossing + 3, 2)
            canvas.fill(bar, paint, street.crossing, alpha=.85)
    if street.rails is not None:
        for offset in (-.72, .72):
            x = street.rails + offset
            canvas.fill(strip(canvas, x - .06, x + .06, 1.3, 120), np.float32([70, 68, 66]), 15)
    for side in (-1, 1):
        if street.bay[side]:
            edge = street.edge(side)
            canvas.fill(strip(canvas, *sorted((edge, edge - side * 2.1)), *street.bay[side], 6),
                        asphalt * rng.uniform(.9, 1.15), 15, ID['parking'], rough=.1)


def draw_skyline(canvas):
    """Low, hazy silhouettes along the horizon, so that no street ends in nothing."""
    rng = canvas.rng
    width = canvas.ids.shape[1]
    x, horizon = -5., canvas.camera.horizon
    while x < width:
        step = rng.uniform(.1, .22) * width
        height = rng.uniform(.03, .13) * width
        if rng.random() < .55:
            low, high = horizon + 2, horizon - height
            box = np.array([[x, low], [x, high], [x + step, high], [x + step, low]])
            canvas.fill(box, pick(rng, MASONRY) * .8, 70, ID['building'], rough=.1, grain=5)
        else:
            bush(canvas, x + step / 2, horizon + 2 - height * .45, step * .9, height * .7, pick(rng, FOLIAGE), 50)
        x += step * rng.uniform(.5, 1.)


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
    colour, owner = pick(rng, MASONRY), ID['wall']
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
    colour = pick(rng, np.concatenate([GREYS * .7, MASONRY, FOLIAGE * .8])) * light
    face = facade(x, start, end, 0, height)
    canvas.solid(face, colour, ID['fence'], alpha=rng.uniform(.2, .6), rough=.1)
    gap = rng.uniform(.4, .9)
    z = start
    while z < end:
        canvas.post(x, z, 0, height, .09, colour, ID['fence'], least=.7)
        z += gap * max(1., z / 12)
    for v in (.08, .55, .94) if rng.random() < .6 else (.94,):
        canvas.solid(patch(face, 0, v, 1, v + .06), colour)
    if rng.random() < .3:
        canvas.solid(patch(face, 0, 0, 1, .3), pick(rng, MASONRY) * light, rough=.1)


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

"""Sky, road and pavements: the stage."""
import numpy as np

from .palette import FOLIAGE, GREYS, ID, MASONRY, pick
from .plants import bush


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

"""What stands or moves on the ground: vehicles, people, poles with lights and signs, clutter."""
import numpy as np

from .canvas import disc, patch
from .scenery import GREYS, ID, pick

# One palette for cars, lorries, buses and trams alike.
LACQUER = np.array([[196, 196, 198], [60, 62, 66], [112, 116, 122], [150, 34, 34], [38, 60, 112], [190, 160, 60],
                    [44, 92, 70], [222, 220, 212], [140, 128, 112], [206, 120, 40]], np.float32)
CLOTH = np.array([[46, 48, 58], [60, 70, 104], [120, 44, 44], [150, 146, 138], [88, 86, 60], [180, 176, 170],
                  [92, 62, 84], [40, 84, 90], [196, 150, 60]], np.float32)
SKIN = np.array([[206, 164, 138], [150, 108, 84], [104, 72, 56]], np.float32)
GLASS = np.float32([44, 54, 64])
UP = np.array([0., 1., 0.])


class Pose:
    """Where an object stands: local (forward, right, up) metres to world, with the faces of boxes in that frame.

    Args:
        x, z: Position of its middle on the ground, in metres.
        heading: Radians; 0 drives away from the camera, pi towards it, pi / 2 to the right.
        sun: -1 or 1: the side the light comes from.
        size: Metres per local unit.
    """

    def __init__(self, x, z, heading, sun, size=1.):
        self.middle = np.array([x, 0., z])
        self.forward = np.array([np.sin(heading), 0., np.cos(heading)])
        self.right = np.array([np.cos(heading), 0., -np.sin(heading)])
        self.sun, self.size = sun, size

    def at(self, forward, right, up):
        return self.middle + self.size * (forward * self.forward + right * self.right + up * UP)

    def outline(self, points, right=0.):
        """Points (forward, up) of a side view as world points, (N, 3)."""
        return np.array([self.at(forward, right, up) for forward, up in points])

    def box(self, back, front, width, low, high, taper=0., slant=0.):
        """The faces that the camera sees, far to near: (name, corners (4, 3), shade). ``taper`` narrows the roof,
        ``slant`` shortens it, both in metres on each side."""
        half, top = width / 2, width / 2 - taper
        roof_back, roof_front = back + slant, front - slant
        faces = {
            'rear': [(back, -half, low), (back, half, low), (roof_back, top, high), (roof_back, -top, high)],
            'front': [(front, half, low), (front, -half, low), (roof_front, -top, high), (roof_front, top, high)],
            'left': [(front, -half, low), (back, -half, low), (roof_back, -top, high), (roof_front, -top, high)],
            'right': [(back, half, low), (front, half, low), (roof_front, top, high), (roof_back, top, high)],
            'roof': [(roof_back, -top, high), (roof_back, top, high), (roof_front, top, high),
                     (roof_front, -top, high)],
        }
        centre = self.at((back + front) / 2, 0, (low + high) / 2)
        seen = []
        for name, local in faces.items():
            corners = np.array([self.at(*point) for point in local])
            normal = np.cross(corners[1] - corners[0], corners[3] - corners[0])
            normal = normal / max(np.linalg.norm(normal), 1e-6)
            outward = corners.mean(0) - centre
            normal = normal if normal @ outward > 0 else -normal
            if normal @ (corners.mean(0) - np.array([0, 1.5, 0])) < 0:
                shade = .78 + .22 * normal[0] * self.sun + .3 * max(normal[1], 0)
                seen.append((name, corners, shade))
        return sorted(seen, key=lambda face: -face[1][:, 2].mean())


def shadow(canvas, pose, back, front, width, strength=.45):
    corners = [(back, -width), (front, -width), (front, width), (back, width)]
    ground = np.array([pose.at(f, r * .5, 0) for f, r in corners])
    ground[:, 0] -= pose.sun * .25
    canvas.darken(canvas.camera.project(ground), strength)


def _wheels(canvas, pose, places, radius, width, owner):
    for right in (-width / 2, width / 2):
        # Only the wheels of the side that is seen.
        if right * (pose.right @ (pose.at(0, right, 0) - np.array([0., 1.5, 0.]))) > 0:
            continue
        for forward in places:
            hub = pose.at(forward, right, radius)
            canvas.solid(disc(hub, radius, pose.forward, UP), np.float32([24, 24, 26]), owner)
            canvas.solid(disc(hub, radius * .55, pose.forward, UP), np.float32([120, 120, 122]))


def _lamps(canvas, face, name, shade):
    colour = np.float32([150, 24, 20]) if name == 'rear' else np.float32([236, 232, 214])
    canvas.solid(patch(face, .03, .45, .2, .68), colour)
    canvas.solid(patch(face, .8, .45, .97, .68), colour)
    canvas.solid(patch(face, .36, .12, .64, .3), np.float32([210, 208, 190]) * shade)


def draw_car(canvas, pose):
    rng = canvas.rng
    owner, colour = canvas.new_id('car'), pick(rng, LACQUER)
    length, width = rng.uniform(3.7, 4.8), rng.uniform(1.7, 1.9)
    belt, roof = rng.uniform(.8, 1.), rng.uniform(1.38, 1.75)
    estate = rng.random() < .4
    back, front = -length / 2, length / 2
    shadow(canvas, pose, back, front, width * 1.15)
    for name, face, shade in pose.box(back, front, width, .22, belt):
        canvas.solid(face, colour * shade, owner, rough=.04)
        if name in ('rear', 'front'):
            canvas.solid(patch(face, 0, 0, 1, .2), colour * shade * .45)
            _lamps(canvas, face, name, shade)
    _wheels(canvas, pose, (back + .8, front - .8), .33, width, owner)
    for name, face, shade in pose.box(back + (.1 if estate else .5), front - 1.1, width * .96, belt, roof, .12, .35):
        canvas.solid(face, colour * shade, owner, rough=.03)
        if name != 'roof':
            canvas.solid(patch(face, .08, .08, .92, .86), GLASS * (.7 + .6 * shade))
        if name in ('left', 'right'):
            canvas.solid(patch(face, .5, 0, .55, 1), colour * shade)


def draw_truck(canvas, pose):
    rng = canvas.rng
    owner, cab = canvas.new_id('truck'), pick(rng, LACQUER)
    load = cab * rng.uniform(.8, 1.1) if rng.random() < .5 else pick(rng, LACQUER)
    length, width, height = rng.uniform(5.5, 9), 2.4, rng.uniform(2.8, 3.6)
    flat = rng.random() < .2
    back, front = -length / 2, length / 2
    shadow(canvas, pose, back, front, width * 1.15)
    parts = [pose.box(back, front - 2.1, width, .95, 1.7 if flat else height),
             pose.box(front - 1.9, front, width * .95, .5, 2.6, 0, .1)]
    # The far one first.
    order = (0, 1) if pose.at(back, 0, 0)[2] > pose.at(front, 0, 0)[2] else (1, 0)
    for name, face, shade in pose.box(back, front, width * .8, .5, 1.):
        if name != 'roof':
            canvas.solid(face, np.float32([40, 40, 42]) * shade, owner)
    for part in order:
        for name, face, shade in parts[part]:
            canvas.solid(face, (load, cab)[part] * shade, owner, rough=.06)
            if part == 1 and name in ('left', 'right', 'front'):
                canvas.solid(patch(face, .1, .5, .9, .86), GLASS * (.7 + .5 * shade))
            if part == 1 and name == 'front':
                canvas.solid(patch(face, .15, .1, .85, .35), GLASS * .6)
            if part == 0 and name in ('left', 'right') and rng.random() < .4:
                canvas.solid(patch(face, .15, .35, .7, .65), rng.uniform(30, 220, 3) * shade)
            if part == 0 and name == 'rear':
                canvas.solid(patch(face, .485, 0, .515, 1), load * shade * .6)
                canvas.solid(patch(face, .02, 0, .98, .06), np.float32([120, 30, 24]))
    _wheels(canvas, pose, (back + .9, back + 2., front - 1.), .48, width, owner)


def draw_bus(canvas, pose):
    rng = canvas.rng
    owner, colour = canvas.new_id('bus'), pick(rng, LACQUER)
    length, width, height = rng.uniform(8.5, 12), 2.5, rng.uniform(2.9, 3.3)
    band = rng.uniform(.42, .5)
    back, front = -length / 2, length / 2
    shadow(canvas, pose, back, front, width * 1.15)
    for name, face, shade in pose.box(back, front, width, .3, height, .05):
        canvas.solid(face, colour * shade, owner, rough=.04)
        if name in ('left', 'right'):
            panes = max(int(length / 1.5), 4)
            for i in range(panes):
                canvas.solid(patch(face, (i + .08) / panes, band, (i + .92) / panes, .86), GLASS * (.7 + .5 * shade))
            for u in (.2, .7):
                canvas.solid(patch(face, u, .04, u + .08, .84), GLASS * (.5 + .4 * shade))
        elif name in ('front', 'rear'):
            canvas.solid(patch(face, .06, .38 if name == 'front' else .5, .94, .82), GLASS * (.7 + .5 * shade))
            canvas.solid(patch(face, .2, .86, .8, .95), np.float32([225, 150, 40]) if rng.random() < .6 else GLASS)
            lamp = np.float32([150, 30, 24]) if name == 'rear' else np.float32([235, 230, 210])
            canvas.solid([patch(face, .04, .1, .16, .2), patch(face, .84, .1, .96, .2)], lamp)
    _wheels(canvas, pose, (back + 2.2, front - 2.4), .5, width, owner)


def draw_train(canvas, pose):
    """A tram: bus-like, but longer, jointed, on rails, with a skirt instead of wheels and a bow on its roof."""
    rng = canvas.rng
    owner, colour = canvas.new_id('train'), pick(rng, LACQUER)
    cars, car, width, height = rng.integers(2, 4), rng.uniform(8, 10), 2.5, rng.uniform(3.2, 3.6)
    length = cars * car
    back, front = -length / 2, length / 2
    stripe = pick(rng, LACQUER)
    shadow(canvas, pose, back, front, width * 1.05)
    centre = pose.at(0, 0, height + .9)
    canvas.bar(pose.at(-.8, 0, height), centre, .06, np.float32([50, 50, 52]), owner)
    canvas.bar(pose.at(.8, 0, height), centre, .06, np.float32([50, 50, 52]), owner)
    for name, face, shade in pose.box(back, front, width, .12, height, .15, .35):
        canvas.solid(face, colour * shade, owner, rough=.03)
        if name in ('left', 'right'):
            panes = int(length / 1.7)
            canvas.solid(patch(face, 0, 0, 1, .12), np.float32([52, 52, 54]) * shade)
            canvas.solid(patch(face, 0, .16, 1, .3), stripe * shade)
            for i in range(panes):
                canvas.solid(patch(face, (i + .06) / panes, .44, (i + .94) / panes, .82), GLASS * (.7 + .5 * shade))
            for joint in range(1, cars):
                canvas.solid(patch(face, joint / cars - .012, 0, joint / cars + .012, 1), np.float32([36, 36, 38]))
        elif name in ('front', 'rear'):
            canvas.solid(patch(face, .1, .42, .9, .8), GLASS * (.7 + .5 * shade))
            canvas.solid(patch(face, 0, 0, 1, .1), np.float32([52, 52, 54]))
            canvas.solid(patch(face, .44, .2, .56, .28), np.float32([240, 236, 214]))
            canvas.solid(patch(face, 0, .28, 1, .36), stripe * shade)


def draw_bicycle(canvas, pose, rider=None, motor=False):
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
        canvas.bar(pose.at(*_on(hip, side)), pose.at(*_on(knee, side)), .17 * canvas.stout, trousers, owner)
        canvas.bar(pose.at(*_on(knee, side)), pose.at(*_on(foot, side)), .13 * canvas.stout, trousers, owner)
    half = .22 * canvas.stout ** .5
    across = np.array([1., 0, 0]) * pose.size
    low, high = pose.at(hip[0], 0, hip[1] - .08), pose.at(shoulder[0], 0, shoulder[1])
    torso = np.array([low - .17 * across, low + .17 * across, high + half * across, high - half * across])
    canvas.solid(torso, jacket, owner, rough=.08)
    for side in (-.24, .24):
        canvas.bar(pose.at(*_on(shoulder, side)), pose.at(.4, side, 1.08), .12 * canvas.stout, jacket * .9, owner)
    head = pose.at(shoulder[0] + .08, 0, 1.62)
    canvas.solid(disc(head, .15 * pose.size, across / pose.size, UP), skin, owner)
    helmet = pick(rng, LACQUER) if motor or rng.random() < .6 else np.float32([50, 40, 34])
    canvas.solid(disc(head + .05 * UP, .16 * pose.size, across / pose.size, UP * .8), helmet, owner)


def _on(point, side):
    return point[0], side, point[1]


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

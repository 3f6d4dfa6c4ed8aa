"""Cars, lorries, buses and trams: boxes in one palette that only their shape tells apart."""
import numpy as np

from .palette import GLASS, LACQUER, pick
from .shapes import UP, disc, patch, shadow


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

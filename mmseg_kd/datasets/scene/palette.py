"""Colours, RGB 0 to 255, and the ids of the classes."""
import numpy as np
from cityscapesscripts.helpers.labels import name2label

ID = {name: label.id for name, label in name2label.items()}

# Houses and walls share these: the colour must not be enough to give a class away.
MASONRY = np.array([[178, 160, 134], [152, 100, 80], [190, 184, 174], [132, 122, 112], [208, 190, 150]], np.float32)
FOLIAGE = np.array([[66, 90, 44], [84, 106, 52], [54, 78, 44], [98, 104, 54]], np.float32)
GREYS = np.array([[96, 96, 98], [112, 110, 108], [84, 86, 92], [124, 120, 114]], np.float32)
# One palette for cars, lorries, buses and trams alike.
LACQUER = np.array([[196, 196, 198], [60, 62, 66], [112, 116, 122], [150, 34, 34], [38, 60, 112], [190, 160, 60],
                    [44, 92, 70], [222, 220, 212], [140, 128, 112], [206, 120, 40]], np.float32)
CLOTH = np.array([[46, 48, 58], [60, 70, 104], [120, 44, 44], [150, 146, 138], [88, 86, 60], [180, 176, 170],
                  [92, 62, 84], [40, 84, 90], [196, 150, 60]], np.float32)
SKIN = np.array([[206, 164, 138], [150, 108, 84], [104, 72, 56]], np.float32)
GLASS = np.float32([44, 54, 64])


def pick(rng, table, spread=.035):
    """A colour of ``table`` (N, 3), shifted at random."""
    return table[rng.integers(len(table))] * (1 + spread * rng.standard_normal(3)) * rng.uniform(.92, 1.08)

"""Which classes a picture shows for certain, so that no small split lacks one."""

# One class of every row, taken in turn: 8 consecutive pictures hold all 19 training classes and void.
SCHEDULE = (
    ('truck', 'bus', 'train', 'motorcycle', 'bicycle'),
    ('wall', 'fence', 'terrain'),
    ('traffic light', 'traffic sign'),
    ('car', 'person', 'building', 'vegetation', 'pole', 'sidewalk', 'sky', 'static'),
)


def required_classes(index):
    """Names of the classes that picture ``index`` of any split shows for certain, in the order of ``SCHEDULE``; 'rider'
    follows where there is a two-wheeler. The road is in every picture."""
    names = [row[index % len(row)] for row in SCHEDULE]
    return tuple(names + (['rider'] if names[0] in ('motorcycle', 'bicycle') else []))

"""A copy of a good tree in which one thing is wrong."""
import os
import shutil

import numpy as np
from PIL import Image


def first(root, split, kind):
    pattern = dict(image='*_leftImg8bit.png', label='*_gtFine_labelTrainIds.png')[kind]
    return sorted((root / dict(image='leftImg8bit', label='gtFine')[kind] / split).rglob(pattern))[0]


def _truncate(path):
    content = path.read_bytes()
    path.write_bytes(content[:len(content) // 2])


def _relabel(path, value):
    labels = np.array(Image.open(path))
    labels[:2, :3] = value
    Image.fromarray(labels).save(path)


def _other_name(path):
    os.rename(path, os.path.join(os.fsencode(path.parent), b'caf\xe9_leftImg8bit.png'))


#: Name to (what to do with the first picture and label map of a split, what the report says of it).
SPOILS = {
    'truncated picture': (lambda image, label: _truncate(image), '_leftImg8bit.png: cannot be read'),
    'truncated labels': (lambda image, label: _truncate(label), '_labelTrainIds.png: cannot be read'),
    'no picture at all': (lambda image, label: image.write_bytes(b'hello'), '_leftImg8bit.png: cannot be read'),
    'empty file': (lambda image, label: label.write_bytes(b''), '_labelTrainIds.png: cannot be read'),
    'mode of the picture': (lambda image, label: Image.open(image).convert('RGBA').save(image),
                            '_leftImg8bit.png: has the mode RGBA, expected RGB'),
    'mode of the labels': (lambda image, label: Image.open(label).convert('RGB').save(label),
                           '_labelTrainIds.png: has the mode RGB, expected one channel'),
    'size of the labels': (lambda image, label: Image.open(label).resize((64, 30), 0).save(label),
                           '_labelTrainIds.png: is 30x64, its picture 32x64'),
    'labels outside': (lambda image, label: _relabel(label, 19),
                       '_labelTrainIds.png: 6 pixels have labels outside 0 .. 18 and 255: [19] (label ids'),
    'no label map': (lambda image, label: label.unlink(), '_leftImg8bit.png: has no label map gtFine/'),
    'no picture': (lambda image, label: image.unlink(), '_labelTrainIds.png: has no picture leftImg8bit/'),
    'loop': (lambda image, label: os.symlink(image.parent.parent, image.parent / 'loop'), 'leads back to'),
    'dead link': (lambda image, label: (image.unlink(), os.symlink('nowhere.png', image)),
                  'a symbolic link to a file that is not there'),
    'name': (lambda image, label: _other_name(image), 'caf\\udce9_leftImg8bit.png: the name is not UTF-8'),
    'all ignored': (lambda image, label: Image.fromarray(np.full((32, 64), 255, np.uint8)).save(label),
                    '_labelTrainIds.png: every pixel is ignored (255)'),
}


def spoil(source, root, name, split='train'):
    """Copy ``source`` to ``root`` and spoil the copy; what the report says."""
    shutil.copytree(source, root)
    action, message = SPOILS[name]
    action(first(root, split, 'image'), first(root, split, 'label'))
    return message

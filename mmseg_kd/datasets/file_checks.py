"""What can be wrong with one picture and its label map."""
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

__all__ = ['PairCheck', 'check_pair', 'label_problems', 'open_picture', 'printable']


def printable(path: str) -> str:
    """A path as text that any terminal takes; bytes that are not UTF-8 become escapes."""
    return str(path).encode('utf-8', 'backslashreplace').decode()


@dataclass
class PairCheck:
    """What was found in a picture and its label map.

    Attributes:
        problems: One line each, with the file's name.
        size: (height, width) of the picture, if it could be read.
        labels: Pixels of each label, if the map could be read.
    """

    problems: list[str] = field(default_factory=list)
    size: tuple[int, int] | None = None
    labels: Counter = field(default_factory=Counter)


def open_picture(path: str) -> Image.Image:
    """Read a picture to its last byte.

    OpenCV, which mmcv reads with, fills what is missing of a truncated file with grey; this is an error here.

    Raises:
        ValueError: it cannot be read; the message names the file.
    """
    try:
        with Image.open(path) as picture:
            picture.load()
            return picture
    except FileNotFoundError:
        raise ValueError(f'{printable(path)}: no such file') from None
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise ValueError(f'{printable(path)}: cannot be read ({error})') from error


def check_pair(image_path: str, label_path: str | None, num_classes: int | None = None,
               ignore_index: int = 255) -> PairCheck:
    """Check one picture and its label map.

    Args:
        image_path: An RGB picture with 8 bits a channel.
        label_path: A label map with one 8-bit channel (or a palette) of the picture's size; None: there is none.
        num_classes: Labels must be 0 .. num_classes - 1 or ``ignore_index``; None: any label may be.
        ignore_index: The label of pixels that do not count.
    """
    found = PairCheck()
    try:
        image = open_picture(image_path)
        found.size = image.height, image.width
        if image.mode != 'RGB':
            found.problems.append(f'{printable(image_path)}: has the mode {image.mode}, expected RGB with 8 bits')
    except ValueError as error:
        found.problems.append(str(error))
    if label_path is None:
        return found
    try:
        label = open_picture(label_path)
    except ValueError as error:
        found.problems.append(str(error))
        return found
    if label.mode not in ('L', 'P'):
        found.problems.append(f'{printable(label_path)}: has the mode {label.mode}, expected one channel of 8 bits')
        return found
    size = label.height, label.width
    if found.size is not None and size != found.size:
        found.problems.append(f'{printable(label_path)}: is {size[0]}x{size[1]}, its picture {found.size[0]}x'
                              f'{found.size[1]}')
    counts = np.bincount(np.asarray(label).reshape(-1), minlength=256)
    found.labels = Counter({int(value): int(counts[value]) for value in counts.nonzero()[0]})
    found.problems += label_problems(label_path, found.labels, num_classes, ignore_index)
    return found


def label_problems(path: str, labels: Counter, num_classes: int | None, ignore_index: int) -> list[str]:
    """What is wrong with the labels of one map: some outside of the classes, or nothing but ignored pixels.

    Args:
        path: The file that they are from, for the messages.
        labels: Pixels of each label.
        num_classes: Labels must be 0 .. num_classes - 1 or ``ignore_index``; None: any label may be.
        ignore_index: The label of pixels that do not count.
    """
    outside = [] if num_classes is None else [
        value for value in labels if not 0 <= value < num_classes and value != ignore_index]
    if outside:
        pixels = sum(labels[value] for value in outside)
        return [f'{printable(path)}: {pixels} pixels have labels outside 0 .. {num_classes - 1} and {ignore_index}: '
                f'{outside[:8]}{" ..." if len(outside) > 8 else ""}' + (
                    ' (label ids instead of train ids? csCreateTrainIdLabelImgs of cityscapesscripts converts them)'
                    if max(outside) <= 33 else '')]
    return [f'{printable(path)}: every pixel is ignored ({ignore_index})'] if set(labels) == {ignore_index} else []

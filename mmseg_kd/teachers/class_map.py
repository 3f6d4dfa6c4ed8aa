"""Which of a teacher's classes are which of the student's, where the two are not the same."""
import difflib
import logging
import re
from collections.abc import Mapping, Sequence

from mmengine.logging import print_log

from mmseg_kd.functional.merged_classes import MergedClasses, merge_classes

__all__ = ['ClassMap', 'map_of_equal_names', 'plain_name']

_SETTING = '`teacher.class_map`'


def plain_name(name: str) -> str:
    """A class name for comparison: case, blanks and punctuation do not matter."""
    return re.sub(r'[\W_]', '', name.lower())


class ClassMap:
    """``teacher=dict(..., class_map={'car': ['car', 'van', 'truck'], 'rider': []})``.

    A student class is the sum of the teacher's probabilities of several of its classes. What the teacher cannot say is
    left out:

    - A student class with an empty list, or one that the map does not name. (In a map by names, one that it does not
      name has the teacher's class of the same name, unless the map gives that to another.) Its channel is in neither
      distribution, so that the term does not move it, and positions with its label do not count.
    - Positions where more than half of the teacher's probability lies on classes that no student class takes. Where
      that is less, the probabilities of the others are divided by their sum.

    Args:
        settings: Student class to teacher classes, by names or by indices.
        teacher_names: Names of the teacher's classes; None: not known.
        teacher_classes: Their number; None: not known.
        student_classes: Number of the student's; None: not known.

    Raises:
        ValueError: a class that nobody has, one that is named twice, or nothing left to compare.
    """

    def __init__(self, settings: Mapping, teacher_names: Sequence[str] | None, teacher_classes: int | None,
                 student_classes: int | None = None):
        if not isinstance(settings, Mapping) or not settings:
            raise ValueError(f"{_SETTING}: expected {{'student class': ['teacher class', ...], ...}}, by names or by "
                             f'indices, got {settings!r}.')
        if teacher_classes is not None:
            # A single sigmoid channel means yes or no.
            teacher_classes = max(teacher_classes, 2)
        self._names = teacher_names
        self._student_classes = student_classes
        self._settings: dict[str | int, list[int]] = {}
        taken: dict[int, str | int] = {}
        for key, values in settings.items():
            values = [values] if isinstance(values, (str, int)) else values
            if not isinstance(values, (list, tuple)):
                raise ValueError(f'{_SETTING}: expected a list of teacher classes for {key!r}, got {values!r}.')
            self._settings[key] = [_index(value, teacher_names, teacher_classes, 'teacher') for value in values]
            for value, number in zip(values, self._settings[key], strict=True):
                if number in taken:
                    raise ValueError(
                        f"{_SETTING}: the teacher's class {value!r} is given to {taken[number]!r} and to {key!r}, "
                        'between which the teacher cannot tell. Give it to one of them, and [] to the other.')
                taken[number] = key
        self._largest = max(taken, default=0)
        #: For each of the student's classes the teacher's classes that it is made of; None: names are yet to be told.
        self.groups: tuple[tuple[int, ...], ...] | None = None
        if not any(isinstance(key, str) for key in self._settings):
            self._settle(None, student_classes or 1 + max(self._settings))

    def tell_names(self, names: Sequence[str] | None) -> None:
        """Say how the student's classes are called.

        Raises:
            ValueError: the map names one that the student has not, or it needs the names and there are none.
        """
        if self.groups is not None:
            return
        if names is not None:
            self._settle(names, len(names))
        else:
            raise ValueError(f"{_SETTING}: it names the student's classes, and the student's data set does not. Name "
                             'them there (`metainfo`), or give indices.')

    def __call__(self, logits) -> MergedClasses:
        """The teacher's (N, T, *) logits, or Upsampled ones, over the student's classes.

        Raises:
            ValueError: the map has names and nobody told those of the student's classes.
        """
        if self.groups is None:
            raise ValueError(f"{_SETTING}: it names the student's classes, and nothing has told their names. Train "
                             "with our tools/train.py and without class_check=False, add custom_hooks=[dict(type="
                             "'mmseg_kd.ClassNamesHook')] to the config, or give indices.")
        if logits.shape[1] <= self._largest:
            raise ValueError(f"{_SETTING}: it names class {self._largest} of the teacher's, whose logits have "
                             f'{logits.shape[1]} channels.')
        return merge_classes(logits, self.groups)

    def _settle(self, names: Sequence[str] | None, number: int) -> None:
        if self._student_classes not in (None, number):
            raise ValueError(f'{_SETTING}: the student has {self._student_classes} classes, and {number} names are '
                             'known.')
        groups: dict[int, tuple[int, ...]] = {}
        for key, values in self._settings.items():
            index = _index(key, names, number, 'student')
            if index in groups:
                raise ValueError(f"{_SETTING}: the student's class {key!r} is named twice.")
            groups[index] = tuple(values)
        taken = {value for values in groups.values() for value in values}
        for index in range(number):
            if index not in groups:
                same = None if names is None else _same_name(names[index], self._names)
                groups[index] = () if same is None or same in taken else (same, )
        self.groups = tuple(groups[index] for index in range(number))
        if not any(self.groups):
            raise ValueError(f"{_SETTING}: it gives no class of the teacher to any of the student's, so that there is "
                             'nothing to compare.')
        self._say(names)

    def _say(self, names: Sequence[str] | None) -> None:
        theirs = self._names or range(10**6)
        named = {(names or range(len(self.groups)))[index]: [theirs[value] for value in group]
                 for index, group in enumerate(self.groups)}
        print_log(f'{_SETTING}: {named}. Classes with [] are left out of the terms on logits.', logger='current',
                  level=logging.INFO)


def map_of_equal_names(student: Sequence[str], teacher: Sequence[str]) -> dict[str, list[str]]:
    """The map that equal names make: for each of the student's classes the teacher's of that name, or none."""
    found = {}
    for name in student:
        same = _same_name(name, teacher)
        found[name] = [] if same is None else [teacher[same]]
    return found


def _same_name(name: str, names: Sequence[str] | None) -> int | None:
    return next((index for index, other in enumerate(names or ()) if plain_name(other) == plain_name(name)), None)


def _index(value: object, names: Sequence[str] | None, number: int | None, whose: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 0 or number is not None and value >= number:
            last = '' if number is None else f' .. {number - 1}'
            raise ValueError(f'{_SETTING}: expected a class of the {whose}, 0{last}, got {value}.')
        return value
    if not isinstance(value, str):
        raise ValueError(f'{_SETTING}: expected names or indices of classes, got {value!r}.')
    if names is None:
        way_out = ('say them by teacher.classes=[...]' if whose == 'teacher' else
                   "name them in the data set's `metainfo`")
        raise ValueError(f"{_SETTING}: it names the {whose}'s class {value!r}, and the names of the {whose}'s classes "
                         f'are not known; {way_out}, or give indices.')
    index = _same_name(value, names)
    if index is None:
        near = difflib.get_close_matches(value, names, n=1)
        hint = f' Did you mean {near[0]!r}?' if near else ''
        raise ValueError(f'{_SETTING}: the {whose} has no class {value!r}.{hint} It has {list(names)}.')
    return index

"""Pipeline transforms that bring the cached logits of teachers along with the image."""
import math
from collections.abc import Sequence

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.structures import PixelData
from mmseg.datasets.transforms import PackSegInputs

from mmseg_kd.registry import TRANSFORMS

from .teacher_cache import CachedMap, TeacherCache
from .tracked_geometry import AxisGeometry, class_witness, image_geometry, new_classes, positions

__all__ = ['LoadTeacherLogits', 'PackDistillInputs']

_POSITIONS, _WITNESS = 'teacher_positions', 'teacher_classes'
_FILES, _SIZE = 'teacher_logits_files', 'teacher_image_size'


def _caches(cache: str | Sequence[str]) -> tuple[list[TeacherCache], int]:
    """The caches and their number of classes."""
    caches = [TeacherCache(each) for each in ([cache] if isinstance(cache, str) else cache)]
    classes = {each.manifest()['classes'] for each in caches}
    if len(classes) != 1:
        raise ValueError(f'`teacher.cache`: expected caches of the same classes, got {sorted(classes)} classes in '
                         f'{[str(each.folder) for each in caches]}.')
    return caches, classes.pop()


@TRANSFORMS.register_module()
class LoadTeacherLogits(BaseTransform):
    """Find the cached logits of an image; goes behind the loading of image and labels, before anything else.

    Args:
        cache: Folder that ``tools/cache_teacher.py`` made, or one for each of several teachers.

    Raises:
        ValueError: no cache, one that is not whole, or none of this image's content.
    """

    def __init__(self, cache: str | Sequence[str]):
        self.caches, self.classes = _caches(cache)

    def transform(self, results: dict) -> dict:
        results[_FILES] = [str(self._file(cache, results['img_path'])) for cache in self.caches]
        height, width = results['img'].shape[:2]
        results[_SIZE] = (height, width)
        results[_POSITIONS] = positions(height, width)
        results[_WITNESS] = class_witness(height, width, self.classes)
        results['seg_fields'] = [*results.get('seg_fields', []), _POSITIONS, _WITNESS]
        return results

    @staticmethod
    def _file(cache: TeacherCache, image: str):
        path = cache.path_of(image)
        if not path.is_file():
            raise ValueError(f'`teacher.cache`: {cache.folder} has no logits of {image}: the image is new, or has '
                             'changed since. Run tools/cache_teacher.py again; it adds what is missing')
        return path


@TRANSFORMS.register_module()
class PackDistillInputs(PackSegInputs):
    """mmseg's ``PackSegInputs``, which also packs the teachers' logits.

    The logits of the first cache are ``data_sample.teacher_logits``, those of a second ``teacher_logits_1``, and so on;
    ``teacher_caches`` names the folders in this order. An image that is shown whole gets the cached map, flipped as it
    is, and ``teacher_align_corners`` (``teacher_align_corners_1``, ...) as the map has it. A crop gets a map of its
    own, (C, h, w) with a position in each corner and twice the cache's density, for ``align_corners=True``. Where a
    transform exchanged classes among the labels, the logits are exchanged alike.

    Args:
        cache: Folder that ``tools/cache_teacher.py`` made, or one for each of several teachers.
        **kwargs: Arguments of ``PackSegInputs``.
    """

    def __init__(self, cache: str | Sequence[str], **kwargs):
        super().__init__(**kwargs)
        self.caches, self.classes = _caches(cache)

    def transform(self, results: dict) -> dict:
        seen, original = results[_POSITIONS], results[_SIZE]
        size = results['img'].shape[:2]
        if seen.shape[:2] != size:
            raise ValueError(f'`teacher.cache`: a transform changed the image to {size} and not the arrays of '
                             f'`seg_fields`, which are {seen.shape[:2]}: cached logits cannot follow it')
        geometries = image_geometry(seen, original)
        classes = new_classes(results[_WITNESS], seen, self.classes)
        packed = super().transform(results)
        sample = packed['data_samples']
        sample.set_metainfo(dict(teacher_caches=[cache.identity for cache in self.caches]))
        for index, (cache, file) in enumerate(zip(self.caches, results[_FILES], strict=True)):
            suffix = f'_{index}' if index else ''
            logits, align_corners = _followed(cache.read(file), geometries, size, original)
            # Class c of the teacher is now called classes[c].
            moved = np.empty_like(logits)
            moved[classes] = logits
            sample.set_data({f'teacher_logits{suffix}': PixelData(data=torch.from_numpy(moved))})
            sample.set_metainfo({f'teacher_align_corners{suffix}': align_corners})
        return packed


def _followed(cached: CachedMap, geometries: Sequence[AxisGeometry], size: tuple[int, int],
              original: tuple[int, int]) -> tuple[np.ndarray, bool]:
    """The map that belongs to what became of an image, and its ``align_corners``."""
    whole = cached.is_whole and all(
        geometry.is_whole(*sides) for geometry, *sides in zip(geometries, size, original, strict=True))
    logits = cached.logits
    for axis, geometry in enumerate(geometries):
        if not whole:
            logits = _resample(logits, axis, geometry, size[axis], original[axis], cached)
        elif geometry.flipped:
            logits = np.flip(logits, axis + 1)
    return np.ascontiguousarray(logits), cached.align_corners if whole else True


def _resample(logits: np.ndarray, axis: int, geometry: AxisGeometry, size: int, original: int,
              cached: CachedMap) -> np.ndarray:
    """Logits along one axis at the places that an output of ``size`` pixels came from, its ends included."""
    small = logits.shape[axis + 1]
    # Pixels of the image to pixels of what the teacher saw, of which the map covers perhaps more (padding).
    ratio = cached.seen[axis] / original if cached.seen is not None else 1.
    covered = cached.covered[axis] if cached.covered is not None else original
    number = 1 + math.ceil(2 * size * geometry.scale * ratio * small / covered)
    source = (geometry.source(np.linspace(0, size - 1, number), size) + .5) * ratio - .5
    place = source * (small - 1) / max(covered - 1, 1) if cached.align_corners else (source + .5) * small / covered - .5
    place = np.clip(place, 0, small - 1)
    lower = np.minimum(place.astype(np.int64), max(small - 2, 0))
    share = (place - lower).astype(np.float32).reshape([-1 if index == axis + 1 else 1 for index in range(3)])
    return logits.take(lower, axis + 1) * (1 - share) + logits.take(np.minimum(lower + 1, small - 1), axis + 1) * share

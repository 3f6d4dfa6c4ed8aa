"""Pipeline transforms that bring a teacher's cached logits along with the image."""
import math

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.structures import PixelData
from mmseg.datasets.transforms import PackSegInputs

from mmseg_kd.registry import TRANSFORMS

from .teacher_cache import TeacherCache
from .tracked_geometry import AxisGeometry, image_geometry, positions

__all__ = ['LoadTeacherLogits', 'PackDistillInputs']

_POSITIONS, _FILE, _SIZE = 'teacher_positions', 'teacher_logits_file', 'teacher_image_size'


@TRANSFORMS.register_module()
class LoadTeacherLogits(BaseTransform):
    """Find the cached logits of an image; goes behind the loading of image and labels, before anything else.

    Args:
        cache: Folder that ``tools/cache_teacher.py`` made.

    Raises:
        ValueError: no cache, one that is not whole, or none of this image's content.
    """

    def __init__(self, cache: str):
        self.cache = TeacherCache(cache)
        self.cache.manifest()

    def transform(self, results: dict) -> dict:
        path = self.cache.path_of(results['img_path'])
        if not path.is_file():
            raise ValueError(f'`teacher.cache`: {self.cache.folder} has no logits of {results["img_path"]}: the image '
                             'is new, or has changed since. Run tools/cache_teacher.py again; it adds what is missing')
        height, width = results['img'].shape[:2]
        results[_FILE], results[_SIZE] = str(path), (height, width)
        results[_POSITIONS] = positions(height, width)
        results['seg_fields'] = [*results.get('seg_fields', []), _POSITIONS]
        return results


@TRANSFORMS.register_module()
class PackDistillInputs(PackSegInputs):
    """mmseg's ``PackSegInputs``, which also packs the teacher's logits as ``data_sample.teacher_logits``.

    An image that is shown whole gets the cached map, flipped as it is, and ``teacher_align_corners`` as the teacher has
    it. A crop gets a map of its own, (C, h, w) with a position in each corner and twice the cache's density, for
    ``align_corners=True``.

    Args:
        cache: Folder that ``tools/cache_teacher.py`` made.
        **kwargs: Arguments of ``PackSegInputs``.
    """

    def __init__(self, cache: str, **kwargs):
        super().__init__(**kwargs)
        self.cache = TeacherCache(cache)
        self.manifest = self.cache.manifest()

    def transform(self, results: dict) -> dict:
        seen, original = results[_POSITIONS], results[_SIZE]
        size = results['img'].shape[:2]
        if seen.shape[:2] != size:
            raise ValueError(f'`teacher.cache`: a transform changed the image to {size} and not the arrays of '
                             f'`seg_fields`, which are {seen.shape[:2]}: cached logits cannot follow it')
        logits = self.cache.read(results[_FILE], self.manifest['classes'], self.manifest['top_k'])
        align_corners = self.manifest['align_corners']
        geometries = image_geometry(seen, original)
        is_whole = all(geometry.is_whole(*sides) for geometry, *sides in zip(geometries, size, original, strict=True))
        for axis, geometry in enumerate(geometries):
            if not is_whole:
                logits = _resample(logits, axis + 1, geometry, size[axis], original[axis], align_corners)
            elif geometry.flipped:
                logits = np.flip(logits, axis + 1)
        packed = super().transform(results)
        packed['data_samples'].teacher_logits = PixelData(data=torch.from_numpy(np.ascontiguousarray(logits)))
        packed['data_samples'].set_metainfo(dict(teacher_align_corners=align_corners if is_whole else True))
        return packed


def _resample(logits: np.ndarray, axis: int, geometry: AxisGeometry, size: int, original: int,
              align_corners: bool) -> np.ndarray:
    """Logits along one axis at the places that an output of ``size`` pixels came from, its ends included."""
    small = logits.shape[axis]
    number = 1 + math.ceil(2 * size * geometry.scale * small / original)
    source = geometry.source(np.linspace(0, size - 1, number), size)
    place = source * (small - 1) / max(original - 1, 1) if align_corners else (source + .5) * small / original - .5
    place = np.clip(place, 0, small - 1)
    lower = np.minimum(place.astype(np.int64), max(small - 2, 0))
    share = (place - lower).astype(np.float32).reshape([-1 if index == axis else 1 for index in range(3)])
    return logits.take(lower, axis) * (1 - share) + logits.take(np.minimum(lower + 1, small - 1), axis) * share

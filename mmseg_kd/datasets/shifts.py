"""Pictures as a model did not learn them: with noise in a part, or with their parts in another order."""
import zlib

import numpy as np
from mmcv.transforms import BaseTransform

from mmseg_kd.registry import TRANSFORMS

__all__ = ['NoisyPatch', 'ScrambledPatches']


def _generator(seed: int, results: dict) -> np.random.Generator:
    """Of each picture its own, the same whenever it is read."""
    picture = results.get('sample_idx')
    if picture is None:
        picture = zlib.crc32(str(results.get('img_path', '')).encode())
    return np.random.default_rng([seed, int(picture)])


@TRANSFORMS.register_module()
class NoisyPatch(BaseTransform):
    """Gaussian noise on a square of the picture; goes behind the loading, resizing and cropping.

    As in the robustness evaluation of DGKD's code, which has noise of 25 grey levels on the 100 x 100 pixels at (50,
    50) of 224. There noise below 0 and sums above 255 wrap around; here they are clipped.

    Args:
        level: Standard deviation of the noise, in grey levels.
        begin: Upper left corner of the square, as a share of the sides.
        extent: Its sides, as a share of theirs.
        seed: Of the noise; each picture has its own, the same whenever it is read.

    Raises:
        ValueError: a negative level, or a square that is not inside the picture.
    """

    def __init__(self, level: float = 25., begin: float = 50 / 224, extent: float = 100 / 224, seed: int = 0):
        if level < 0:
            raise ValueError(f'`level`: expected at least 0, got {level!r}.')
        if not (0 <= begin and 0 < extent and begin + extent <= 1):
            raise ValueError('`begin`, `extent`: expected shares of the sides whose sum is at most 1, got '
                             f'{begin!r} and {extent!r}.')
        self.level, self.begin, self.extent, self.seed = level, begin, extent, seed

    def transform(self, results: dict) -> dict:
        image = results['img'].copy()
        where = tuple(slice(round(side * self.begin), round(side * (self.begin + self.extent)))
                      for side in image.shape[:2])
        part = image[where]
        noise = _generator(self.seed, results).normal(0., self.level, part.shape)
        image[where] = np.clip(np.rint(part + noise), 0, 255).astype(image.dtype)
        return dict(results, img=image)


@TRANSFORMS.register_module()
class ScrambledPatches(BaseTransform):
    """The picture cut into squares, which are put together in a random order; goes where :class:`NoisyPatch` does.

    As in the robustness evaluation of DGKD's code, which cuts 224 pixels into patches of 56.

    Args:
        across: Patches along each side.
        seed: Of the order; each picture has its own, the same whenever it is read.

    Raises:
        ValueError: fewer than two patches along a side, or a side that they do not divide.
    """

    def __init__(self, across: int = 4, seed: int = 0):
        if not isinstance(across, int) or across < 2:
            raise ValueError(f'`across`: expected an integer of at least 2, got {across!r}.')
        self.across, self.seed = across, seed

    def transform(self, results: dict) -> dict:
        image, across = results['img'], self.across
        height, width = image.shape[:2]
        if height % across or width % across:
            raise ValueError(f'`across`: a picture of {height} x {width} pixels cannot be cut into {across} x {across} '
                             'equal patches; crop it before, or choose another number.')
        tall, wide = height // across, width // across
        patches = [image[y:y + tall, x:x + wide] for y in range(0, height, tall) for x in range(0, width, wide)]
        order = _generator(self.seed, results).permutation(len(patches))
        rows = [np.concatenate([patches[index] for index in order[first:first + across]], 1)
                for first in range(0, len(order), across)]
        return dict(results, img=np.concatenate(rows))

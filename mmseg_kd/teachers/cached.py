"""A teacher whose answers were computed before: nothing runs but the student."""
import json
from collections.abc import Collection, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmseg_kd.functional import Upsampled
from mmseg_kd.safe_load import file_sha256
from mmseg_kd.taps import LOGITS

__all__ = ['CachedTeacher', 'build_cached_teacher']


class CachedTeacher:
    """Stands where :class:`~.guest.Teacher` stands; its logits come with the data samples.

    Args:
        classes: Number of classes of the logits.
    """

    no_logits = classes = None
    setting = 'teacher.cache'

    def __init__(self, classes: int):
        self.model = nn.Module()
        self.model.out_channels = self.num_classes = classes

    def __call__(self, inputs: Tensor, data_samples: Sequence, taps: Collection[str],
                 at: None = None) -> dict[str, Upsampled | Tensor]:
        """The logits of a batch.

        Args:
            inputs: Images (N, 3, H, W).
            data_samples: Their data samples with ``teacher_logits``.
            taps: Only ``'logits'``.
            at: None: the logits are those of all positions.

        Raises:
            ValueError: the pipeline does not bring the logits along.
        """
        for sample in data_samples:
            if 'teacher_logits' not in sample:
                raise ValueError('`teacher.cache`: the data samples have no logits. Train with our tools/train.py, or '
                                 "put dict(type='mmseg_kd.LoadTeacherLogits', cache=...) behind the loading transforms "
                                 "and dict(type='mmseg_kd.PackDistillInputs', cache=...) in place of PackSegInputs.")
        size = tuple(inputs.shape[2:])
        maps = [self._upsampled(sample, size).to(torch.float32) for sample in data_samples]
        first = maps[0]
        if all(each[1:] == (size, first.align_corners) and each.logits.shape == first.logits.shape for each in maps):
            return {LOGITS: first._replace(logits=torch.cat([each.logits for each in maps]).to(inputs.device))}
        # Images of several sizes were padded to one: so are their maps.
        maps = [each.computed() for each in maps]
        padded = [F.pad(each, (0, size[1] - each.shape[3], 0, size[0] - each.shape[2])) for each in maps]
        return {LOGITS: torch.cat(padded).to(inputs.device)}

    @staticmethod
    def _upsampled(sample, size: tuple[int, int]) -> Upsampled:
        """The map of one image, at its own size before any padding."""
        own = tuple(sample.metainfo.get('img_shape', size))[:2]
        return Upsampled(sample.teacher_logits.data[None], own, bool(sample.metainfo['teacher_align_corners']))

    def apply_fn(self, fn) -> None:
        """Nothing to move."""

    def __deepcopy__(self, memo) -> 'CachedTeacher':
        return self

    def __repr__(self) -> str:
        return f'CachedTeacher({self.model.out_channels} classes)'


def build_cached_teacher(settings: dict) -> CachedTeacher:
    """Build the teacher of ``teacher=dict(cache=FOLDER)``; with ``checkpoint`` the cache must be that teacher's.

    Raises:
        ValueError: no cache, one that is not whole, or another teacher's.
    """
    unknown = set(settings) - {'cache', 'config', 'checkpoint'}
    if unknown:
        raise ValueError(f'`teacher`: {sorted(unknown)} mean nothing beside `cache`, which needs no teacher to run.')
    path = Path(settings['cache']) / 'manifest.json'
    if not path.is_file():
        raise ValueError(f'`teacher.cache`: {settings["cache"]!r} is no whole cache of a teacher. Make or complete it: '
                         f'python tools/cache_teacher.py CONFIG --out {settings["cache"]}')
    manifest = json.loads(path.read_text())
    checkpoint = settings.get('checkpoint')
    if checkpoint is not None and Path(checkpoint).is_file():
        digest = file_sha256(checkpoint)
        if digest != manifest['checkpoint_sha256']:
            raise ValueError(f'`teacher.cache`: {settings["cache"]!r} is stale: it holds the logits of a checkpoint '
                             f'with SHA-256 {manifest["checkpoint_sha256"]}, but {checkpoint!r} has {digest}. Make it '
                             'anew in another folder, or name the checkpoint that it was made with.')
    return CachedTeacher(manifest['classes'])

"""A teacher whose answers were computed before: nothing runs but the student."""
import hashlib
import json
import logging
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from urllib.parse import urlparse

import torch
from mmengine.logging import print_log
from torch import Tensor, nn
from torch.nn import functional as F

from mmseg_kd.config import read_config
from mmseg_kd.functional import Upsampled
from mmseg_kd.safe_load import download_path, file_sha256, sha256_in_name
from mmseg_kd.taps import LOGITS

__all__ = ['CachedTeacher', 'build_cached_teacher', 'config_digest']

# What changes where a teacher's answers come from or how fast they are, and not what they are.
_SAME_ANSWERS = ('cache', 'checkpoint', 'file', 'sha256', 'trusted', 'shard', 'weight', 'compile', 'channels_last',
                 'class_map', 'classes')
_ADDRESS = ('http://', 'https://')


class CachedTeacher:
    """Stands where :class:`~.guest.Teacher` stands; its logits come with the data samples.

    Args:
        num_classes: Number of classes of the logits.
        folder: Where its cache lies.
        classes: Names of the classes; None: not known.
    """

    no_logits = class_map = None
    setting = 'teacher.cache'

    def __init__(self, num_classes: int, folder: str, classes: Sequence[str] | None = None):
        self.model = nn.Module()
        self.model.out_channels = self.num_classes = num_classes
        self.folder = folder
        self.classes = tuple(classes) if classes else None

    def __call__(self, inputs: Tensor, data_samples: Sequence, taps: Collection[str],
                 at: None = None) -> dict[str, Upsampled | Tensor]:
        """The logits of a batch.

        Args:
            inputs: Images (N, 3, H, W).
            data_samples: Their data samples with ``teacher_logits`` of this cache (see
                :class:`~mmseg_kd.datasets.teacher_logits.PackDistillInputs`).
            taps: Only ``'logits'``.
            at: None: the logits are those of all positions.

        Raises:
            ValueError: the pipeline does not bring the logits along, or those of another cache.
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

    def _upsampled(self, sample, size: tuple[int, int]) -> Upsampled:
        """The map of one image, at its own size before any padding."""
        own = tuple(sample.metainfo.get('img_shape', size))[:2]
        brought = list(sample.metainfo.get('teacher_caches', ()))
        if os.path.realpath(self.folder) not in brought:
            raise ValueError(f'`teacher.cache`: the model reads {self.folder!r}, the training pipeline brings '
                             f'{brought}. Name the same folders in LoadTeacherLogits, PackDistillInputs and '
                             '`model.teacher`.')
        index = brought.index(os.path.realpath(self.folder))
        suffix = f'_{index}' if index else ''
        logits, align_corners = sample.get(f'teacher_logits{suffix}'), sample.get(f'teacher_align_corners{suffix}')
        return Upsampled(logits.data[None], own, bool(align_corners))

    def apply_fn(self, fn) -> None:
        """Nothing to move."""

    def would_change(self, fn) -> bool:
        """Nothing to move."""
        return False

    def own_copy(self) -> 'CachedTeacher':
        """The same: it has no state."""
        return self

    def __deepcopy__(self, memo) -> 'CachedTeacher':
        return self

    def __repr__(self) -> str:
        return f'CachedTeacher({self.model.out_channels} classes)'


def config_digest(settings: dict) -> str:
    """SHA-256 of all that a teacher's settings say about its answers, the weights aside; paths to configs are resolved.

    Args:
        settings: Those of ``teacher``.
    """
    settings = {key: value for key, value in settings.items() if key not in _SAME_ANSWERS}
    if 'config' in settings:
        config = read_config(settings['config'])
        settings['config'] = dict(model=config.model, data_preprocessor=config.get('data_preprocessor'))
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=_in_words).encode()).hexdigest()


def _in_words(value: object) -> object:
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    return getattr(value, '__qualname__', None) or str(value)


def weights_digest(settings: dict) -> str | None:
    """SHA-256 of the files with a teacher's weights; None where there is none on this machine.

    Args:
        settings: Those of ``teacher``, of any kind.
    """
    digests = [file_sha256(file) for file in _weight_files(settings)]
    return digests[0] if len(digests) == 1 else (
        hashlib.sha256(''.join(digests).encode()).hexdigest() if digests else None)


def _weight_files(settings: dict) -> list[str]:
    if settings.get('type') == 'huggingface':
        return sorted(map(str, Path(settings['model']).expanduser().glob('*.safetensors')))
    file = settings.get('file') or settings.get('checkpoint')
    if isinstance(file, str) and file.startswith(_ADDRESS):
        file = download_path(file)
    return [file] if isinstance(file, str) and Path(file).is_file() else []


def _check_weights(settings: dict, manifest: dict) -> None:
    """Refuse a cache that was made with other weights than the settings name, as far as that can be told."""
    digest, made_with = weights_digest(settings), manifest['checkpoint_sha256']
    named = settings.get('checkpoint')
    where = (_weight_files(settings) or [named])[0]
    if digest is None and isinstance(named, str) and named.startswith(_ADDRESS):
        # Nothing is downloaded for what the cache does not need; a name may tell.
        digest = sha256_in_name(urlparse(named).path)
        if digest is None and named != manifest.get('checkpoint'):
            print_log(f'`teacher.checkpoint`: {named} is not on this machine and its name has no hash, so that it is '
                      f'not compared with the weights that {settings["cache"]} was made with '
                      f'({manifest.get("checkpoint")}).', logger='current', level=logging.WARNING)
    if digest is not None and not (made_with or '').startswith(digest):
        raise ValueError(f'`teacher.cache`: {settings["cache"]!r} is stale: it holds the logits of a checkpoint '
                         f'with SHA-256 {made_with}, but {where!r} has {digest}. Make it anew in another folder, or '
                         'name the checkpoint that it was made with.')


def build_cached_teacher(settings: dict) -> CachedTeacher:
    """Build the teacher of ``teacher=dict(cache=FOLDER)``; what else the settings say of it must fit the cache.

    A config or a checkpoint file that is not there (any more) is not compared: the cache needs neither. A checkpoint
    that is named by its address is compared by the file that was downloaded, or by the hash in its name.

    Raises:
        ValueError: no cache, one that is not whole, or another teacher's.
    """
    typed = settings.get('type') is not None
    unknown = [] if typed else sorted(set(settings) - {'cache', 'config', 'checkpoint'})
    if unknown:
        raise ValueError(f'`teacher`: {unknown} mean nothing beside `cache`, which needs no teacher to run.')
    path = Path(settings['cache']) / 'manifest.json'
    if not path.is_file():
        raise ValueError(f'`teacher.cache`: {settings["cache"]!r} is no whole cache of a teacher. Make or complete it: '
                         f'python tools/cache_teacher.py CONFIG --out {settings["cache"]}')
    manifest = json.loads(path.read_text())
    _check_weights(settings, manifest)
    config = settings.get('config')
    gone = isinstance(config, str) and '::' not in config and not Path(config).expanduser().is_file()
    if (typed or config is not None and not gone) and manifest.get('config_sha256') is not None:
        if config_digest(settings) != manifest['config_sha256']:
            raise ValueError(f'`teacher.cache`: {settings["cache"]!r} holds the logits of another network: it was made '
                             f'with {manifest.get("config")}, which is not (or is no longer) what `teacher` '
                             'describes. Make it anew in another folder, or name the config that it was made with.')
    return CachedTeacher(manifest['classes'], str(settings['cache']), manifest.get('class_names'))

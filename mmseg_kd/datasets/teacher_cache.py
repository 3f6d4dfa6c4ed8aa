"""Logits of a teacher on disk: computed once, read while a student trains."""
import hashlib
import json
import os
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mmseg_kd.config_names import type_name
from mmseg_kd.safe_load import file_sha256

__all__ = ['CachedMap', 'TeacherCache', 'checkpoint_digest', 'image_loading']

# 2: each file says which part of what the teacher saw its map covers. 3: files are named by the SHA-256 of their
# picture and end with that of their own content.
_FORMAT = 3
# What a cache notes for people; another place of the same files is not another teacher.
_NOTES = ('config', 'checkpoint')
_TEACHER, _MANIFEST, _SIZES, _LOGITS = 'teacher.json', 'manifest.json', 'sizes.json', 'logits'
_DIGEST = hashlib.sha256().digest_size


def checkpoint_digest(path: str) -> str | None:
    """SHA-256 of a checkpoint file; None for what is not a local file."""
    return file_sha256(path) if os.path.isfile(path) else None


def image_loading(pipeline: Sequence[dict]) -> list[dict]:
    """The transforms of a training pipeline that load the image: what stands before all others, without the labels."""
    loading = []
    for transform in pipeline:
        name = type_name(transform)
        if not name.startswith('Load'):
            break
        if name not in ('LoadAnnotations', 'LoadTeacherLogits'):
            loading.append({key: value for key, value in transform.items() if key != 'type'} | dict(type=name))
    return loading


class CachedMap(NamedTuple):
    """The logits of an image, and what they cover.

    Attributes:
        logits: (C, h, w) float32.
        align_corners: How the map is interpolated.
        seen: (H, W) that the teacher saw the image at; None: its own size.
        covered: (H, W) of the input that the map covers, the image at its top left and padding below and to the right;
            None: the image and no more.
    """

    logits: np.ndarray
    align_corners: bool
    seen: tuple[int, int] | None = None
    covered: tuple[int, int] | None = None

    @property
    def is_whole(self) -> bool:
        """Whether the map covers the image and no more."""
        return self.covered == self.seen


class TeacherCache:
    """A folder with one file of logits per image, found by the image's content.

    ``teacher.json`` says which teacher made it, before the first image; ``manifest.json``, written last, that it is
    whole. Every file appears at once or not at all, so that a run that is stopped continues where it was. Files that
    were cut off or exchanged since are found: by their size when the cache is opened, by their checksum when they are
    first read; ``tools/cache_teacher.py`` makes those anew.

    Args:
        folder: Where it lies.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self._manifest: dict | None = None
        self._checked: set[Path] = set()

    @property
    def logits_folder(self) -> Path:
        """Where the files of the images are."""
        return self.folder / _LOGITS

    def begin(self, teacher: dict) -> None:
        """Begin or continue a cache of this teacher.

        Args:
            teacher: What identifies it and its answers: ``config_sha256``, ``checkpoint_sha256``, ``classes``,
                ``class_names``, ``align_corners``, ``top_k``, ``scale``, ``loading``; ``config`` and ``checkpoint`` are
                notes for people.

        Raises:
            ValueError: the folder holds another teacher's.
        """
        self.logits_folder.mkdir(parents=True, exist_ok=True)
        wanted = dict(teacher, format=_FORMAT)
        path = self.folder / _TEACHER
        if path.exists():
            found = _read_json(path)
            different = sorted(key for key in {*wanted, *found}
                               if key not in _NOTES and wanted.get(key) != found.get(key))
            if different:
                there = {key: found.get(key) for key in different}
                raise ValueError(f'{self.folder} holds the logits of another teacher or setting, there {there}. Take '
                                 'another folder, or delete it.')
        _write_whole(path, json.dumps(wanted, indent=1).encode())

    def finish(self, images: int) -> None:
        """Say that the cache is whole."""
        sizes = {path.name: path.stat().st_size for path in self.logits_folder.glob('[!.]*.npy')}
        _write_whole(self.folder / _SIZES, json.dumps(sizes).encode())
        _write_whole(self.folder / _MANIFEST, json.dumps(dict(self.teacher(), images=images), indent=1).encode())

    def teacher(self) -> dict:
        """What :meth:`begin` was told."""
        return _read_json(self.folder / _TEACHER)

    def manifest(self) -> dict:
        """What identifies the teacher, and ``images``.

        Raises:
            ValueError: there is no cache, or one that is not whole.
        """
        path = self.folder / _MANIFEST
        if not path.is_file():
            state = 'not whole yet' if (self.folder / _TEACHER).is_file() else 'no cache of a teacher'
            raise ValueError(f'`teacher.cache`: {str(self.folder)!r} is {state}. Run python tools/cache_teacher.py '
                             f'CONFIG --out {self.folder}; it continues where it stopped.')
        manifest = _read_json(path)
        if manifest.get('format') != _FORMAT:
            raise ValueError(f'`teacher.cache`: {str(self.folder)!r} was made by another version (format '
                             f'{manifest.get("format")}, expected {_FORMAT}). Make it anew in another folder: python '
                             'tools/cache_teacher.py CONFIG --out FOLDER')
        for name, size in _read_json(self.folder / _SIZES).items():
            file = self.logits_folder / name
            found = file.stat().st_size if file.is_file() else None
            if found != size:
                raise _damaged(file, 'is missing' if found is None else f'has {found} of {size} bytes')
        return manifest

    @property
    def identity(self) -> str:
        """The folder, whichever way it is named."""
        return os.path.realpath(self.folder)

    def check_loading(self, pipeline: Sequence[dict]) -> None:
        """Refuse a training pipeline that loads other images than those that the teacher saw.

        Raises:
            ValueError: the transforms that load differ; the message has both.
        """
        theirs, ours = self.manifest().get('loading'), json.loads(json.dumps(image_loading(pipeline), default=str))
        if theirs is not None and theirs != ours:
            raise ValueError(f'`teacher.cache`: the teacher of {self.folder} saw images loaded by {theirs}, the '
                             f'training pipeline loads them by {ours}. Make the cache anew, or load them alike.')

    def path_of(self, image: str) -> Path:
        """File of the logits of an image file, whether or not it exists; another content is another file."""
        return self.logits_folder / f'{file_sha256(image)}.npy'

    def is_whole(self, path: Path) -> bool:
        """Whether a file of logits is there and has its checksum."""
        try:
            content = path.read_bytes()
        except OSError:
            return False
        return hashlib.sha256(content[:-_DIGEST]).digest() == content[-_DIGEST:]

    def write(self, image: str, cached: CachedMap, top_k: int | None = None) -> None:
        """Store logits as float16: all, or the ``top_k`` largest of each position and what is left.

        Raises:
            ValueError: logits that are not finite in float16.
        """
        logits = cached.logits
        if not np.isfinite(logits.astype(np.float16)).all():
            raise ValueError(f'the teacher gives logits for {image} that float16 cannot hold (largest '
                             f'{np.abs(logits).max():.3g}); a teacher like that cannot be cached')
        stored = logits.astype(np.float16) if top_k is None else _packed(logits, top_k)
        extent = np.array([cached.align_corners, *(cached.seen or (0, 0)), *(cached.covered or (0, 0))], np.int64)
        content = _npy(stored, extent)
        _write_whole(self.path_of(image), content + hashlib.sha256(content).digest())

    def read(self, path: str | Path) -> CachedMap:
        """The logits of one file of :meth:`path_of`.

        Raises:
            ValueError: the file is damaged, or of another teacher; the message names it.
        """
        path = Path(path)
        if path not in self._checked:
            if not self.is_whole(path):
                raise _damaged(path, 'is missing' if not path.is_file() else 'has another checksum than when written')
            self._checked.add(path)
        with open(path, 'rb') as file:
            stored, extent = np.load(file), np.load(file)
        manifest = self._read_manifest()
        top_k = manifest['top_k']
        channels = manifest['classes'] if top_k is None else 2 * top_k + 1
        if stored.dtype != np.float16 or stored.ndim != 3 or len(stored) != channels:
            raise _damaged(path, f'holds {stored.dtype} of {stored.shape}, not {channels} maps of float16')
        logits = stored.astype(np.float32) if top_k is None else _unpacked(stored, manifest['classes'], top_k)
        align_corners, *sides = extent.tolist()
        seen, covered = (tuple(pair) if any(pair) else None for pair in (sides[:2], sides[2:]))
        return CachedMap(logits, bool(align_corners), seen, covered)

    def _read_manifest(self) -> dict:
        if self._manifest is None:
            self._manifest = self.manifest()
        return self._manifest


def _damaged(path: Path, what: str) -> ValueError:
    return ValueError(f'`teacher.cache`: its file {path} {what}. Run tools/cache_teacher.py again with the same --out; '
                      'it makes anew what is damaged.')


def _read_json(path: Path) -> dict:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f'`teacher.cache`: {path} cannot be read ({error}). Delete the folder and make the cache anew '
                         'with tools/cache_teacher.py.') from error
    if not isinstance(found, dict):
        raise ValueError(f'`teacher.cache`: {path} is not of a cache. Take another folder.')
    return found


def _packed(logits: np.ndarray, top_k: int) -> np.ndarray:
    """(2 k + 1, h, w) float16: the k largest logits, the log of what is left shared by the others, the k classes."""
    order = np.argsort(-logits, axis=0, kind='stable')
    best = np.take_along_axis(logits, order[:top_k], 0)
    rest = np.take_along_axis(logits, order[top_k:], 0)
    lead = rest.max(0)
    share = lead + np.log(np.exp(rest - lead).mean(0))
    # Classes below 2048 are exact in float16.
    return np.concatenate([best, share[None], order[:top_k]]).astype(np.float16)


def _unpacked(stored: np.ndarray, classes: int, top_k: int) -> np.ndarray:
    stored = stored.astype(np.float32)
    logits = np.repeat(stored[top_k:top_k + 1], classes, 0)
    np.put_along_axis(logits, stored[top_k + 1:].astype(np.int64), stored[:top_k], 0)
    return logits


def _npy(*arrays: np.ndarray) -> bytes:
    """Arrays one behind the other, as ``np.load`` reads them from an open file."""
    buffer = BytesIO()
    for array in arrays:
        np.save(buffer, np.ascontiguousarray(array))
    return buffer.getvalue()


def _write_whole(path: Path, content: bytes) -> None:
    temporary = path.with_name(f'.{path.name}.{os.getpid()}')
    try:
        with open(temporary, 'wb') as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(error.errno, f'`teacher.cache`: {path} could not be written ({error.strerror}). What is there '
                                   'already is whole; free space and run tools/cache_teacher.py again.') from error

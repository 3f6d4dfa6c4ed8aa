"""Logits of a teacher on disk: computed once, read memory-mapped while a student trains."""
import json
import os
import zlib
from pathlib import Path

import numpy as np

from mmseg_kd.safe_load import file_sha256

__all__ = ['TeacherCache', 'checkpoint_digest']

_FORMAT = 1
_TEACHER, _MANIFEST, _LOGITS = 'teacher.json', 'manifest.json', 'logits'


def checkpoint_digest(path: str) -> str | None:
    """SHA-256 of a checkpoint file; None for what is no local file."""
    return file_sha256(path) if os.path.isfile(path) else None


class TeacherCache:
    """A folder with one file of logits per image, found by the image's content.

    ``teacher.json`` says which teacher made it, before the first image; ``manifest.json``, written last, that it is
    whole. Every file appears at once or not at all, so that a run that is stopped continues where it was.

    Args:
        folder: Where it lies.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)

    @property
    def logits_folder(self) -> Path:
        """Where the files of the images are."""
        return self.folder / _LOGITS

    def begin(self, teacher: dict) -> None:
        """Begin or continue a cache of this teacher.

        Args:
            teacher: What identifies it and its answers: ``config``, ``checkpoint_sha256``, ``classes``,
                ``align_corners``, ``top_k``, ``scale``.

        Raises:
            ValueError: the folder holds another teacher's.
        """
        self.logits_folder.mkdir(parents=True, exist_ok=True)
        wanted = dict(teacher, format=_FORMAT)
        path = self.folder / _TEACHER
        if path.exists():
            found = json.loads(path.read_text())
            different = sorted(key for key in {*wanted, *found} if wanted.get(key) != found.get(key))
            if different:
                there = {key: found.get(key) for key in different}
                raise ValueError(f'{self.folder} holds the logits of another teacher or setting, there {there}. Take '
                                 'another folder, or delete it.')
        _write_whole(path, json.dumps(wanted, indent=1).encode())

    def finish(self, images: int) -> None:
        """Say that the cache is whole."""
        _write_whole(self.folder / _MANIFEST, json.dumps(dict(self.teacher(), images=images), indent=1).encode())

    def teacher(self) -> dict:
        """What :meth:`begin` was told."""
        return json.loads((self.folder / _TEACHER).read_text())

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
        return json.loads(path.read_text())

    def path_of(self, image: str) -> Path:
        """File of the logits of an image file, whether or not it exists; another content is another file."""
        content = Path(image).read_bytes()
        return self.logits_folder / f'{zlib.crc32(content):08x}-{len(content):x}.npy'

    def write(self, image: str, logits: np.ndarray, top_k: int | None = None) -> None:
        """Store (C, h, w) logits as float16: all, or the ``top_k`` largest of each position and what is left.

        Raises:
            ValueError: logits that are not finite in float16.
        """
        if not np.isfinite(logits.astype(np.float16)).all():
            raise ValueError(f'the teacher gives logits for {image} that float16 cannot hold (largest '
                             f'{np.abs(logits).max():.3g}); a teacher like that cannot be cached')
        _write_whole(self.path_of(image), _npy(logits.astype(np.float16) if top_k is None else _packed(logits, top_k)))

    def read(self, path: Path, classes: int, top_k: int | None = None) -> np.ndarray:
        """(C, h, w) float32 logits."""
        stored = np.load(path, mmap_mode='r')
        return stored.astype(np.float32) if top_k is None else _unpacked(stored, classes, top_k)


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


def _npy(array: np.ndarray) -> bytes:
    from io import BytesIO
    buffer = BytesIO()
    np.save(buffer, np.ascontiguousarray(array))
    return buffer.getvalue()


def _write_whole(path: Path, content: bytes) -> None:
    temporary = path.with_name(f'.{path.name}.{os.getpid()}')
    with open(temporary, 'wb') as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)

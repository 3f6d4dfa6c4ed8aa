"""Label maps on disk, as mmseg's data sets read them."""
import json
import os
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

__all__ = ['LabelMapFolder']

_SETTINGS = 'pseudo_label.json'


class LabelMapFolder:
    """A folder with one PNG for each picture, which is written at once or not at all.

    Args:
        folder: Where it lies.
        settings: What the maps were made with. A folder that was begun with other settings is refused.
        palette: (R, G, B) of each class, for viewers; mmseg reads the numbers of the classes.

    Raises:
        ValueError: the folder holds maps of other settings.
    """

    def __init__(self, folder: str | Path, settings: dict, palette: Sequence[Sequence[int]] | None = None):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / _SETTINGS
        found = json.loads(path.read_text()) if path.is_file() else settings
        different = sorted(key for key in {*found, *settings} if found.get(key) != settings.get(key))
        if different:
            raise ValueError(f'`--out`: {self.folder} holds label maps of other settings, there '
                             f'{ {key: found.get(key) for key in different} }. Take another folder, or delete it.')
        _write_whole(path, json.dumps(settings, indent=1).encode())
        colors = np.zeros((256, 3), np.uint8)
        if palette is not None:
            colors[:len(palette)] = palette
        self._palette = colors.reshape(-1).tolist()

    def path_of(self, name: str) -> Path:
        """The file of a map, whether or not it exists."""
        return self.folder / name

    def write(self, name: str, label: np.ndarray) -> None:
        """Write a map (H, W) of classes."""
        image = Image.fromarray(label.astype(np.uint8), 'P')
        image.putpalette(self._palette)
        content = BytesIO()
        image.save(content, 'PNG')
        path = self.path_of(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_whole(path, content.getvalue())


def _write_whole(path: Path, content: bytes) -> None:
    temporary = path.with_name(f'.{path.name}.{os.getpid()}')
    temporary.write_bytes(content)
    os.replace(temporary, path)

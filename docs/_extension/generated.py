"""Pages that are made when the site is built; git ignores them."""
from pathlib import Path

__all__ = ['remove_stale', 'write']

_written = set()


def write(path: Path, text: str) -> None:
    """Write a page, unless it is there already: Sphinx reads what is new."""
    _written.add(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_file() or path.read_text(encoding='utf-8') != text:
        path.write_text(text, encoding='utf-8')


def remove_stale(*folders: Path) -> None:
    """Remove the pages that an earlier build made and this one did not."""
    for folder in folders:
        for path in folder.rglob('*.md'):
            if path not in _written:
                path.unlink()

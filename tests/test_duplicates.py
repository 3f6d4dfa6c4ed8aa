"""No passage of the code stands twice."""
from collections import defaultdict
from pathlib import Path

_ROOT = Path(__file__).parents[1]
_LINES = 10


def _passages(folder):
    """Passages of ten lines that are not empty, docstrings included, and where each stands."""
    places = defaultdict(list)
    for file in sorted(folder.rglob('*')):
        if file.suffix in ('.py', '.sh') and '.mim' not in file.parts:
            lines = [(number, line.strip()) for number, line in enumerate(file.read_text().splitlines(), 1)
                     if line.strip()]
            for first in range(len(lines) - _LINES + 1):
                passage = lines[first:first + _LINES]
                places[tuple(line for _, line in passage)].append(f'{file.name}:{passage[0][0]}')
    return places


def test_no_ten_equal_lines():
    places = defaultdict(list)
    for folder in ('mmseg_kd', 'tools'):
        for passage, where in _passages(_ROOT / folder).items():
            places[passage] += where
    assert len(places) > 10_000
    assert not {' and '.join(where): passage[0] for passage, where in places.items() if len(where) > 1}

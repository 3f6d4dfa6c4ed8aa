"""The score of each class, from the table that mmseg's IoUMetric leaves in a run's log."""
import math
from pathlib import Path

__all__ = ['read_class_scores']


def read_class_scores(work_dir: str | Path, column: str = 'IoU') -> dict[str, float]:
    """Read the last validation's table of classes.

    Args:
        work_dir: The run's work dir.
        column: One of the table's columns.

    Returns:
        Class to score in percent; a class that occurs neither in labels nor in predictions is left out.

    Raises:
        ValueError: no log of the run has such a table, or the table no such column.
    """
    for log in sorted(Path(work_dir).glob('*/*.log'), reverse=True):
        text = log.read_text()
        _, found, rest = text.rpartition('per class results:')
        if not found:
            continue
        rows = []
        for line in rest.splitlines():
            if line.startswith('|'):
                rows.append([cell.strip() for cell in line.strip('|').split('|')])
            elif rows and not line.startswith('+'):
                break
        header, *rows = rows
        if column not in header:
            raise ValueError(f'`column`: expected one of {header[1:]}, got {column!r}.')
        scores = {row[0]: float(row[header.index(column)]) for row in rows}
        return {name: score for name, score in scores.items() if not math.isnan(score)}
    raise ValueError(f"`work_dir`: no log in {str(work_dir)!r} has a table of classes ('per class results:'); expected "
                     "a run that mmseg's IoUMetric has validated.")

"""The score of each class, from the table that mmseg's IoUMetric leaves in a run's log."""
import math
from pathlib import Path

from .runs import newest_run

__all__ = ['read_class_scores', 'read_class_table']


def read_class_table(work_dir: str | Path, column: str = 'IoU', trusted: bool = False) -> dict[str, float]:
    """Read the newest run's last table of classes.

    Args:
        work_dir: The run's work dir.
        column: One of the table's columns.
        trusted: As for :func:`~.runs.read_run`.

    Returns:
        Class to score in percent, in the order of the classes; NaN for one that occurs neither in labels nor in
        predictions.

    Raises:
        ValueError: no log of the run has such a table, or the table no such column.
    """
    of_run = newest_run(Path(work_dir), trusted)
    oldest = of_run[0].folder.name if of_run else ''
    for log in sorted(Path(work_dir).glob('*/*.log'), reverse=True):
        if log.parent.name < oldest:
            continue
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
        return {row[0]: float(row[header.index(column)]) for row in rows}
    raise ValueError(f"`work_dir`: no log in {str(work_dir)!r} has a table of classes ('per class results:'); expected "
                     "a run that mmseg's IoUMetric has validated.")


def read_class_scores(work_dir: str | Path, column: str = 'IoU') -> dict[str, float]:
    """As :func:`read_class_table`, without the classes that occur neither in labels nor in predictions."""
    return {name: score for name, score in read_class_table(work_dir, column).items() if not math.isnan(score)}

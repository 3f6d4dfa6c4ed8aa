"""Arguments that several commands share; nothing here needs torch, so that ``--help`` answers at once."""
import argparse
from pathlib import Path

__all__ = ['RUN', 'RUNS', 'add_trust_argument', 'name_and_runs']

#: How a run is given to every command that reads runs, and several seeds of one.
RUN, RUNS = '[NAME=]WORK_DIR', '[NAME=]WORK_DIR[,WORK_DIR...]'


def add_trust_argument(parser: argparse.ArgumentParser) -> None:
    """Let a tool that reads work dirs take their configs for programs."""
    parser.add_argument('--trust-configs', action='store_true',
                        help="run the configs in the work dirs as Python and import what they name (default: they are "
                        'read as data)')


def name_and_runs(item: str) -> tuple[str, list[str]]:
    """``[NAME=]WORK_DIR[,WORK_DIR...]`` as the name, by default the first folder's, and the work dirs.

    Raises:
        ValueError: there is no work dir in it.
    """
    name, _, places = item.rpartition('=')
    work_dirs = [place for place in places.split(',') if place]
    if not work_dirs:
        raise ValueError(f'`runs`: expected {RUNS}, got {item!r}.')
    return name or Path(work_dirs[0]).resolve().name, work_dirs

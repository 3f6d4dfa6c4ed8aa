"""Reading what a training run leaves behind in its work dir."""
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import NamedTuple

from mmengine.config import Config

from mmseg_kd.safe_load import load_config_without_code

__all__ = ['Run', 'newest_run', 'read_run']


@dataclass
class Run:
    """One training run, or a trained network that ``tools/test.py`` evaluated.

    Attributes:
        work_dir: Where it lies.
        config: Its config, as the Runner dumped it.
        checkpoint: Its latest checkpoint.
        scores: The last validation's metrics (or the test's), in percent (``mIoU``, ``aAcc``, ``mAcc``).
        iterations: Iterations trained; None where it was only evaluated, as for ``step_time``.
        step_time: Median seconds per iteration, data loading included.
        peak_memory: Largest logged memory in MiB: of the GPU, or on a CPU the process's; None where none was logged.
        steps: The logged training steps: each a dict with ``step``, ``loss``, ``lr``, ...
        validations: Each a dict with ``step`` and the metrics.
        statistics: What :class:`mmseg_kd.engine.DistillStatisticsHook` recorded: each a dict with ``step`` and
            ``distill.<what>_<term>``.
    """

    work_dir: Path
    config: Config
    checkpoint: Path
    scores: dict[str, float]
    iterations: int | None
    step_time: float | None
    peak_memory: float | None = None
    steps: list[dict] = field(default_factory=list, repr=False)
    validations: list[dict] = field(default_factory=list, repr=False)
    statistics: list[dict] = field(default_factory=list, repr=False)


def read_run(work_dir: str | Path, trusted: bool = False) -> Run:
    """Read the newest run of ``tools/train.py`` (or of mmseg's own) in a work dir, or what ``tools/test.py`` left.

    Args:
        work_dir: The run's work dir. The logs of a run and of what continued it (``--resume``) are joined; an older run
            in the same folder is left aside.
        trusted: Whether its config may be run as Python; else it is read as data.

    Raises:
        ValueError: there is no finished, validated run in ``work_dir``, or its config holds more than data.
    """
    work_dir = Path(work_dir)
    if not (work_dir / 'last_checkpoint').is_file():
        evaluated = _newest_evaluation(work_dir, trusted)
        if evaluated is not None:
            return evaluated
        raise ValueError(f'`work_dir`: expected the work dir of a training run, got {str(work_dir)!r}, which has no '
                         '`last_checkpoint`. Train first: python tools/train.py CONFIG --work-dir '
                         f'{work_dir}')
    recorded = (work_dir / 'last_checkpoint').read_text().strip()
    # The path inside is as the run was started; a moved folder still has the file.
    checkpoint = work_dir / Path(recorded).name
    logs = newest_run(work_dir, trusted)
    validations = _joined(logs, lambda record: 'mIoU' in record or 'accuracy/top1' in record)
    steps = _joined(logs, lambda record: 'loss' in record)
    statistics = _joined(logs, lambda record: 'loss' not in record and any(
        name.startswith('distill.') for name in record))
    if not logs or not validations or not steps:
        raise ValueError(f'`work_dir`: the newest run in {str(work_dir)!r} has {len(steps)} logged steps and '
                         f'{len(validations)} validations; expected some of both (train_cfg.val_interval no longer '
                         'than max_iters).')
    iterations = max(record['step'] for record in (*steps, *validations))
    saved = re.fullmatch(r'iter_(\d+)\.pth', checkpoint.name)
    if saved is not None and int(saved[1]) > iterations:
        raise ValueError(f'`work_dir`: the newest run in {str(work_dir)!r} trained for {iterations} iterations, but '
                         f'the latest checkpoint is {checkpoint.name}, which an older run left there. Let the new run '
                         'write one, or give each run a work dir of its own.')
    scores = {name: value for name, value in validations[-1].items() if name not in ('step', 'time', 'data_time')}
    if not isinstance(logs[-1].config.get('model'), dict):
        raise ValueError(f'`work_dir`: {logs[-1].folder}/vis_data/config.py is not the config of a training run: it '
                         'has no `model`.')
    return Run(
        work_dir, logs[-1].config, checkpoint, scores, iterations=iterations,
        step_time=median(record['time'] for record in steps),
        peak_memory=max((record['memory'] for record in steps if 'memory' in record), default=None), steps=steps,
        validations=validations, statistics=statistics)


def _newest_evaluation(work_dir: Path, trusted: bool) -> Run | None:
    """The newest result of ``tools/test.py`` in its work dir; None where there is none."""
    for file in sorted(work_dir.glob('*/*.json'), reverse=True):
        dumped = file.parent / 'vis_data/config.py'
        # A Runner names the file of a test's metrics as it names the folder: by the time of its start.
        if file.stem == file.parent.name and dumped.is_file():
            config, scores = _read_dumped(dumped, trusted), json.loads(file.read_text())
            return Run(work_dir, config, Path(config.load_from),
                       {name: value for name, value in scores.items() if name not in ('time', 'data_time')},
                       iterations=None, step_time=None)
    return None


class Log(NamedTuple):
    """What one start of a training left in its folder of the work dir."""

    folder: Path
    config: Config
    records: list[dict]


def newest_run(work_dir: Path, trusted: bool = False) -> list[Log]:
    """The logs of the newest run in a work dir: of its start, and of what continued it, in order.

    A start that logged nothing is left aside. Folders are named by the time of the start, which survives copying.
    """
    logs: list[Log] = []
    for file in sorted(work_dir.glob('*/vis_data/scalars.json'), reverse=True):
        records = _records(file)
        if not records or not (file.parent / 'config.py').is_file():
            continue
        logs.insert(0, Log(file.parents[1], _read_dumped(file.parent / 'config.py', trusted), records))
        if not _continues(logs[0]):
            break
    return logs


def _continues(log: Log) -> bool:
    """Whether a log is of a run that was resumed; it may have been asked to and found nothing to resume from."""
    return bool(log.config.get('resume')) or _resumed_by_mmseg(log)


def _resumed_by_mmseg(log: Log) -> bool:
    # A Runner that was not built from a config file need not say so; its first step tells.
    steps = [record['step'] for record in log.records if 'loss' in record]
    return 'resume' not in log.config and len(steps) > 1 and steps[0] > 2 * (steps[1] - steps[0])


def _read_dumped(path: Path, trusted: bool) -> Config:
    return Config.fromfile(path) if trusted else load_config_without_code(path, 'work_dir')


def _records(log: Path) -> list[dict]:
    """The lines of a log; the last one may be cut off, where a run was killed."""
    lines = log.read_text(encoding='utf-8', errors='replace').splitlines()
    found = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except ValueError as error:
            if number == len(lines):
                break
            raise ValueError(f'`work_dir`: {log}, line {number} is not JSON: {line[:60]!r}.') from error
        if isinstance(record, dict) and isinstance(record.get('step'), int) and all(
                isinstance(record.get(key, 0), (int, float)) for key in ('loss', 'time', 'memory')):
            found.append(record)
    return found


def _joined(logs: Iterable[Log], wanted: Callable[[dict], bool]) -> list[dict]:
    """Records of one kind, by step; what a resumed run did again counts as it did it last."""
    joined: list[dict] = []
    for log in logs:
        latest = {record['step']: record for record in log.records if wanted(record)}
        if latest:
            joined = [record for record in joined if record['step'] < min(latest)]
            joined += [latest[step] for step in sorted(latest)]
    return joined

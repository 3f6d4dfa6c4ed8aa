"""Reading what a training run leaves behind in its work dir."""
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from mmengine.config import Config

__all__ = ['Run', 'read_run']


@dataclass
class Run:
    """One training run.

    Attributes:
        work_dir: Where it lies.
        config: Its config, as the Runner dumped it.
        checkpoint: Its latest checkpoint.
        scores: The last validation's metrics, in percent (``mIoU``, ``aAcc``, ``mAcc``).
        iterations: Iterations trained.
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
    iterations: int
    step_time: float
    peak_memory: float | None = None
    steps: list[dict] = field(default_factory=list, repr=False)
    validations: list[dict] = field(default_factory=list, repr=False)
    statistics: list[dict] = field(default_factory=list, repr=False)


def read_run(work_dir: str | Path) -> Run:
    """Read a run of ``tools/train.py`` (or of mmseg's own).

    Args:
        work_dir: The run's work dir. A resumed run's logs are joined.

    Raises:
        ValueError: there is no finished, validated run in ``work_dir``.
    """
    work_dir = Path(work_dir)
    if not (work_dir / 'last_checkpoint').is_file():
        raise ValueError(f'`work_dir`: expected the work dir of a training run, got {str(work_dir)!r}, which has no '
                         '`last_checkpoint`. Train first: python tools/train.py CONFIG --work-dir '
                         f'{work_dir}')
    recorded = (work_dir / 'last_checkpoint').read_text().strip()
    # The path inside is as the run was started; a moved folder still has the file.
    checkpoint = work_dir / Path(recorded).name
    configs = sorted(work_dir.glob('*/vis_data/config.py'), key=lambda path: path.stat().st_mtime)
    records = [json.loads(line) for log in sorted(work_dir.glob('*/vis_data/scalars.json')) for line in log.open()]
    validations = _in_order(record for record in records if 'mIoU' in record or 'accuracy/top1' in record)
    steps = _in_order(record for record in records if 'loss' in record)
    statistics = _in_order(record for record in records
                           if 'loss' not in record and any(name.startswith('distill.') for name in record))
    if not configs or not validations or not steps:
        raise ValueError(f'`work_dir`: the run in {str(work_dir)!r} has {len(steps)} logged steps and '
                         f'{len(validations)} validations; expected some of both (train_cfg.val_interval no longer '
                         'than max_iters).')
    scores = {name: value for name, value in validations[-1].items() if name not in ('step', 'time', 'data_time')}
    return Run(
        work_dir, Config.fromfile(configs[-1], import_custom_modules=False), checkpoint, scores,
        iterations=max(record['step'] for record in records), step_time=median(record['time'] for record in steps),
        peak_memory=max((record['memory'] for record in steps if 'memory' in record), default=None), steps=steps,
        validations=validations, statistics=statistics)


def _in_order(records: Iterable[dict]) -> list[dict]:
    """By step; what a resumed run did again counts as it did it last."""
    latest = {record['step']: record for record in records}
    return [latest[step] for step in sorted(latest)]

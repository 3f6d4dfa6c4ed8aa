"""Reading what a training run leaves behind in its work dir."""
import json
from dataclasses import dataclass
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
    """

    work_dir: Path
    config: Config
    checkpoint: Path
    scores: dict[str, float]
    iterations: int
    step_time: float


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
    validations = [record for record in records if 'mIoU' in record or 'accuracy/top1' in record]
    steps = [record for record in records if 'loss' in record]
    if not configs or not validations or not steps:
        raise ValueError(f'`work_dir`: the run in {str(work_dir)!r} has {len(steps)} logged steps and '
                         f'{len(validations)} validations; expected some of both (train_cfg.val_interval no longer '
                         'than max_iters).')
    scores = {name: value for name, value in validations[-1].items() if name not in ('step', 'time', 'data_time')}
    return Run(work_dir, Config.fromfile(configs[-1], import_custom_modules=False), checkpoint, scores,
               max(record['step'] for record in records), median(record['time'] for record in steps))

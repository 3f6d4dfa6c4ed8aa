"""Distil a student by one call: write a short config, and train it."""
from mmseg_kd.config import read_config
from mmseg_kd.datasets.mixed_batches import add_unlabelled
from mmseg_kd.evaluation.runs import Run, read_run
from mmseg_kd.teachers.class_names import metainfo_in_config

from .training import train
from .written_config import write_config

__all__ = ['distil']


def distil(student: str, teacher: str, *, teacher_checkpoint: str | None = None, method: str = 'kd',
           data: str | None = None, iterations: int | None = None, work_dir: str | None = None,
           unlabelled: str | None = None, options: dict | None = None) -> Run:
    """Distil a student: :func:`~.written_config.write_config`, then train what it wrote.

    Args:
        student: As for :func:`~.written_config.write_config`, like all that is not named here.
        teacher: As there.
        teacher_checkpoint: As there.
        method: As there.
        data: As there.
        iterations: As there.
        work_dir: As there.
        unlabelled: Folder of pictures without labels to distil on as well.
        options: Settings that override the config's, with dotted keys as ``--cfg-options`` takes them.

    Returns:
        The finished run: ``scores`` (percent), ``checkpoint``, ``config``, ``work_dir``, ...

    Raises:
        ValueError: an argument that cannot be.

    Example:
        >>> import mmseg_kd
        >>> run = mmseg_kd.distil(student='mmseg::pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py',
        ...                       teacher='mmseg::pspnet/pspnet_r101-d8_4xb2-80k_cityscapes-512x1024.py',
        ...                       method='cwd', data='data/cityscapes')  # doctest: +SKIP
    """
    path = write_config(student, teacher, teacher_checkpoint=teacher_checkpoint, method=method, data=data,
                        iterations=iterations, work_dir=work_dir)
    cfg = read_config(str(path), 'config')
    cfg.work_dir = str(path.parent)
    cfg.merge_from_dict(options or {})
    if unlabelled is not None:
        add_unlabelled(cfg, unlabelled, 0.5, metainfo_in_config(cfg, 'mmseg'))
    cfg.launcher = cfg.get('launcher', 'none')
    train(cfg)
    return read_run(path.parent)

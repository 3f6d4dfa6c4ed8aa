"""Distil a student by one call: write a short config, and train it."""
import os
from pathlib import Path

from mmengine.config import Config

from mmseg_kd.config import read_config

from .written_config import config_text, teacher_settings

__all__ = ['distil', 'write_config']


def write_config(student: str, teacher: str, *, teacher_checkpoint: str | None = None, method: str = 'kd',
                 data: str | None = None, iterations: int | None = None, work_dir: str | None = None) -> Path:
    """Write the config of a distilled training into its work dir.

    Args:
        student: Config of the student: a path or ``'mmseg::<folder>/<name>.py'``.
        teacher: Config of the teacher, the work dir of its training, or a model of Hugging Face's hub.
        teacher_checkpoint: File or URL of the teacher's weights; None where ``teacher`` says it.
        method: One of :data:`mmseg_kd.commands.METHODS`: ``'kd'``, ``'dkd'``, ``'cwd'``, ...
        data: Folder of the data (``data_root`` of all splits); None: where the student's config has it.
        iterations: Length of the training; None: the student's.
        work_dir: Folder to write into (default: ``work_dirs/<method>_<student>``).

    Returns:
        Path of the config. A config that is there already and differs is left alone, which is an error.

    Raises:
        ValueError: an argument that cannot be, or another config by that name.
    """
    settings = teacher_settings(teacher, teacher_checkpoint)
    text = config_text(student, settings, method, data, iterations)
    folder = Path(work_dir or f'work_dirs/{method}_{Path(student.partition("::")[2] or student).stem}')
    path = folder / f'{method}.py'
    text = f'# Edit this file as you like, and train it again: mmseg-kd train {path} --work-dir {folder}\n{text}'
    if path.is_file() and path.read_text(encoding='utf-8') != text:
        raise ValueError(f'`--work-dir`: {path} is there already and has other settings. Train it as it is (mmseg-kd '
                         f'train {path} --work-dir {folder}), name another work dir, or remove it.')
    folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f'.{os.getpid()}.partial')
    partial.write_text(text, encoding='utf-8')
    partial.replace(path)
    return path


def distil(student: str, teacher: str, *, teacher_checkpoint: str | None = None, method: str = 'kd',
           data: str | None = None, iterations: int | None = None, work_dir: str | None = None,
           unlabelled: str | None = None, options: dict | None = None):
    """Distil a student: :func:`write_config`, then train what it wrote.

    Args:
        student: As for :func:`write_config`, like all that is not named here.
        teacher: As there.
        teacher_checkpoint: As there.
        method: As there.
        data: As there.
        iterations: As there.
        work_dir: As there.
        unlabelled: Folder of pictures without labels to distil on as well.
        options: Settings that override the config's, with dotted keys as ``--cfg-options`` takes them.

    Returns:
        What :func:`mmseg_kd.evaluation.runs.read_run` reads from the finished run: ``scores`` (percent),
        ``checkpoint``, ``config``, ``work_dir``, ...

    Raises:
        ValueError: an argument that cannot be.

    Example:
        >>> import mmseg_kd
        >>> run = mmseg_kd.distil(student='mmseg::pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py',
        ...                       teacher='mmseg::pspnet/pspnet_r101-d8_4xb2-80k_cityscapes-512x1024.py',
        ...                       method='cwd', data='data/cityscapes')  # doctest: +SKIP
    """
    # The stack is imported when it is needed: this module answers questions about arguments without it.
    from mmseg_kd.datasets.mixed_batches import add_unlabelled
    from mmseg_kd.evaluation.runs import read_run
    from mmseg_kd.teachers.class_names import metainfo_in_config

    from .training import train
    path = write_config(student, teacher, teacher_checkpoint=teacher_checkpoint, method=method, data=data,
                        iterations=iterations, work_dir=work_dir)
    cfg: Config = read_config(str(path), 'config')
    cfg.work_dir = str(path.parent)
    cfg.merge_from_dict(options or {})
    if unlabelled is not None:
        add_unlabelled(cfg, unlabelled, 0.5, metainfo_in_config(cfg, 'mmseg'))
    cfg.launcher = cfg.get('launcher', 'none')
    train(cfg)
    return read_run(path.parent)

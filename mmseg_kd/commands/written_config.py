"""The short config that ``mmseg-kd distil`` writes: the student's config, a teacher, a method, the data."""
import os
import os.path as osp
import re
from pathlib import Path

from mmengine.config import Config
from mmengine.hub import get_config

from mmseg_kd.config import read_config
from mmseg_kd.config_names import type_name
from mmseg_kd.safe_load import load_config_without_code

from . import METHODS

__all__ = ['config_text', 'teacher_settings', 'write_config']

PARTS = Path(__file__).parents[1] / '.mim/configs/_base_/distill'
#: The student's model to its distilled form, and what the names of its library's parts end with.
_MODELS = {
    'EncoderDecoder': ('DistilledEncoderDecoder', ''),
    'CascadeEncoderDecoder': ('DistilledCascadeEncoderDecoder', ''),
    'ImageClassifier': ('DistilledImageClassifier', '_in1k'),
    **dict.fromkeys(('ATSS', 'FCOS', 'GFL', 'RetinaNet'), ('DistilledSingleStageDetector', '_coco')),
    **dict.fromkeys(('CascadeRCNN', 'FasterRCNN', 'MaskRCNN'), ('DistilledTwoStageDetector', '_coco'))}
_WIDTH, _LONG = 100, 1_000_000


def write_config(student: str, teacher: str, *, teacher_checkpoint: str | None = None, method: str = 'kd',
                 data: str | None = None, iterations: int | None = None, work_dir: str | None = None,
                 trust_configs: bool = False) -> Path:
    """Write the config of a distilled training into its work dir.

    Args:
        student: Config of the student: a path or ``'mmseg::<folder>/<name>.py'``.
        teacher: Config of the teacher, the work dir of its training, or a model of Hugging Face's hub.
        teacher_checkpoint: File or URL of the teacher's weights; None where ``teacher`` says it.
        method: One of :data:`mmseg_kd.commands.METHODS`: ``'kd'``, ``'dkd'``, ``'cwd'``, ...
        data: Folder of the data (``data_root`` of all splits); None: where the student's config has it.
        iterations: Length of the training; None: the student's.
        work_dir: Folder to write into (default: ``work_dirs/<method>_<student>``).
        trust_configs: Whether the config in a work dir that is the teacher may be more than data.

    Returns:
        Path of the config. A config that is there already and differs is left alone, which is an error.

    Raises:
        ValueError: an argument that cannot be, or another config by that name.
    """
    settings = teacher_settings(teacher, teacher_checkpoint, trust_configs=trust_configs)
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


def config_text(student: str, teacher: dict, method: str = 'kd', data: str | None = None,
                iterations: int | None = None) -> str:
    """The text of a training config that distils a student.

    Args:
        student: A path or ``'mmseg::<folder>/<name>.py'``.
        teacher: ``model.teacher`` of the config, as :func:`teacher_settings` makes it.
        method: One of :data:`mmseg_kd.commands.METHODS`; its settings are written out, so that they can be edited.
        data: The ``data_root`` of all splits; None: the student's own.
        iterations: Length of the training; the learning rate's schedule is stretched to it. None: the student's own.

    Raises:
        ValueError: a student that cannot be distilled, an unknown method, iterations for a config of epochs.
    """
    config = read_config(student, '--student')
    kind = type_name(config.model)
    if kind.startswith('Distilled'):
        raise ValueError(f'`--student`: {student} is distilled already. Train it as it is: mmseg-kd train {student}')
    if kind not in _MODELS:
        raise ValueError(f'`--student`: expected a config whose model.type is one of {list(_MODELS)}, got {kind!r}.')
    distilled, ending = _MODELS[kind]
    part = PARTS / f'{method.replace("-", "_")}{ending}.py'
    if not part.is_file():
        there = [name for name in METHODS if (PARTS / f'{name}{ending}.py').is_file()]
        raise ValueError(f'`--method`: expected one of {there} for a {kind}, got {method!r}.')
    settings = Config.fromfile(part)
    model = dict(type=f'mmseg_kd.{distilled}', teacher=teacher)
    if 'dual_head' in settings:
        model['dual_head'] = settings.dual_head
    model['distill'] = settings.get('distill') or dict(review=settings.review)
    lines = [f'_base_ = [{_absolute(student)!r}]', "custom_imports = dict(imports=['mmseg_kd'])",
             f'model = {_written(model, len("model = "))}']
    if data is not None:
        lines += _data_lines(config, osp.abspath(data))
    if iterations is not None:
        lines += _schedule_lines(config, iterations)
    return '\n'.join(lines) + '\n'


def teacher_settings(teacher: str, checkpoint: str | None = None, trusted: bool = False,
                     trust_configs: bool = False) -> dict:
    """``model.teacher`` for what a user calls a teacher.

    Args:
        teacher: A config (path or ``'mmseg::<folder>/<name>.py'``), the work dir of a training run, or the name of a
            model on Hugging Face's hub, ``'owner/name'``.
        checkpoint: File or URL of its weights. None: the latest of a work dir, what mmseg's metafile lists for a
            ``'mmseg::'`` config, or what the hub has.
        trusted: Let the checkpoint be unpickled as a whole.
        trust_configs: Let a work dir's config be run as Python; else it must be data.

    Raises:
        ValueError: nothing by that name, no weights for it, or a work dir whose config is more than data.
    """
    more = dict(trusted=True) if trusted else {}
    if checkpoint is not None and '://' not in checkpoint and not osp.isfile(osp.expanduser(checkpoint)):
        raise ValueError(f'`--teacher-checkpoint`: expected a file or a URL, got {checkpoint!r} (looked in '
                         f'{osp.abspath(osp.expanduser(checkpoint))}).')
    path = Path(teacher).expanduser()
    if path.is_dir():
        configs = sorted(path.glob('*/vis_data/config.py'), key=lambda file: file.stat().st_mtime)
        last = path / 'last_checkpoint'
        if not configs or not (last.is_file() or checkpoint):
            raise ValueError(f'`--teacher`: {teacher} is a folder, but not the work dir of a training run: it lacks '
                             f'{"last_checkpoint" if configs else "*/vis_data/config.py"}.')
        if not trust_configs:
            # The training will run it.
            load_config_without_code(str(configs[-1]), '--teacher')
        checkpoint = checkpoint or str(path / Path(last.read_text().strip()).name)
        return dict(config=str(configs[-1].resolve()), checkpoint=_absolute(checkpoint), **more)
    if '::' not in teacher and not teacher.endswith('.py') and re.fullmatch(r'[\w.-]+/[\w.-]+', teacher):
        if checkpoint:
            raise ValueError(f'`--teacher-checkpoint`: {teacher!r} names a model of Hugging Face, which brings its own '
                             'weights; leave the checkpoint out.')
        return dict(type='huggingface', model=teacher, **more)
    read_config(teacher, '--teacher')
    if checkpoint is None:
        if '::' not in teacher:
            raise ValueError(f'`--teacher-checkpoint`: expected the weights of {teacher}, got none. Name a file or a '
                             'URL.')
        try:
            checkpoint = get_config(teacher, pretrained=True).model_path
        except (AttributeError, ValueError) as error:
            raise ValueError(f'`--teacher-checkpoint`: no weights are listed for {teacher}. Name a file or a '
                             'URL.') from error
    return dict(config=_absolute(teacher), checkpoint=_absolute(checkpoint), **more)


def _absolute(name: str) -> str:
    """A path that holds from everywhere; names and URLs stay."""
    return name if '://' in name or '::' in name else osp.abspath(osp.expanduser(name))


def _data_lines(config: Config, root: str) -> list[str]:
    if not osp.isdir(root):
        raise ValueError(f'`--data`: expected a folder, got {root}, which does not exist.')
    lines = []
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        dataset = (config.get(loader) or {}).get('dataset')
        if dataset is None:
            continue
        settings = dict(data_root=root)
        while isinstance(dataset.get('dataset'), dict):  # repeated, and the like
            dataset, settings = dataset['dataset'], dict(dataset=settings)
        if 'data_root' not in dataset:
            raise ValueError(f'`--data`: {loader} of the student has no data_root that this could replace. Describe '
                             'your data in a config of your own: docs/own_data.md.')
        lines.append(f'{loader} = {_written(dict(dataset=settings), len(loader) + 3)}')
    return lines


def _schedule_lines(config: Config, iterations: int) -> list[str]:
    old = (config.get('train_cfg') or {}).get('max_iters')
    if old is None:
        raise ValueError('`--iterations`: expected a student whose train_cfg counts iterations, got one that counts '
                         'epochs. Leave it out, and set train_cfg in the written config.')
    if iterations < 1:
        raise ValueError(f'`--iterations`: expected at least 1, got {iterations}.')
    schedulers = config.get('param_scheduler') or []
    schedulers = [dict(entry) for entry in (schedulers if isinstance(schedulers, list) else [schedulers])]
    for entry in schedulers:
        entry.update({key: round(entry[key] * iterations / old) for key in ('begin', 'end') if key in entry})
    interval = max(1, min(iterations, config.train_cfg.get('val_interval', old)))
    lines = [f'train_cfg = dict(max_iters={iterations}, val_interval={interval})',
             # A short run is logged ten times, too.
             f'default_hooks = dict(checkpoint=dict(interval={interval}), '
             f'logger=dict(interval={max(1, min(50, iterations // 10))}))']
    if schedulers:
        lines.append(f'param_scheduler = {_written(schedulers, len("param_scheduler = "))}')
    return lines


def _written(value, column: int, indent: int = 4) -> str:
    """A value as a person would write it in a config: ``dict(...)``, broken where a line would be too long.

    Args:
        value: Of plain types.
        column: Where it begins.
        indent: Of the lines after the first.
    """
    if isinstance(value, dict) and all(isinstance(key, str) and key.isidentifier() for key in value):
        inside, ends = [(f'{key}=', entry) for key, entry in value.items()], ('dict(', ')')
    elif isinstance(value, (list, tuple)):
        inside, ends = [('', entry) for entry in value], ('[', ']') if isinstance(value, list) else ('(', ')')
    else:
        return repr(value)
    if column + len(repr(value)) <= _WIDTH or not inside:
        flat = ', '.join(f'{name}{_written(entry, -_LONG)}' for name, entry in inside)
        return f'{ends[0]}{flat}{"," if ends[0] == "(" and len(inside) == 1 else ""}{ends[1]}'
    rows = [f'{" " * indent}{name}{_written(entry, indent + len(name), indent + 4)}' for name, entry in inside]
    rows = ',\n'.join(rows)
    return f'{ends[0]}\n{rows}{"," if ends[0] == "(" and len(inside) == 1 else ""}{ends[1]}'

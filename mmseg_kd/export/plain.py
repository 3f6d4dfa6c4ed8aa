"""The plain student: one config and one checkpoint that know nothing of distillation."""
from collections.abc import Iterator
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.utils import import_modules_from_strings
from torch import nn

from mmseg_kd.config import plain_settings, student_config
from mmseg_kd.registry import MODELS
from mmseg_kd.teachers.class_names import metainfo_in_config
from mmseg_kd.teachers.weights import load_into, read_weights

__all__ = ['build_plain', 'inference_pipeline', 'plain_config', 'save_plain']

# What inference and evaluation read; the rest of a training config is of no use without the training.
_KEPT = ('default_scope', 'custom_imports', 'data_preprocessor', 'model', 'test_pipeline', 'tta_model', 'tta_pipeline',
         'test_dataloader', 'test_evaluator', 'test_cfg', 'val_dataloader', 'val_evaluator', 'val_cfg', 'default_hooks',
         'env_cfg', 'vis_backends', 'visualizer', 'log_processor', 'log_level')
_OURS = 'mmseg_kd'


def plain_config(cfg: Config) -> Config:
    """Config of the plain student for inference and evaluation, resolved, without a trace of mmseg_kd.

    Args:
        cfg: A training config, distilled or plain.

    Returns:
        A Config of its own. ``test_pipeline`` is in it, which OpenMMLab's inference functions read, and no pretrained
        weights are named: all come from the checkpoint.

    Raises:
        ValueError: there is no model in it, or the student itself consists of parts of mmseg_kd.
    """
    if not isinstance(cfg.get('model'), dict):
        raise ValueError(f'`config`: expected a training config with the key `model`, got {sorted(cfg.keys())}.')
    plain = {key: value for key, value in cfg.to_dict().items() if key in _KEPT}
    plain['model'] = student_config(plain['model'])
    plain['model'].pop('pretrained', None)
    backbone = plain['model'].get('backbone')
    if isinstance(backbone, dict) and 'init_cfg' in backbone:
        backbone['init_cfg'] = None
    imports = [name for name in _names(plain.pop('custom_imports', None)) if name.split('.')[0] != _OURS]
    if imports:
        plain['custom_imports'] = dict(imports=imports)
    if 'default_hooks' in plain:
        plain['default_hooks'] = {name: hook for name, hook in plain['default_hooks'].items()
                                  if not (isinstance(hook, dict) and _is_ours(hook.get('type')))}
    pipeline = inference_pipeline(plain)
    if pipeline:
        plain['test_pipeline'] = pipeline
    for split in ('test', 'val'):
        if any(_ours_in(plain.get(f'{split}_dataloader'))):
            # A reader of data that plain OpenMMLab does not have; inference does not need it.
            for key in ('dataloader', 'evaluator', 'cfg'):
                plain.pop(f'{split}_{key}', None)
    ours = sorted(set(_ours_in(plain)))
    if ours:
        raise ValueError(f'`config`: the student is built of {", ".join(ours)}, which plain OpenMMLab does not have; '
                         'export it without its plain form (plain=False, `--no-plain`), as ONNX or only for torch.')
    return Config(plain)


def _names(custom_imports: dict | None) -> list[str]:
    imports = (custom_imports or {}).get('imports') or []
    return [imports] if isinstance(imports, str) else list(imports)


def inference_pipeline(cfg: dict | Config) -> list[dict]:
    """How a config loads pictures for inference: ``test_pipeline``, or that of its test or validation data; or []."""
    if cfg.get('test_pipeline') is not None:
        return cfg['test_pipeline']
    return next(filter(None, (_pipeline(cfg.get(f'{split}_dataloader')) for split in ('test', 'val'))), [])


def _pipeline(loader: dict | None) -> list | None:
    dataset = (loader or {}).get('dataset')
    while isinstance(dataset, dict):
        if dataset.get('pipeline'):
            return dataset['pipeline']
        dataset = dataset.get('dataset') or next(iter(dataset.get('datasets') or ()), None)
    return None


def _is_ours(name) -> bool:
    return str(name).split('.')[0] == _OURS


def _ours_in(value, path: str = '') -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _ours_in(inner, f'{path}.{key}' if path else str(key))
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            yield from _ours_in(inner, f'{path}[{index}]')
    elif isinstance(value, str) and (value.startswith(f'{_OURS}.') or value.startswith(f'{_OURS}::')):
        yield f'{path}={value!r}'


def build_plain(cfg: Config, checkpoint: str) -> tuple[nn.Module, dict]:
    """Build the plain student of a training config with its trained weights, on the CPU, in eval mode.

    Args:
        cfg: A training config, distilled or plain.
        checkpoint: What its training wrote: a file or a URL.

    Returns:
        The model, and the ``dataset_meta`` of its logits: ``classes`` and ``palette`` as far as checkpoint or config
        know them.

    Raises:
        ValueError: the checkpoint cannot be read, or is of another student.
    """
    scope = cfg.get('default_scope') or 'mmseg'
    import_modules_from_strings([f'{scope}.models'])
    with DefaultScope.overwrite_default_scope(scope):
        model = MODELS.build(plain_settings(cfg, scope))
    weights = read_weights(checkpoint, 'checkpoint')
    load_into(model, weights, 'checkpoint', checkpoint, 'config', complete=True)
    meta = metainfo_in_config(cfg, scope) | weights.metainfo
    return model.eval().requires_grad_(False), meta


def save_plain(cfg: Config, model: nn.Module, meta: dict, folder: Path) -> tuple[Path, Path]:
    """Write ``config.py`` and ``weights.pth``, which ``mmseg.apis.init_model`` takes (mmpretrain: ``get_model``).

    Args:
        cfg: What :func:`plain_config` returned.
        model: The plain student.
        meta: Its ``dataset_meta``.
        folder: Where to; it exists.

    Returns:
        The two files.
    """
    config, weights = folder / 'config.py', folder / 'weights.pth'
    cfg.dump(config)
    torch.save(dict(meta=dict(dataset_meta=meta) if meta else {}, state_dict=model.state_dict()), weights)
    return config, weights

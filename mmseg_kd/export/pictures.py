"""The real pictures on which an export is checked."""
import os.path as osp
from collections.abc import Sequence

import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS, TRANSFORMS, DefaultScope

from mmseg_kd.config_names import type_name

from .plain import inference_pipeline

__all__ = ['load_pictures']


def load_pictures(cfg: Config, files: Sequence[str] | None, number: int) -> list[dict]:
    """Load pictures through the config's own test pipeline.

    Args:
        cfg: A training config.
        files: Picture files; None: some of the config's validation data, evenly spaced.
        number: How many of the validation data.

    Returns:
        What the pipeline packs: ``inputs`` (3, H, W), BGR, 0 to 255, and ``data_samples``.

    Raises:
        ValueError: there are no pictures; the message says how to name some.
    """
    scope = cfg.get('default_scope') or 'mmseg'
    with DefaultScope.overwrite_default_scope(scope):
        if files:
            return [_through_pipeline(cfg, file) for file in files]
        loader = next((cfg[name] for name in ('val_dataloader', 'test_dataloader') if cfg.get(name)), None)
        if number < 1:
            raise ValueError(f'`pictures`: expected at least 1, got {number}.')
        if loader is None:
            raise ValueError('`images`: the config names no validation data; give files of real pictures: --images '
                             'FILE ...')
        try:
            dataset = DATASETS.build({**loader.dataset, '_scope_': scope})
            if not len(dataset):
                raise FileNotFoundError('the data set is empty')
            return [dataset[int(index)] for index in np.linspace(0, len(dataset) - 1, min(number, len(dataset)))]
        except OSError as error:
            raise ValueError(f'`images`: the validation data of the config are not to be had here ({error}). Give '
                             'their place (--cfg-options val_dataloader.dataset.data_root=DIR) or files of real '
                             'pictures (--images FILE ...).') from error


def _through_pipeline(cfg: Config, file: str) -> dict:
    if not osp.isfile(file):
        raise ValueError(f'`images`: expected an existing picture file, got {file!r} (looked in {osp.abspath(file)}).')
    pipeline = inference_pipeline(cfg)
    if not pipeline:
        raise ValueError('`images`: the config says not how pictures are loaded; it needs `test_pipeline`.')
    item = dict(img_path=file)
    for step in pipeline:
        if 'Annotations' not in type_name(step):
            item = TRANSFORMS.build(step)(item)
    return item

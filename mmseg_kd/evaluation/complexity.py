"""What a model costs at inference: parameters and multiply-adds."""
from collections.abc import Sequence
from typing import NamedTuple

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.utils import import_modules_from_strings
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmseg_kd.config import student_config
from mmseg_kd.config_names import type_name
from mmseg_kd.registry import MODELS

__all__ = ['Complexity', 'complexity', 'inference_cost', 'input_size']


class Complexity(NamedTuple):
    """Cost of one image.

    Attributes:
        parameters: Number of parameters.
        multiply_adds: Multiply-adds of convolutions, matrix products and attention; one of them is one FLOP, as in
            mmseg's ``get_flops``. None where an operator has no shape rule and cannot be counted.
    """

    parameters: int
    multiply_adds: int | None


@torch.no_grad()
def complexity(model: nn.Module, size: Sequence[int]) -> Complexity:
    """Count a plain segmentor's or classifier's inference, without computing anything.

    What only trains (``auxiliary_head``) does not count.

    Args:
        model: An OpenMMLab model whose ``forward(inputs, mode='tensor')`` gives its outputs. It is moved to the meta
            device: build one for this.
        size: (H, W) of the input.
    """
    if getattr(model, 'auxiliary_head', None) is not None:
        model.auxiliary_head = None
    model = model.eval().to('meta')
    parameters = sum(parameter.numel() for parameter in model.parameters())
    counter = FlopCounterMode(display=False)
    try:
        with counter:
            model(torch.empty(1, 3, *size, device='meta'), mode='tensor')
    except NotImplementedError:
        return Complexity(parameters, None)
    # torch counts the multiplication and the addition apart.
    return Complexity(parameters, counter.get_total_flops() // 2)


def inference_cost(config: Config, size: Sequence[int]) -> Complexity:
    """Parameters and multiply-adds of the inference of a training config's plain student.

    Args:
        config: A training config, distilled or plain.
        size: (H, W) of the input.
    """
    scope = config.get('default_scope', 'mmseg')
    import_modules_from_strings([f'{scope}.models'])
    with DefaultScope.overwrite_default_scope(scope):
        return complexity(MODELS.build(student_config(config.model)), size)


def input_size(config: Config) -> tuple[int, int]:
    """(H, W) that a run's images are trained at: ``crop_size``, the preprocessor's ``size``, or the pipeline's crop.

    Raises:
        ValueError: the config does not say.
    """
    for size in (config.get('crop_size'), (config.model.get('data_preprocessor') or {}).get('size'),
                 *map(_crop, _pipeline(config))):
        if size is not None:
            return (size, size) if isinstance(size, int) else tuple(size)
    raise ValueError('`config`: neither `crop_size`, `model.data_preprocessor.size` nor a crop of the training '
                     'pipeline says how large an input is; give `--size HEIGHT WIDTH`.')


def _pipeline(config: Config) -> list[dict]:
    dataset = (config.get('train_dataloader') or {}).get('dataset') or {}
    # Wrappers (RepeatDataset) hold the data set inside.
    while 'pipeline' not in dataset and isinstance(dataset.get('dataset'), dict):
        dataset = dataset['dataset']
    return dataset.get('pipeline') or []


def _crop(transform: dict):
    return transform.get('scale' if type_name(transform) == 'RandomResizedCrop' else 'crop_size')

"""What a trained model says about the pictures of a data set, segmentor or classifier alike."""
import copy
from collections.abc import Callable

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from mmseg_kd.distillers.segmentation.prediction import Prediction, predict

__all__ = ['build_loader', 'is_segmentor', 'num_classes_of', 'predictor_of']


def is_segmentor(config_or_model: dict | nn.Module) -> bool:
    """Whether a model, or its config, classifies pixels; else it classifies pictures."""
    if isinstance(config_or_model, nn.Module):
        return hasattr(config_or_model, 'decode_head')
    return 'decode_head' in config_or_model


def predictor_of(model: nn.Module) -> Callable[[nn.Module, dict], list[Prediction]]:
    """What predicts with a plain model: called as ``predict(model, data)`` with a batch of the data loader.

    A picture is one :class:`~mmseg_kd.distillers.segmentation.prediction.Prediction`: of a segmentor its pixels, of a
    classifier one position, logits (C,), and predicted class and label without dimension.
    """
    return predict if is_segmentor(model) else _predict_classes


def num_classes_of(model: nn.Module) -> int:
    """Number of classes of a plain model; a single sigmoid channel is two classes."""
    return max(model.out_channels, 2) if is_segmentor(model) else model.head.num_classes


@torch.no_grad()
def _predict_classes(model: nn.Module, data: dict) -> list[Prediction]:
    """Predictions of a plain mmpretrain classifier.

    Raises:
        ValueError: the model gives no logits (N, C), or a picture has not one class.
    """
    samples = [sample.new() for sample in data['data_samples']]
    batch = model.data_preprocessor(dict(inputs=data['inputs'], data_samples=samples), False)
    logits = model(batch['inputs'], mode='tensor')
    if not isinstance(logits, torch.Tensor) or logits.dim() != 2:
        raise ValueError(f'`config`: expected a classifier with logits (N, C), got {type(model.head).__name__}, which '
                         'gives others; use a head with one classifier (LinearClsHead).')
    predictions = []
    for each, sample in zip(logits.float(), data['data_samples'], strict=True):
        label = sample.get('gt_label')
        if label is None or len(label) != 1:
            raise ValueError('`config`: expected one class, `gt_label`, for each picture, got '
                             f'{"none" if label is None else label.tolist()}.')
        predictions.append(Prediction(each, each.argmax(0), label[0].to(each.device)))
    return predictions


def build_loader(config: Config, split: str, shift: dict | None = None, folder: str | None = None) -> DataLoader:
    """The pictures of a split of a config, in order, through its validation pipeline.

    Args:
        config: Of a training run.
        split: 'train' or 'val'.
        shift: Config of a transform that comes before the packing.
        folder: Other pictures of a classifier's classes, in a folder for each class, instead of the split's.
    """
    loader = copy.deepcopy(config.val_dataloader)
    loader.dataset = copy.deepcopy(config[f'{split}_dataloader'].dataset)
    inner = loader.dataset
    while 'pipeline' not in inner and 'dataset' in inner:
        inner = inner.dataset
    if 'pipeline' in inner:
        inner.pipeline = config.val_dataloader.dataset.pipeline
    pipeline = config.val_dataloader.dataset.pipeline
    if shift is not None:
        inner.pipeline = [*pipeline[:-1], shift, pipeline[-1]]
    if folder is not None:
        loader.dataset = dict(type='CustomDataset', data_root=folder, pipeline=pipeline)
    loader.sampler = dict(type='DefaultSampler', shuffle=False)
    with DefaultScope.overwrite_default_scope(config.get('default_scope', 'mmseg')):
        return Runner.build_dataloader(loader, seed=0)

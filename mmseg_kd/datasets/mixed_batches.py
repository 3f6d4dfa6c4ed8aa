"""What a training config says about pictures without labels, and what a command line adds to it."""
import logging

from mmengine.config import Config
from mmengine.logging import print_log

from mmseg_kd.config_names import type_name

from .picture_files import pictures_below
from .unlabelled import pipeline_of

__all__ = ['add_unlabelled', 'check_mixed_batches']


def add_unlabelled(cfg: Config, folder: str, share: float, metainfo: dict) -> None:
    """Train a distilled config on pictures without labels as well; the batch size stays.

    Terms that do not say which ``positions`` they see get ``positions='all'``.

    Args:
        cfg: A training config with a data set and a batch size; it is changed.
        folder: The folder with the pictures.
        share: The unlabelled pictures' share of a batch; 1: the run has no labels at all.
        metainfo: ``classes`` and ``palette`` of the labelled data set, for a run without it.

    Raises:
        ValueError: no distilled config, a folder without pictures, a share that leaves nothing of one kind, or a data
            set or sampler that is already a mixed one.
    """
    terms = cfg.model.get('distill')
    if not terms or 'EncoderDecoder' not in type_name(cfg.model):
        raise ValueError('`--unlabelled`: a teacher speaks about pictures without labels, so the config must be that '
                         f'of a distilled segmentor, got model.type={cfg.model.get("type")!r} with '
                         f'model.distill={terms!r}.')
    pictures_below(folder, '--unlabelled')
    loader = cfg.train_dataloader
    if type_name(loader.dataset) in ('WithUnlabelled', 'UnlabelledDataset'):
        raise ValueError('`--unlabelled`: the config has unlabelled pictures already, '
                         f'{loader.dataset.get("unlabelled") or loader.dataset.get("data_root")}. Remove the option, '
                         'or override train_dataloader.dataset.unlabelled.data_root.')
    size = loader.batch_size
    number = round(size * share)
    if not 0 < share <= 1 or number == 0 or (number == size and share < 1):
        raise ValueError(f'`--unlabelled-share`: expected a share above 0 and at most 1 that leaves whole pictures of '
                         f'both kinds in a batch of {size}, got {share} ({number} of {size}). Change it or '
                         'train_dataloader.batch_size.')
    if share == 1:
        pipeline = pipeline_of(loader.dataset)
        if pipeline is None:
            raise ValueError('`--unlabelled-share`: no pipeline for single pictures in `train_dataloader.dataset`; '
                             "write the data set out: type='mmseg_kd.UnlabelledDataset'.")
        loader.dataset = dict(type='mmseg_kd.UnlabelledDataset', data_root=folder, pipeline=pipeline,
                              metainfo=metainfo)
    else:
        loader.dataset = dict(type='mmseg_kd.WithUnlabelled', labelled=loader.dataset,
                              unlabelled=dict(data_root=folder))
        loader.sampler = dict(type='mmseg_kd.MixedSampler', labelled=size - number, unlabelled=number,
                              by_epoch=_by_epoch(cfg))
    changed = [name for name, term in terms.items() if 'positions' not in term]
    for name in changed:
        terms[name]['positions'] = 'all'
    print_log(f'--unlabelled: each batch has {size - number} labelled and {number} unlabelled pictures'
              + (f"; distill.{', distill.'.join(changed)}: positions='all'." if changed else '.'), logger='current')


def check_mixed_batches(cfg: Config) -> None:
    """Refuse a loader whose batches are not what its ``MixedSampler`` says; without one change nothing.

    Raises:
        ValueError: another batch size, or epochs that never end.
    """
    loader = cfg.get('train_dataloader') or {}
    sampler = loader.get('sampler') or {}
    if type_name(sampler) != 'MixedSampler':
        if type_name(loader.get('dataset') or {}) == 'WithUnlabelled':
            print_log('`train_dataloader.sampler`: without mmseg_kd.MixedSampler the number of labelled pictures '
                      'differs from batch to batch.', logger='current', level=logging.WARNING)
        return
    numbers = [sampler.get(name) for name in ('labelled', 'unlabelled')]
    if all(isinstance(number, int) for number in numbers) and sum(numbers) != loader.get('batch_size'):
        raise ValueError(f'`train_dataloader.batch_size`: expected {sum(numbers)}, the sum of sampler.labelled and '
                         f'sampler.unlabelled, got {loader.get("batch_size")}. Change one of them.')
    if bool(sampler.get('by_epoch')) != _by_epoch(cfg):
        raise ValueError(f'`train_dataloader.sampler.by_epoch`: expected {_by_epoch(cfg)}, as the training loop is '
                         f'{cfg.train_cfg.get("type", "epoch-based")}, got {bool(sampler.get("by_epoch"))}.')


def _by_epoch(cfg: Config) -> bool:
    settings = cfg.get('train_cfg') or {}
    return 'EpochBased' in type_name(settings) if 'type' in settings else bool(settings.get('by_epoch', True))

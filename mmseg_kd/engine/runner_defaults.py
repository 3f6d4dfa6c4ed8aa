"""What our tools set in a config before they build its Runner."""
import atexit
import logging

import torch
from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log

__all__ = ['add_training_hooks', 'use_gloo_without_gpu', 'use_teacher_cache']

_TRAINING_HOOKS = ('mmseg_kd.ExactResumeHook', 'mmseg_kd.TrainOnlyStateHook', 'mmseg_kd.DistillScheduleHook',
                   'mmseg_kd.DistillStatisticsHook', 'mmseg_kd.PeakMemoryHook', 'mmseg_kd.StopSignalHook',
                   'mmseg_kd.FiniteStepHook')


def add_training_hooks(cfg: Config) -> None:
    """Add the hooks that every training run needs to ``cfg.custom_hooks``, unless they are there."""
    hooks = list(cfg.get('custom_hooks') or [])
    present = {hook.get('type') for hook in hooks}
    cfg.custom_hooks = hooks + [dict(type=name) for name in _TRAINING_HOOKS if name not in present]
    cfg.default_hooks = dict(cfg.get('default_hooks') or {})
    checkpoint = cfg.default_hooks.setdefault('checkpoint', dict(type='CheckpointHook'))
    if checkpoint is not None and checkpoint.get('type') == 'CheckpointHook':
        checkpoint['type'] = 'mmseg_kd.SafeCheckpointHook'


def use_teacher_cache(cfg: Config) -> None:
    """Where ``model.teacher`` is a cache, let the training pipeline bring its logits along; else change nothing.

    Raises:
        ValueError: the training data set has no pipeline that ends in ``PackSegInputs``.
    """
    teacher = cfg.model.get('teacher')
    if not isinstance(teacher, dict) or teacher.get('cache') is None:
        return
    dataset = cfg.train_dataloader.dataset
    while 'pipeline' not in dataset and isinstance(dataset.get('dataset'), dict):
        dataset = dataset['dataset']
    pipeline = list(dataset.get('pipeline') or [])
    types = [transform['type'].rpartition('.')[2] for transform in pipeline]
    if 'PackSegInputs' not in types:
        if 'PackDistillInputs' in types:
            return
        raise ValueError('`teacher.cache`: expected a pipeline of the training data set that ends in PackSegInputs, '
                         f'got {types}. Put LoadTeacherLogits and PackDistillInputs into it by hand.')
    pack = types.index('PackSegInputs')
    pipeline[pack] = dict(pipeline[pack], type='mmseg_kd.PackDistillInputs', cache=teacher['cache'])
    first = next(index for index, name in enumerate(types) if not name.startswith('Load'))
    pipeline.insert(first, dict(type='mmseg_kd.LoadTeacherLogits', cache=teacher['cache']))
    dataset['pipeline'] = pipeline


def use_gloo_without_gpu(cfg: Config) -> None:
    """Let a distributed launch run on CPUs; with a GPU, or without a launcher, change nothing.

    mmengine's own start sets a CUDA device, its wrapper passes device ids, and SyncBN wants GPUs. Here the process
    group is started with gloo first, the wrapper takes none, and SyncBN becomes BN (each process has its own batch
    statistics, which is said in the log).
    """
    if cfg.get('launcher', 'none') != 'pytorch' or torch.cuda.is_available():
        return
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group('gloo')
        atexit.register(torch.distributed.destroy_process_group)
    cfg.setdefault('model_wrapper_cfg', dict(
        type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False)))
    if _replace_sync_bn(cfg.model):
        print_log('SyncBN runs on GPUs alone and became BN: batch statistics are per process.', logger='current',
                  level=logging.WARNING)


def _replace_sync_bn(node) -> bool:
    """Replace type='SyncBN' below ``node`` by 'BN'; whether there was any."""
    found = False
    if isinstance(node, (dict, ConfigDict)):
        if node.get('type') == 'SyncBN':
            node['type'] = 'BN'
            found = True
        children = node.values()
    else:
        children = node if isinstance(node, (list, tuple)) else ()
    return any([_replace_sync_bn(child) for child in children]) or found

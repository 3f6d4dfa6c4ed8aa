"""What our tools set in a config before they build its Runner."""
import atexit
import gc
import logging
from collections.abc import Iterator

import torch
from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log

from mmseg_kd.config_names import type_name
from mmseg_kd.datasets.teacher_cache import TeacherCache

__all__ = ['add_training_hooks', 'use_gloo_without_gpu', 'use_teacher_cache']

# What is added to a training run, by the setting that leaves it out or gives its arguments.
_HOOKS = dict(
    exact_resume='ExactResumeHook', distill_statistics='DistillStatisticsHook', first_step='FirstStepHook',
    peak_memory='PeakMemoryHook',
    stop_signal='StopSignalHook', finite_step='FiniteStepHook', checkpoint_fit='CheckpointFitHook',
    class_check='ClassNamesHook', teacher_check='TeacherCheckHook', data_check='DataCheckHook')


def add_training_hooks(cfg: Config) -> str:
    """Add the hooks that every training run needs to ``cfg.custom_hooks``, unless they are there or left out.

    Each has a setting of its own in the config (see ``_HOOKS``): ``False`` leaves it out, a dict has its arguments. A
    hook that is in ``custom_hooks`` stays as it is. Two parts of mmengine are exchanged for ours, which do the same and
    survive a stop: ``CheckpointHook`` (``safe_checkpoint``) and ``FSDPStrategy`` (``resumable_strategy``).

    Returns:
        A sentence for the log, which names what was added and how to leave it out.

    Raises:
        ValueError: a setting is neither False nor a dict.
    """
    hooks = list(cfg.get('custom_hooks') or [])
    present = {type_name(hook) for hook in hooks}
    added = {}
    for key, name in _HOOKS.items():
        settings = _settings(cfg, key)
        if settings is not None and name not in present:
            hooks.append(dict(type=f'mmseg_kd.{name}', **settings))
            added[key] = name
    cfg.custom_hooks = hooks
    default_hooks = dict(cfg.get('default_hooks') or {})
    checkpoint = default_hooks.get('checkpoint', dict(type='CheckpointHook'))
    if checkpoint is not None and type_name(checkpoint) == 'CheckpointHook':
        settings = _settings(cfg, 'safe_checkpoint')
        if settings is not None:
            default_hooks['checkpoint'] = dict(checkpoint) | settings | dict(type='mmseg_kd.SafeCheckpointHook')
            added['safe_checkpoint'] = 'SafeCheckpointHook'
    cfg.default_hooks = default_hooks
    if cfg.get('strategy') is not None and type_name(cfg.strategy) == 'FSDPStrategy':
        settings = _settings(cfg, 'resumable_strategy')
        if settings is not None:
            cfg.strategy.update(settings, type='mmseg_kd.ResumableFSDPStrategy')
            added['resumable_strategy'] = 'ResumableFSDPStrategy'
    return ('Beyond the config this run has, of mmseg_kd: '
            f'{", ".join(f"{key} ({name})" for key, name in added.items()) or "nothing"}. NAME=False in the config, or '
            '--cfg-options NAME=False, leaves one out; NAME=dict(...) gives its arguments.')


def _settings(cfg: Config, key: str) -> dict | None:
    settings = cfg.get(key, {})
    if settings is False:
        return None
    if not isinstance(settings, dict):
        raise ValueError(f'`{key}`: expected False, which leaves it out, or a dict of its arguments, got '
                         f'{settings!r}.')
    return dict(settings)


def use_teacher_cache(cfg: Config) -> None:
    """Where ``model.teacher`` has caches, let the training pipeline bring their logits along; else change nothing.

    Raises:
        ValueError: the training data set has no pipeline that ends in ``PackSegInputs``, or it loads images in another
            way than the cache's teacher did.
    """
    teachers = cfg.model.get('teacher')
    teachers = teachers if isinstance(teachers, (list, tuple)) else [teachers]
    caches = list(dict.fromkeys(teacher['cache'] for teacher in teachers
                                if isinstance(teacher, dict) and teacher.get('cache') is not None))
    if not caches:
        return
    for dataset in _innermost(cfg.train_dataloader.dataset):
        _bring_logits_along(dataset, caches)


def _innermost(dataset: dict) -> Iterator[dict]:
    """The data sets inside of ``RepeatDataset``, ``ConcatDataset`` and the like that have a pipeline to change."""
    inner = dataset.get('datasets') or dataset.get('dataset') or dataset.get('labelled')
    if 'pipeline' in dataset or not inner:
        yield dataset
        return
    for each in inner if isinstance(inner, (list, tuple)) else [inner]:
        yield from _innermost(each)


def _bring_logits_along(dataset: dict, caches: list[str]) -> None:
    pipeline = list(dataset.get('pipeline') or [])
    types = [type_name(transform) for transform in pipeline]
    if 'PackDistillInputs' in types and 'LoadTeacherLogits' in types:
        return
    if 'PackSegInputs' not in types:
        raise ValueError('`teacher.cache`: expected a pipeline of the training data set that ends in PackSegInputs, '
                         f'got {types}. Put LoadTeacherLogits and PackDistillInputs into it by hand.')
    for cache in caches:
        TeacherCache(cache).check_loading(pipeline)
    pack = types.index('PackSegInputs')
    pipeline[pack] = dict(pipeline[pack], type='mmseg_kd.PackDistillInputs', cache=caches)
    if 'LoadTeacherLogits' not in types:
        first = next(index for index, name in enumerate(types) if not name.startswith('Load'))
        pipeline.insert(first, dict(type='mmseg_kd.LoadTeacherLogits', cache=caches))
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
        if torch.distributed.get_rank() == 0:
            print_log(f'There is no GPU: {torch.distributed.get_world_size()} processes train on the CPU and exchange '
                      'gradients through gloo. With GPUs the same command takes one for each process.',
                      logger='current')
        atexit.register(_leave_process_group)
    wrappers = {
        'ResumableFSDPStrategy': dict(
            type='MMFullyShardedDataParallel', use_orig_params=True, device_id='cpu'),
        'DDPStrategy': dict(type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False)}
    strategy = cfg.get('strategy')
    if strategy is not None and type_name(strategy) in wrappers:
        strategy.setdefault('model_wrapper', wrappers[type_name(strategy)])
    cfg.setdefault('model_wrapper_cfg', dict(
        type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False)))
    if _replace_sync_bn(cfg.model):
        print_log('SyncBN runs only on GPUs and became BN: batch statistics are per process.', logger='current',
                  level=logging.WARNING)


def _leave_process_group() -> None:
    """End gloo's threads before the interpreter goes, which aborts the process when it meets a running one."""
    # A Runner and its hooks know each other; until they are collected, DDP in there keeps the group alive.
    gc.collect()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _replace_sync_bn(node) -> bool:
    """Replace type='SyncBN' below ``node`` by 'BN'; whether there was any."""
    found = False
    if isinstance(node, (dict, ConfigDict)):
        if type_name(node) in ('SyncBN', 'SyncBatchNorm', 'MMSyncBN'):
            node['type'] = 'BN'
            found = True
        children = node.values()
    else:
        children = node if isinstance(node, (list, tuple)) else ()
    return any([_replace_sync_bn(child) for child in children]) or found

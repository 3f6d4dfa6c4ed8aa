"""Real mmseg models and runs, small enough for a test."""
import copy
import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.structures import PixelData

import mmseg_kd  # noqa: F401

ROOT = Path(__file__).resolve().parents[1]


def segmentor(width=8, head='FCNHead', num_classes=19, depth=18, dilated=True, **head_settings):
    """Config of a small mmseg EncoderDecoder."""
    norm_cfg = dict(type='BN', requires_grad=True)
    extra = dict(FCNHead=dict(num_convs=1, concat_input=False), PSPHead=dict(pool_scales=(1, 2))).get(head, {})
    return dict(
        type='EncoderDecoder',
        data_preprocessor=preprocessor(),
        backbone=dict(
            type='ResNetV1c', depth=depth, stem_channels=width, base_channels=width, num_stages=4,
            strides=(1, 2, 1, 1) if dilated else (1, 2, 2, 2), dilations=(1, 1, 2, 4) if dilated else (1, 1, 1, 1),
            norm_cfg=norm_cfg, contract_dilation=True),
        decode_head=dict(
            type=head, in_channels=8 * width, in_index=3, channels=8, num_classes=num_classes, norm_cfg=norm_cfg,
            align_corners=False, loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True),
            **{'dropout_ratio': 0.1, **extra, **head_settings}),
        train_cfg=dict(),
        test_cfg=dict(mode='whole'))


def cascade(stages=2):
    """Config of a small mmseg CascadeEncoderDecoder: FCN, then OCR heads."""
    model = segmentor()
    first = model['decode_head']
    later = {name: value for name, value in first.items() if name not in ('num_convs', 'concat_input')}
    later |= dict(type='OCRHead', ocr_channels=8)
    return model | dict(
        type='CascadeEncoderDecoder', num_stages=stages, decode_head=[first] + [dict(later) for _ in range(stages - 1)])


def preprocessor(**settings):
    """Config of mmseg's data preprocessor for 32x64 images."""
    return dict(type='SegDataPreProcessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375],
                bgr_to_rgb=True, pad_val=0, seg_pad_val=255, size=(32, 64)) | settings


def distilled(student, teacher, checkpoint=None, distill=None):
    """Config of the distilled form of a student."""
    settings = dict(config=dict(model=copy.deepcopy(teacher)))
    if checkpoint is not None:
        settings['checkpoint'] = str(checkpoint)
    return copy.deepcopy(student) | dict(
        type='mmseg_kd.DistilledEncoderDecoder', teacher=settings,
        distill=distill or dict(dkd=dict(loss=dict(type='mmseg_kd.DKDLoss', beta=2.))))


def build(model, seed=0, scope='mmseg'):
    """Build a model from its config under a seed, with initialised weights, in a library's scope."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    built = build_part(model, scope)
    built.init_weights()
    return built


def build_part(config, scope='mmseg'):
    """Build from a config in a library's scope, whatever scope an earlier test left."""
    from mmengine.registry import DefaultScope
    with DefaultScope.overwrite_default_scope(scope):
        return import_module(f'{scope}.registry').MODELS.build(copy.deepcopy(config))


def batch(size=2, height=32, width=64, num_classes=19, seed=0, dtype=torch.uint8):
    """A raw batch as a data loader gives it: images 0..255 and labels with some 255."""
    from mmseg.structures import SegDataSample
    generator = torch.Generator().manual_seed(seed)
    images, samples = [], []
    for _ in range(size):
        images.append(torch.randint(0, 256, (3, height, width), generator=generator).to(dtype))
        label = torch.randint(0, num_classes, (1, height, width), generator=generator)
        label[:, :3] = 255
        sample = SegDataSample(gt_sem_seg=PixelData(data=label))
        sample.set_metainfo(dict(img_shape=(height, width), ori_shape=(height, width)))
        samples.append(sample)
    return dict(inputs=images, data_samples=samples)


def run_config(model, data_root, max_iters=4, **settings):
    """A training config on a generated mini-Cityscapes of 32x64 pixels."""
    def loader(split, size, shuffle):
        pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
        if shuffle:
            pipeline += [dict(type='RandomFlip', prob=0.5), dict(type='PhotoMetricDistortion')]
        return dict(
            batch_size=size, num_workers=0, persistent_workers=False,
            sampler=dict(type='InfiniteSampler' if shuffle else 'DefaultSampler', shuffle=shuffle),
            dataset=dict(
                type='CityscapesDataset', data_root=str(data_root),
                data_prefix=dict(img_path=f'leftImg8bit/{split}', seg_map_path=f'gtFine/{split}'),
                pipeline=pipeline + [dict(type='PackSegInputs')]))
    settings = dict(
        default_scope='mmseg', custom_imports=dict(imports=['mmseg_kd']), model=model,
        train_dataloader=loader('train', 2, True), val_dataloader=loader('val', 1, False),
        test_dataloader=loader('val', 1, False),
        val_evaluator=dict(type='IoUMetric', iou_metrics=['mIoU']),
        test_evaluator=dict(type='IoUMetric', iou_metrics=['mIoU']),
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=1e-4)),
        param_scheduler=[dict(type='PolyLR', eta_min=1e-4, power=0.9, begin=0, end=20, by_epoch=False)],
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=max_iters),
        val_cfg=dict(type='ValLoop'), test_cfg=dict(type='TestLoop'),
        default_hooks=dict(
            timer=dict(type='IterTimerHook'), logger=dict(type='LoggerHook', interval=1, log_metric_by_epoch=False),
            param_scheduler=dict(type='ParamSchedulerHook'),
            checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=max_iters),
            sampler_seed=dict(type='DistSamplerSeedHook')),
        env_cfg=dict(cudnn_benchmark=False, mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
                     dist_cfg=dict(backend='gloo')),
        # Teachers of tests are random, or nearly so.
        log_processor=dict(by_epoch=False), randomness=dict(seed=0), teacher_check=False) | settings
    return Config(settings)


def write_run(work_dir, config, records):
    """A work dir as a Runner leaves it: dumped config, log, an empty checkpoint ``iter_<last step>.pth``."""
    log = work_dir / '20260101_000000/vis_data'
    log.mkdir(parents=True)
    config.dump(log / 'config.py')
    (log / 'scalars.json').write_text('\n'.join(map(json.dumps, records)))
    checkpoint = f"iter_{max(record['step'] for record in records)}.pth"
    (work_dir / checkpoint).touch()
    # Runners write the path as they were started; the folder may have moved since.
    (work_dir / 'last_checkpoint').write_text(f'elsewhere/{checkpoint}')


def train_only_state(checkpoint):
    """What exists only for training, in a checkpoint of a Runner."""
    return checkpoint['message_hub']['runtime_info']['train_only_state']


def command(*arguments, check=True, timeout=None, **environment):
    """Run a tool as a user does; the completed process with its output as text."""
    process = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        timeout=timeout, env={**os.environ, 'PYTHONPATH': str(ROOT), **environment})
    if check and process.returncode:
        raise AssertionError(f'{arguments} ended with {process.returncode}:\n{process.stdout[-4000:]}')
    return process

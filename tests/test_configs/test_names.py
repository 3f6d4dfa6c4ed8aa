"""Configs of classifiers and of the demos are what their names say, and no two are the same."""
import json
import re
from pathlib import Path
from urllib.parse import urlparse

import pytest
import yaml
from tiny import ROOT
from zoo import read

CLASSIFIERS = sorted((ROOT / 'configs/cls').rglob('*.py'))
#: Those of detectors are in test_detection_configs.py.
DEMOS = sorted(path for path in (ROOT / 'configs/demo').glob('*.py') if 'gfl' not in path.stem)
PREFIX = r'(?:(?P<method>[a-z0-9-]+)_(?P<teacher>[a-z0-9-]+)_)?(?P<student>[a-z0-9_-]+)_'
#: method, teacher, student, GPUs x pictures on each, data; or a network alone.
OF_CLASSIFIERS = re.compile(PREFIX + r'(?P<gpus>\d)xb(?P<batch>\d+)_(?P<data>[a-z0-9-]+)')
#: The same with the size of the pictures instead of a batch.
OF_DEMOS = re.compile(PREFIX + r'(?P<data>[a-z-]+)-(?P<height>\d+)x(?P<width>\d+)')
LOSSES = dict(kd='KDLoss', cwd='CWDLoss', dkd='DKDLoss', gdkd='GDKDLoss', gdkd3='GDKD3Loss', dgkd='DGKDLoss',
              dhkd='BinaryKLNormLoss')
#: What makes a network the one that it is.
BACKBONES = {f'resnet{depth}': dict(type='mmseg_kd.CIFARResNet', depth=depth) for depth in (8, 20, 32, 56, 110)} | {
    f'resnet{depth}x4': dict(type='mmseg_kd.CIFARResNet', depth=depth, width_factor=4) for depth in (8, 32)} | {
    f'wrn{depth}-{factor}': dict(type='mmseg_kd.CIFARWideResNet', depth=depth, widen_factor=factor)
    for depth, factor in ((16, 2), (40, 1), (40, 2))} | {
    f'vgg{depth}': dict(type='mmseg_kd.CIFARVGG', depth=depth) for depth in (8, 13)} | {
    f'resnet{depth}': dict(type='ResNet', depth=depth) for depth in (18, 34, 50, 101)} | {
    'shufflenet-v1': dict(type='mmseg_kd.CIFARShuffleNetV1'), 'shufflenet-v2': dict(type='mmseg_kd.CIFARShuffleNetV2'),
    'mobilenet-v2': dict(type='mmseg_kd.CIFARMobileNetV2'), 'mobilenet-v1': dict(type='mmseg_kd.MobileNetV1'),
    'vit-s-p16': dict(type='VisionTransformer', arch='deit-small', patch_size=16),
    'swin-t': dict(type='SwinTransformer', arch='tiny'),
    'vit-s-p4': dict(type='VisionTransformer', arch='deit-small', patch_size=4, img_size=32),
    'pspnet-r18-w32-d8': dict(type='ResNetV1c', depth=18, base_channels=32, strides=[1, 2, 1, 1]),
    'deeplabv3plus-r18-w24-d8': dict(type='ResNetV1c', depth=18, base_channels=24, strides=[1, 2, 1, 1]),
    'fcn-r18-w16-d8': dict(type='ResNetV1c', depth=18, base_channels=16, strides=[1, 2, 1, 1])}
#: A data set's type, number of classes, and part of where it lies.
DATA = {
    'cifar100': ('CIFAR100', 100, 'cifar100'), 'in1k': ('ImageNet', 1000, 'imagenet'), 'cub': ('CUB', 200, 'CUB'),
    'tiny-imagenet': ('mmseg_kd.TinyImageNet', 200, 'tiny-imagenet'), 'digits': ('mmseg_kd.Digits', 10, ''),
    'mini-cityscapes': ('CityscapesDataset', 19, 'mini_cityscapes'), 'camvid': ('CityscapesDataset', 19, 'camvid')}
#: How mmpretrain calls teachers of ImageNet.
PUBLISHED = {f'resnet{depth}': f'resnet/resnet{depth}_8xb32_in1k' for depth in (18, 34, 50, 101)} | {
    'vit-s-p16': 'deit/deit-small_4xb256_in1k'}
#: Networks that are others on these data.
ELSEWHERE = {(f'resnet{depth}', 'cifar100'): dict(type='ResNet_CIFAR', depth=depth) for depth in (18, 50, 101)} | {
    ('shufflenet-v2', 'in1k'): dict(type='ShuffleNetV2', widen_factor=1)}


def parse(path):
    found = (OF_DEMOS if path in DEMOS else OF_CLASSIFIERS).fullmatch(path.stem)
    assert found, f'{path.name} is not written by the grammar'
    name = found.groupdict()
    # Of a network alone the demos of segmentation write the head as mmseg does, before a '_'.
    name['student'] = name['student'].replace('_', '-')
    return name


def assert_is(config, name, data):
    """The network, by its name, for the classes of the data."""
    expected = ELSEWHERE.get((name, data)) or BACKBONES[name]
    assert {key: config.model.backbone.get(key) for key in expected} == expected
    kind, classes, place = DATA[data]
    head = config.model.get('decode_head') or config.model.head
    assert head.num_classes == classes
    if 'decode_head' in config.model:
        heads = dict(pspnet='PSPHead', fcn='FCNHead', deeplabv3plus='DepthwiseSeparableASPPHead')
        assert head.type == heads[name.partition('-')[0]]
    for loader in ('train_dataloader', 'val_dataloader'):
        dataset = config[loader].dataset
        assert dataset.type == kind and place in dataset.get('data_root', '')


@pytest.mark.parametrize('path', CLASSIFIERS + DEMOS, ids=lambda path: path.stem)
def test_a_name_says_what_the_config_contains(path):
    config, name = read(path), parse(path)
    assert_is(config, name['student'], name['data'])
    if path in DEMOS:
        size = [int(name['height']), int(name['width'])]
        assert config.model.get('decode_head') is None or config.model.data_preprocessor.size == size
    else:
        assert config.train_dataloader.batch_size == int(name['batch'])
        assert path.parent.name == (name['method'] or 'vanilla').removesuffix('-published').replace('-', '_')
    if name['method'] is None:
        assert not {'teacher', 'distill', 'dual_head'} & set(config.model)
        return

    method, _, variant = name['method'].partition('-')
    terms = {method: LOSSES[method]} | (dict(review='HierarchicalContextLoss') if variant == 'reviewkd' else {})
    assert {term: settings.loss.type for term, settings in config.model.distill.items()} == {
        term: f'mmseg_kd.{loss}' for term, loss in terms.items()}
    assert (config.model.get('dual_head') is not None) == (method == 'dhkd')
    assert config.model.distill[method].get('on', 'logits') == ('aux_logits' if method == 'dhkd' else 'logits')
    if path in DEMOS:
        assert (config.optim_wrapper.type == 'mmseg_kd.GradAlignOptimWrapper') == (variant == 'align')
    teacher = config.model.teacher
    if teacher.config.startswith('mmpretrain::'):
        assert teacher.config == f'mmpretrain::{PUBLISHED[name["teacher"]]}.py' and name['data'] == 'in1k'
    else:
        assert teacher.config.startswith('mmseg_kd::')
        assert_is(read(ROOT / 'configs' / teacher.config.removeprefix('mmseg_kd::')), name['teacher'], name['data'])


@pytest.mark.parametrize('path', [path for path in CLASSIFIERS if path.parent.name != 'vanilla'
                                  and '-published_' not in path.name], ids=lambda path: path.stem)
def test_a_classifier_trains_as_it_does_alone(path):
    """Distillation is all that is added; KD and alignment say what else they change."""
    config, name = read(path), parse(path)
    alone = read(ROOT / 'configs/cls/vanilla/{student}_{gpus}xb{batch}_{data}.py'.format(**name))
    for key in ('teacher', 'distill', 'dual_head'):
        config.model.pop(key, None)
    config.model.type = config.model.type.removeprefix('mmseg_kd.Distilled')
    if name['method'] == 'kd':
        weight = config.model.head.loss.loss_weight
        assert 0 < weight < 1
        alone.model.head.loss.loss_weight = weight
    for key, value in alone.to_dict().items():
        mine = config.to_dict()[key]
        if key == 'optim_wrapper' and name['method'].startswith('dhkd'):
            mine, value = ({part: setting for part, setting in each.items() if part not in ('type', 'scope')}
                           for each in (mine, value))
        assert mine == value, key


def test_no_two_configs_are_the_same():
    runs = {}
    for path in CLASSIFIERS + DEMOS:
        settings = read(path).to_dict()
        # Left over at the top level for others to take; no run reads them.
        for key in ('distill', 'dual_head', 'pair', 'supervised_weight', 'review'):
            settings.pop(key, None)
        runs.setdefault(json.dumps(settings, sort_keys=True), []).append(path.name)
    assert [names for names in runs.values() if len(names) > 1] == []


@pytest.mark.cls
def test_teachers_of_imagenet_are_published_by_mmpretrain():
    """Config and checkpoint stand side by side in a metafile of mmpretrain; hosts differ by distribution."""
    mmpretrain = pytest.importorskip('mmpretrain')
    root = Path(mmpretrain.__file__).parent / '.mim'
    metafiles = [yaml.safe_load((root / name).read_text())
                 for name in yaml.safe_load((root / 'model-index.yml').read_text())['Import']]
    published = {entry['Config']: entry.get('Weights') for metafile in metafiles for entry in metafile['Models']}
    teachers = {teacher.config: teacher.checkpoint for teacher in (
        read(path).model.get('teacher') for path in CLASSIFIERS) if teacher and teacher.config.startswith('mmpretrain')}
    assert len(teachers) == len(PUBLISHED)
    for config, checkpoint in teachers.items():
        theirs = published[f'configs/{config.removeprefix("mmpretrain::")}']
        assert urlparse(checkpoint).path.partition('/v0/')[2] == urlparse(theirs).path.partition('/v0/')[2] != ''

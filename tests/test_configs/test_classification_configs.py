"""Every classification config: built, and one training step of it at its real input size, on random images."""
import os

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS
from tiny import ROOT, build_part
from tiny_cls import image_batch

pytestmark = pytest.mark.cls
CONFIGS = sorted((ROOT / 'configs/cls').rglob('*.py')) + sorted((ROOT / 'configs/demo').glob('*digits*.py'))
METHODS = ('kd', 'dkd', 'gdkd', 'gdkd3', 'dhkd', 'dgkd')
#: DKD's beta, GDKD's w1 and w2 of the papers' eleven pairs on CIFAR-100.
PAIRS = {
    'resnet56_resnet20': (2, 1, 1), 'resnet110_resnet32': (2, 1, 1), 'resnet32x4_resnet8x4': (8, 2, 8),
    'wrn40-2_wrn16-2': (6, 2, 6), 'wrn40-2_wrn40-1': (6, 2, 6), 'vgg13_vgg8': (6, 1, 6),
    'resnet32x4_shufflenet-v1': (8, 1, 8), 'resnet32x4_shufflenet-v2': (8, 1, 8), 'wrn40-2_shufflenet-v1': (8, 2, 6),
    'vgg13_mobilenet-v2': (6, 1, 6), 'resnet50_mobilenet-v2': (8, 1, 8)}


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    """Teachers are named by paths from the project's root, where a user starts tools/train.py."""
    monkeypatch.chdir(ROOT)


def read(path):
    config = Config.fromfile(path, import_custom_modules=False)
    # What a Runner does, and what needs a trained teacher.
    config.model.setdefault('data_preprocessor', config.data_preprocessor)
    if 'teacher' in config.model:
        config.model.teacher.pop('checkpoint')
    return config


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_one_training_step(path):
    config = read(path)
    model = build_part(config.model, 'mmpretrain')
    for term in getattr(model, 'terms', {}).values():
        term.scale = 1.
    side = 8 if 'digits' in path.name else 32 if 'cifar100' in path.name else 224
    data = image_batch(2, side, num_classes=config.data_preprocessor.num_classes)
    optimizer = build_optim_wrapper(model, config.optim_wrapper)
    parameter = next(parameter for name, parameter in model.named_parameters() if 'backbone' in name)
    before = parameter.detach().clone()
    logs = model.train().train_step(data, optimizer)
    assert all(torch.isfinite(value).all() for value in logs.values())
    assert not torch.equal(parameter, before)
    method = path.stem.split('_')[0].split('-')[0]
    if method in METHODS:
        terms = {f'distill.loss_{method}'} | ({'distill.loss_review'} if '-reviewkd_' in path.name else set())
        assert set(logs) == {'loss', 'loss_cls'} | terms and all(logs[term] != 0 for term in terms)


def test_the_papers_pairs_are_complete():
    for pair in PAIRS:
        for method in METHODS:
            assert (ROOT / f'configs/cls/{method}/{method}_{pair}_1xb64_cifar100.py').is_file()


@pytest.mark.parametrize('pair', PAIRS)
def test_the_papers_settings_on_cifar100(pair):
    beta, w1, w2 = PAIRS[pair]
    configs = {method: read(ROOT / f'configs/cls/{method}/{method}_{pair}_1xb64_cifar100.py') for method in METHODS}
    wanted = dict(
        kd=dict(temperature=4, loss_weight=0.9), dkd=dict(temperature=4, alpha=1, beta=beta),
        gdkd=dict(temperature=4, k=5, w0=1, w1=w1, w2=w2), gdkd3=dict(temperature=4, k=4, w0=1, w1=w1, w2=w2),
        dhkd=dict(temperature=2, loss_weight=1), dgkd=dict(temperature=4, alpha=1, beta=1, epsilon=6, softening=1e-8))
    for method, config in configs.items():
        term = config.model.distill[method]
        assert {name: value for name, value in term.loss.items() if name != 'type'} == wanted[method]
        assert term.get('schedule') == (None if method in ('kd', 'dhkd') else dict(warmup=20, by_epoch=True))
        assert config.optim_wrapper.optimizer == dict(
            type='SGD', lr=0.01 if 'net-v' in pair else 0.05, momentum=0.9, weight_decay=5e-4)
        assert config.train_cfg.max_epochs == 240 and config.train_dataloader.batch_size == 64
        assert config.param_scheduler[0].milestones == [150, 180, 210]
        assert config.model.head.loss.loss_weight == (0.1 if method == 'kd' else 1)
        teacher, student = pair.split('_')
        assert teacher in config.model.teacher.config
        assert config.model.backbone == read(ROOT / f'configs/cls/vanilla/{student}_1xb64_cifar100.py').model.backbone
    assert configs['dhkd'].model.dual_head == dict(kind='nonlinear', init='torch')
    assert configs['dhkd'].optim_wrapper.type == 'mmseg_kd.GradAlignOptimWrapper'


@pytest.mark.parametrize('pair, beta, w12', [('resnet34_resnet18', 0.5, 1), ('resnet50_mobilenet-v1', 2, 2)])
def test_the_papers_settings_on_imagenet(pair, beta, w12):
    configs = {method: read(ROOT / f'configs/cls/{method}/{method}_{pair}_8xb64_in1k.py') for method in METHODS}
    assert configs['dkd'].model.distill.dkd.loss.beta == beta
    for method, k in (('gdkd', 5), ('gdkd3', 4)):
        loss = configs[method].model.distill[method].loss
        assert (loss.k, loss.w0, loss.w1, loss.w2, loss.temperature) == (k, 0.5, w12, w12, 1)
    dhkd = configs['dhkd'].model
    assert dhkd.dual_head == dict(kind='linear', init='torch') and dhkd.distill.dhkd.loss.loss_weight == 0.1
    assert dhkd.distill.dhkd.schedule == dict(stop=49, by_epoch=True)  # 1 to 49
    assert configs['dhkd'].optim_wrapper.type == 'OptimWrapper'


@pytest.mark.parametrize('data', ['tiny-imagenet', 'cub'])
def test_gdkds_settings_of_resnet50_and_mobilenet_v1(data):
    configs = {method: read(ROOT / f'configs/cls/{method}/{method}_resnet50_mobilenet-v1_1xb64_{data}.py')
               for method in ('kd', 'dkd', 'gdkd')}
    assert {method: config.model.distill[method].loss for method, config in configs.items()} == dict(
        kd=dict(type='mmseg_kd.KDLoss', temperature=1, loss_weight=0.5),
        dkd=dict(type='mmseg_kd.DKDLoss', alpha=1, beta=2, temperature=1),
        gdkd=dict(type='mmseg_kd.GDKDLoss', k=5, w0=0.5, w1=2, w2=2, temperature=1))
    rate, milestones = (0.001, [30, 60]) if data == 'tiny-imagenet' else (0.0025, [40, 80])
    for config in configs.values():
        assert config.optim_wrapper.optimizer == dict(type='SGD', lr=rate, momentum=0.9, weight_decay=0.001)
        assert config.param_scheduler[0].milestones == milestones and config.train_cfg.max_epochs == 100
    assert configs['kd'].model.head.loss.loss_weight == 0.5


def test_gdkd3_for_a_transformer():
    config = read(ROOT / 'configs/cls/gdkd3/gdkd3_resnet50_swin-t_8xb128_in1k.py')
    assert config.model.distill == dict(gdkd3=dict(
        loss=dict(type='mmseg_kd.GDKD3Loss', k=5, w0=1, w1=1, w2=1, temperature=1)))
    optimizer, paramwise = config.optim_wrapper.optimizer, config.optim_wrapper.paramwise_cfg
    assert optimizer == dict(type='AdamW', lr=1e-3, weight_decay=0.05) and config.optim_wrapper.clip_grad.max_norm == 5
    assert paramwise.norm_decay_mult == paramwise.bias_decay_mult == 0 and '.cls_token' not in paramwise.custom_keys
    assert config.train_cfg.max_epochs == 300 and config.param_scheduler[0].end == 20


#: The rows of the table in DGKD's blog, teacher and student, by data.
ROWS_OF_DGKD = {
    '1xb64_cifar100': ['resnet50_resnet18', 'vit-s-p4_resnet18', 'resnet18_resnet18', 'resnet50_resnet50',
                       'resnet101_resnet101', 'shufflenet-v2_resnet50', 'shufflenet-v2_vit-s-p4'],
    '8xb64_in1k': ['resnet50_resnet18', 'resnet50_shufflenet-v2', 'vit-s-p16_resnet18', 'vit-s-p16_shufflenet-v2',
                   'resnet101_resnet101', 'resnet50_resnet50', 'resnet18_resnet18']}


def test_every_row_of_dgkds_table_with_the_term_of_its_code():
    assert sum(map(len, ROWS_OF_DGKD.values())) == 14
    for data, pairs in ROWS_OF_DGKD.items():
        for pair in pairs:
            term = read(ROOT / f'configs/cls/dgkd/dgkd_{pair}_{data}.py').model.distill.dgkd
            assert term == dict(
                loss=dict(type='mmseg_kd.DGKDLoss', alpha=1, beta=1, epsilon=6, temperature=4, softening=1e-8),
                schedule=dict(warmup=20, by_epoch=True))


@pytest.mark.parametrize('pair', ['resnet56_resnet20', 'resnet50_resnet18'])
def test_the_optimizer_of_dgkds_code(pair):
    config = read(ROOT / f'configs/cls/dgkd/dgkd-published_{pair}_1xb64_cifar100.py')
    assert config.model.distill.dgkd.loss.beta == 8 and config.train_cfg.max_epochs == 100
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])
    assert config.optim_wrapper.optimizer == dict(
        type='AdamW', lr=0.05, weight_decay=optimizer.defaults['weight_decay'])  # its code leaves it to torch
    wrapper = build_optim_wrapper(torch.nn.Linear(1, 1), config.optim_wrapper)
    schedulers = [PARAM_SCHEDULERS.build(dict(each, optimizer=wrapper.optimizer)) for each in config.param_scheduler]
    for epoch in range(100):
        expected = (epoch + 1) / 20 if epoch < 20 else 0.1**sum(epoch >= each for each in (60, 75, 90))
        assert wrapper.get_lr()['lr'][0] == pytest.approx(0.05 * expected)
        wrapper.optimizer.step()
        for scheduler in schedulers:
            scheduler.step()


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_a_teacher_is_a_config_that_exists_and_writes_the_checkpoint(path):
    teacher = Config.fromfile(path, import_custom_modules=False).model.get('teacher')
    if teacher is None:
        assert path.parent.name == 'vanilla' or path.parent.name == 'demo'
    elif teacher.config.startswith('mmseg_kd::'):
        own = Config.fromfile(ROOT / 'configs' / teacher.config.removeprefix('mmseg_kd::'), import_custom_modules=False)
        stem = os.path.splitext(os.path.basename(teacher.config))[0]
        assert teacher.checkpoint == f'work_dirs/{stem}/epoch_{own.train_cfg.max_epochs}.pth'
    else:
        assert teacher.config.startswith('mmpretrain::') and teacher.checkpoint.startswith('https://')


def test_resnet50_of_cifar_has_the_published_size():
    """mmpretrain's, in the setting of our config; the number is that of the code of CRD."""
    model = build_part(read(ROOT / 'configs/cls/vanilla/resnet50_1xb64_cifar100.py').model, 'mmpretrain')
    assert sum(parameter.numel() for parameter in model.parameters()) == 23705252

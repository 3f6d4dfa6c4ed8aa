"""Backbones of the distillation papers against the published sizes and the papers' own code."""
import pytest
import torch
from mmengine.registry import DefaultScope
from torch import nn

from mmseg_kd.registry import MODELS

#: Name: config, width of the pooled features.
NETWORKS = {
    **{f'resnet{depth}': (dict(type='mmseg_kd.CIFARResNet', depth=depth), 64)
       for depth in (8, 14, 20, 32, 44, 56, 110)},
    **{f'resnet{depth}x4': (dict(type='mmseg_kd.CIFARResNet', depth=depth, width_factor=4, stem_channels=32), 256)
       for depth in (8, 32)},
    **{f'wrn{depth}-{widen}': (dict(type='mmseg_kd.CIFARWideResNet', depth=depth, widen_factor=widen), 64 * widen)
       for depth in (16, 40) for widen in (1, 2)},
    **{f'vgg{depth}': (dict(type='mmseg_kd.CIFARVGG', depth=depth), 512) for depth in (8, 11, 13, 16, 19)},
    'mobilenet-v2': (dict(type='mmseg_kd.CIFARMobileNetV2'), 1280),
    'shufflenet-v1': (dict(type='mmseg_kd.CIFARShuffleNetV1'), 960),
    'shufflenet-v2': (dict(type='mmseg_kd.CIFARShuffleNetV2'), 1024),
    'mobilenet-v1': (dict(type='mmseg_kd.MobileNetV1'), 1024),
}

# With a classifier of 100 classes (MobileNetV1: 1000). The whole numbers are those of the code of CRD (RepDistiller,
# b84f547) and of DKD (mdistiller, a08d46f); rounded they are those of the papers' tables, as 7.43 M for resnet32x4.
PUBLISHED = {
    'resnet8': 83892, 'resnet14': 181108, 'resnet20': 278324, 'resnet32': 472756, 'resnet44': 667188,
    'resnet56': 861620, 'resnet110': 1736564, 'resnet8x4': 1233540, 'resnet32x4': 7433860, 'wrn16-1': 180916,
    'wrn16-2': 703284, 'wrn40-1': 569780, 'wrn40-2': 2255156, 'vgg8': 3965028, 'vgg11': 9277284, 'vgg13': 9462180,
    'vgg16': 14774436, 'vgg19': 20086692, 'mobilenet-v2': 812836, 'shufflenet-v1': 949258, 'shufflenet-v2': 1355528,
    'mobilenet-v1': 4231976,
}


def build(config):
    with DefaultScope.overwrite_default_scope('mmseg_kd'):
        return MODELS.build(dict(config))


def size(network, features):
    """Parameters with a linear classifier on top."""
    classes = 1000 if network == 'mobilenet-v1' else 100
    return sum(value.numel() for value in build(NETWORKS[network][0]).parameters()) + classes * (features + 1)


@pytest.mark.parametrize('network', NETWORKS)
def test_the_number_of_parameters_is_the_published_one(network):
    assert size(network, NETWORKS[network][1]) == PUBLISHED[network]


def conv(k, i, o, groups=1):
    """A k x k convolution without bias, and its BatchNorm."""
    return k * k * i * o // groups + 2 * o


def by_hand(network):
    """The same number from the papers' tables of layers."""
    if network.startswith('resnet'):
        depth, wide = int(network[6:].split('x')[0]), network.endswith('x4')
        stem, widths = (32, (64, 128, 256)) if wide else (16, (16, 32, 64))
        total, before = conv(3, 3, stem), stem
        for width in widths:
            total += conv(3, before, width) + conv(3, width, width) + (conv(1, before, width) if before != width else 0)
            total += ((depth - 2) // 6 - 1) * 2 * conv(3, width, width)
            before = width
    elif network.startswith('wrn'):
        depth, widen = map(int, network[3:].split('-'))
        total, before = 9 * 3 * 16, 16
        for width in (16 * widen, 32 * widen, 64 * widen):
            total += 2 * before + 9 * before * width + 2 * width + 9 * width**2
            total += before * width if before != width else 0
            total += ((depth - 4) // 6 - 1) * (4 * width + 18 * width**2)
            before = width
        total += 2 * before
    elif network.startswith('vgg'):
        numbers = {8: '11111', 11: '11222', 13: '22222', 16: '22333', 19: '22444'}[int(network[3:])]
        total, before = 0, 3
        for width, number in zip((64, 128, 256, 512, 512), map(int, numbers), strict=True):
            for _ in range(number):
                total += conv(3, before, width) + width
                before = width
    elif network == 'mobilenet-v2':
        total, before = conv(3, 3, 16), 16
        for expand, width, number in ((1, 8, 1), (6, 12, 2), (6, 16, 3), (6, 32, 4), (6, 48, 3), (6, 80, 3),
                                      (6, 160, 1)):
            for _ in range(number):
                middle = before * expand
                total += conv(1, before, middle) + conv(3, middle, middle, middle) + conv(1, middle, width)
                before = width
        total, before = total + conv(1, before, 1280), 1280
    elif network == 'shufflenet-v1':
        total, before = conv(1, 3, 24), 24
        for width, number in ((240, 4), (480, 8), (960, 4)):
            for unit in range(number):
                made = width if unit else width - before
                groups = 1 if before == 24 else 3
                total += conv(1, before, made // 4, groups) + conv(3, made // 4, made // 4, made // 4)
                total += conv(1, made // 4, made, 3)
                before = width
    elif network == 'shufflenet-v2':
        total, before = conv(1, 3, 24), 24
        for width, number in ((116, 4), (232, 8), (464, 4)):
            half = width // 2
            total += conv(3, before, before, before) + conv(1, before, half)
            total += conv(1, before, half) + conv(3, half, half, half) + conv(1, half, half)
            total += (number - 1) * (2 * conv(1, half, half) + conv(3, half, half, half))
            before = width
        total, before = total + conv(1, before, 1024), 1024
    else:
        total, before = conv(3, 3, 32), 32
        for width in (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024):
            total += conv(3, before, before, before) + conv(1, before, width)
            before = width
    return total + (1000 if network == 'mobilenet-v1' else 100) * (before + 1)


@pytest.mark.parametrize('network', NETWORKS)
def test_the_published_number_is_that_of_the_papers_layers(network):
    assert by_hand(network) == PUBLISHED[network]


def wave(shape):
    return torch.arange(torch.Size(shape).numel(), dtype=torch.float64).sin().reshape(shape)


def fill(network):
    """Weights that follow from each layer's shape alone, so that they are the same in any code of the network."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data = wave(module.weight.shape) * (3 / module.weight[0].numel())**0.5
            if module.bias is not None:
                module.bias.data = wave(module.bias.shape) / 10
        if isinstance(module, nn.BatchNorm2d):
            shape = module.weight.shape
            module.running_mean, module.running_var = wave(shape) / 10, 1 + wave(shape) / 2
            module.weight.data, module.bias.data = 1 + wave(shape).flip(0) / 3, wave(shape).flip(0) / 5
    return network.double().eval()


# Mean and standard deviation over the channels, and channels 1 and -1, of `pooled_feat` of mdistiller's own networks
# (a08d46f), filled as above, on the image wave((1, 3, 32, 32)); MobileNetV1: 224 x 224.
LITERALS = {
    'resnet20': (1.938743335, 2.757457838, 0., 0.06745845359),
    'resnet8x4': (2.143763449, 2.663189521, 6.350105695, 0.),
    'wrn16-2': (1.004452395, 1.370962977, 0., 1.780555863),
    'vgg8': (0.06398331681, 0.07732466208, 0.1732456297, 8.653668821e-05),
    'vgg13': (0.06398681126, 0.07732132331, 0.1733937088, 0.0002917597756),
    'mobilenet-v2': (8.975566196, 10.67669988, 0., 0.),
    'shufflenet-v1': (41089.67139, 48886.97149, 5711.131658, 0.),
    'shufflenet-v2': (0.2943801979, 0.436545183, 0., 0.01250160758),
    'mobilenet-v1': (253.5155088, 337.4841404, 0., 0.),
}


@pytest.mark.parametrize('network', LITERALS)
def test_the_features_are_those_of_the_papers_code(network):
    side = 224 if network == 'mobilenet-v1' else 32
    with torch.no_grad():
        pooled = fill(build(NETWORKS[network][0]))(wave((1, 3, side, side)))[-1].mean((2, 3))[0]
    assert pooled.shape == (NETWORKS[network][1],)
    got = [value.item() for value in (pooled.mean(), pooled.std(), pooled[1], pooled[-1])]
    assert got == pytest.approx(LITERALS[network], rel=1e-8, abs=1e-12)


@pytest.mark.parametrize('network, strides', [
    ('resnet20', (1, 2, 4)), ('wrn16-1', (1, 2, 4)), ('vgg8', (1, 2, 4, 8, 8)), ('shufflenet-v1', (2, 4, 8)),
    ('shufflenet-v2', (2, 4, 8)), ('mobilenet-v2', (2, 2, 4, 8, 8, 16, 16)), ('mobilenet-v1', (2, 4, 8, 16, 32))])
def test_stages_by_index(network, strides):
    config = NETWORKS[network][0]
    outputs = build(config | dict(out_indices=tuple(range(len(strides)))))(torch.rand(2, 3, 64, 64))
    assert isinstance(outputs, tuple) and [64 // output.shape[2] for output in outputs] == list(strides)
    assert outputs[-1].shape[1] == NETWORKS[network][1]
    assert len(build(config | dict(out_indices=(-1, 0)))(torch.rand(2, 3, 64, 64))) == 2


def test_he_initialisation():
    torch.manual_seed(0)
    network = build(NETWORKS['resnet32x4'][0])
    network.init_weights()
    convolution = network.layer3[1].conv2
    assert convolution[0].weight.std().item() == pytest.approx((2 / (9 * 256))**0.5, rel=0.01)
    assert convolution[1].weight.eq(1).all() and convolution[1].bias.eq(0).all()


@pytest.mark.parametrize('config, message', [
    (dict(type='mmseg_kd.CIFARResNet', depth=18), r'`depth`: expected 6 n \+ 2'),
    (dict(type='mmseg_kd.CIFARWideResNet', depth=20), r'`depth`: expected 6 n \+ 4'),
    (dict(type='mmseg_kd.CIFARVGG', depth=12), r'`depth`: expected one of \[8, 11'),
    (dict(type='mmseg_kd.MobileNetV1', out_indices=(5,)), '`out_indices`: expected indices of the 5 stages'),
    (dict(type='mmseg_kd.MobileNetV1', out_indices=()), '`out_indices`: expected')])
def test_refusals(config, message):
    with pytest.raises(ValueError, match=message):
        build(config)

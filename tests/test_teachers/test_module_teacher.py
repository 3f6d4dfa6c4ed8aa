"""teacher=dict(type='module'): any callable that makes an nn.Module."""
import copy

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from tiny import batch, build, command, distilled, preprocessor, run_config, segmentor
from torch import nn

from mmseg_kd.teachers.network import pick

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.3, 0.25]
CODE = '''
from torch import nn


class Net(nn.Module):
    """Two convolutions; its map has half of the image's size."""

    def __init__(self, classes=19, stride=2):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, stride, 1), nn.Dropout(0.5))
        self.head = nn.Conv2d(8, classes, 1)

    def forward(self, images):
        return dict(aux=None, out=self.head(self.body(images)))


def vectors(**arguments):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 19))


def broken(colour):
    raise OSError(f'no {colour} paint')


def thirty_two():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 40 * 40, 19 * 4), nn.Unflatten(1, (19, 2, 2)))


number = 3
'''


@pytest.fixture(scope='module')
def net(tmp_path_factory):
    """A Python file with networks, and a checkpoint of one of them."""
    folder = tmp_path_factory.mktemp('net')
    (folder / 'net.py').write_text(CODE)
    scope = {}
    exec(CODE, scope)
    torch.manual_seed(3)
    model = scope['Net']()
    nn.init.normal_(model.head.weight, std=2.)
    torch.save(model.state_dict(), folder / 'net.pth')
    return folder


def module(folder, name='Net', **settings):
    return dict(type='module', build=f'{folder}/net.py:{name}', output='out', mean=MEAN, std=STD) | settings


def with_teacher(teacher, student=None, **terms):
    config = distilled(student or segmentor(dropout_ratio=0.), segmentor(16), distill=copy.deepcopy(terms) or dict(
        kd=dict(loss=dict(type='mmseg_kd.KDLoss', temperature=1.))))
    return config | dict(teacher=teacher)


def losses_of(model, raw):
    data = model.data_preprocessor(copy.deepcopy(raw), True)
    return model.train().loss(data['inputs'], data['data_samples']), data


def divergence(teacher, student, labels):
    """KL(teacher || student) in float64 over the labelled positions; maps (N, C, h, w) of any size."""
    maps = [nn.functional.interpolate(value, labels.shape[1:], mode='bilinear').double().numpy()
            for value in (teacher, student)]
    p, q = (log_softmax(each, axis=1) for each in maps)
    return (np.exp(p) * (p - q)).sum(1)[labels != 255].mean()


@pytest.mark.parametrize('form', [
    dict(), dict(rgb=False), dict(scale=1., mean=[120., 110., 100.], std=[60., 50., 40.])],
    ids=['rgb', 'bgr', 'scale'])
def test_the_loss_is_that_of_its_own_images(net, form):
    """Against the network itself, on the raw pictures normalised by hand."""
    settings = module(net, checkpoint=str(net / 'net.pth'), **form)
    model = build(with_teacher(settings))
    raw = batch()
    losses, data = losses_of(model, raw)
    images = torch.stack(raw['inputs']).double()  # as they are loaded: blue, green, red
    images = images if settings.get('rgb') is False else images.flip(1)
    mean, std = (torch.tensor(settings[name], dtype=torch.float64).reshape(3, 1, 1) for name in ('mean', 'std'))
    images = ((images / settings.get('scale', 255.) - mean) / std).float()
    scope = {}
    exec(CODE, scope)
    network = scope['Net']().eval()
    network.load_state_dict(torch.load(net / 'net.pth'))
    labels = np.stack([sample.gt_sem_seg.data[0].numpy() for sample in data['data_samples']])
    with torch.no_grad():
        wanted = divergence(network(images)['out'], model(data['inputs'], mode='tensor'), labels)
    assert losses['distill.loss_kd'].item() == pytest.approx(wanted, rel=1e-4)


def test_it_is_a_guest(net):
    model = build(with_teacher(module(net)))
    assert list(model.state_dict()) == list(build(segmentor()).state_dict())
    assert len(list(model.parameters())) == len(list(build(segmentor()).parameters()))
    network = model.train().teacher.model
    assert not any(part.training for part in network.modules())
    assert not any(value.requires_grad for value in network.parameters())
    assert copy.deepcopy(model).teacher.model is network
    assert next(model.to(torch.float64).teacher.model.parameters()).dtype == torch.float64


def test_the_students_random_numbers_are_untouched(net):
    with_it, alone = build(with_teacher(module(net))), build(segmentor())
    assert all(torch.equal(value, with_it.state_dict()[name]) for name, value in alone.state_dict().items())


def test_its_modules_are_read_and_the_speed_settings_hold(net):
    """A feature through an adapter, beside the logits of the same network compiled and in bfloat16."""
    at = dict(loss=dict(type='mmseg_kd.FeatureMSELoss'), on=('backbone.layer1', 'body.0'),
              adapter=dict(kind='linear'))
    losses, _ = losses_of(build(with_teacher(module(net), at=at)), batch())
    assert losses['distill.loss_at'].item() > 0
    plain, fast = (losses_of(build(with_teacher(module(net, checkpoint=str(net / 'net.pth'), **speed))), batch())[0]
                   for speed in ({}, dict(dtype='bf16', compile=dict(backend='eager'), channels_last=True)))
    assert fast['distill.loss_kd'].item() == pytest.approx(plain['distill.loss_kd'].item(), rel=0.05)
    assert fast['distill.loss_kd'].item() != plain['distill.loss_kd'].item()


def test_only_features_need_no_logits(net):
    """A network whose output is no map may still teach a feature."""
    at = dict(loss=dict(type='mmseg_kd.AttentionTransferLoss'), on=('backbone.layer1', 'body.0'))
    losses, _ = losses_of(build(with_teacher(module(net, output='aux'), at=at)), batch())
    assert losses['distill.loss_at'].item() > 0


def test_a_network_of_one_size(net):
    with pytest.raises(ValueError, match=r'`teacher.build`: a forward pass on images of 128 .* size=\(H, W\)'):
        build(with_teacher(module(net, 'thirty_two', output=None)))
    model = build(with_teacher(module(net, 'thirty_two', output=None, size=(40, 40))))
    assert losses_of(model, batch())[0]['distill.loss_kd'].item() > 0


def test_several_with_weights(net):
    both = [module(net, checkpoint=str(net / 'net.pth'), weight=2.), module(net, checkpoint=str(net / 'net.pth'),
                                                                           weight=0.5)]
    one = {name: value for name, value in both[0].items() if name != 'weight'}
    single, double = (losses_of(build(with_teacher(each)), batch())[0]['distill.loss_kd'].item()
                      for each in (one, both))
    assert double == pytest.approx(2.5 * single, rel=1e-5)


class Outputs(dict):
    maps = (torch.zeros(1), torch.ones(2))


@pytest.mark.parametrize('value, output, wanted', [
    (torch.ones(2), None, 2), (dict(out=torch.ones(2)), 'out', 2), ((torch.ones(1), torch.ones(2)), 1, 2),
    ([dict(a=torch.ones(2))], '0.a', 2), (Outputs(), 'maps.1', 2), ({'a.b': torch.ones(2)}, 'a.b', 2),
    (Outputs(x=[0, Outputs()]), 'x.1.maps.1', 2)])
def test_where_the_logits_are(value, output, wanted):
    assert len(pick(value, output)) == wanted


@pytest.mark.parametrize('value, output, message', [
    (dict(out=1, aux=2), None, r"expected a tensor of logits, got a dict with the keys \['out', 'aux'\]. Name one"),
    (dict(out=1), 'logits', r"the network returns a dict with the keys \['out'\], in which there is no 'logits'"),
    ((1, 2), 2, r'a tuple of 2, in which there is no 2. Give the index'), (torch.ones(2), 'out', 'Remove `output`'),
    (dict(out=1), 'out', r"expected a tensor of logits at 'out', got a int")], ids=str)
def test_where_no_logits_are(value, output, message):
    with pytest.raises(ValueError, match='`teacher.output`: .*' + message):
        pick(value, output)


@pytest.mark.parametrize('change, message', [
    (dict(build=None), r"`teacher.build`: expected 'package.module:name' or 'folder/file.py:name'"),
    (dict(build='nowhere.py:Net'), r'a file that does not exist'),
    (dict(build='no_such_package.a:Net'), r"does not import .* pip install 'no_such_package'"),
    (dict(build='{net}/net.py:Other'), r"has no 'Other'"),
    (dict(build='{net}/net.py:number'), r'nothing that can be called'),
    (dict(build='{net}/net.py:broken'), r'`teacher.build`: .* ended with TypeError'),
    (dict(build='{net}/net.py:broken', arguments=dict(colour='red')), r'ended with OSError: no red paint'),
    (dict(build='builtins:dict'), r'expected a callable that makes an nn.Module, .* returned a dict'),
    (dict(arguments=[1]), r'`teacher.arguments`: expected a dict'),
    (dict(output='logits'), r"in which there is no 'logits'. Name one of the keys"),
    (dict(output=1.5), r'`teacher.output`: expected a key'),
    (dict(build='{net}/net.py:vectors', output=None), r'expected maps of logits \(N, C, h, w\), got a tensor of shape '
                                                       r'\(1, 19\), and `distill.kd.on` reads logits'),
    (dict(mean=None), r'`teacher.mean`: expected one number for each channel'),
    (dict(std=[1., 0., 1.]), r'`teacher.std`: expected one number'),
    (dict(mean=[0.5], std=[0.5]), r'got 1 and 1, and the network takes images of 3'),
    (dict(mean=[123.675, 116.28, 103.53]), r'`teacher.mean`: .* lies above 255, where no image is'),
    (dict(scale=0), r'`teacher.scale`'), (dict(rgb='yes'), r'`teacher.rgb`'), (dict(size=640), r'`teacher.size`'),
    (dict(classes=['road']), r'`teacher.classes`: expected one name for each of the 19 channels'),
    (dict(classes='road'), r'`teacher.classes`: expected the names'),
    (dict(arguments=dict(classes=7)), r'`teacher.build`: .* the student has 19, the teacher 7'),
    (dict(checkpoint='nowhere.pth'), r'`teacher.checkpoint`: expected an existing'),
    (dict(config='x.py'), r"unknown setting \['config'\] of type='module'"),
    (dict(type='modul'), r"`teacher.type`: expected one of .* got 'modul'; did you mean 'module'"),
], ids=lambda value: None if isinstance(value, dict) else value[-25:])
def test_refused(net, change, message):
    change = {name: value.format(net=net) if isinstance(value, str) else value for name, value in change.items()}
    with pytest.raises(ValueError, match=message):
        build(with_teacher(module(net) | change))


class Evil:
    def __reduce__(self):
        return exec, ('raise AssertionError("the pickle ran code")', )


def test_its_checkpoint_is_read_without_code(net, tmp_path):
    torch.save(dict(state_dict={}, more=Evil()), tmp_path / 'evil.pth')
    with pytest.raises(ValueError, match='holds more than weights'):
        build(with_teacher(module(net, checkpoint=str(tmp_path / 'evil.pth'))))
    torch.save(dict(state_dict=nn.Conv2d(1, 1, 1).state_dict()), tmp_path / 'other.pth')
    with pytest.raises(ValueError, match='does not fit `teacher.build`: 4 of 4 keys are missing'):
        build(with_teacher(module(net, checkpoint=str(tmp_path / 'other.pth'))))


def test_other_numbers_of_channels_are_refused():
    """Of any kind of teacher, when it is built; black and white pictures have one."""
    grey, teacher = segmentor(), segmentor(16)
    grey['backbone']['in_channels'] = 1
    grey['data_preprocessor'] = preprocessor(mean=[120.], std=[60.], bgr_to_rgb=False)
    for student, other, numbers in ((grey, teacher, 'of 3 channels, the student of 1'),
                                    (teacher, grey, 'of 1 channels, the student of 3')):
        with pytest.raises(ValueError, match=f'`teacher.config`: the teacher takes images {numbers}.*in_channels'):
            build(distilled(student, other))
    model = build(distilled(grey, copy.deepcopy(grey)))
    raw = batch()
    raw['inputs'] = [image[:1] for image in raw['inputs']]
    assert losses_of(model, raw)[0]['distill.loss_dkd'].isfinite()


@pytest.mark.cls
def test_torchvision_teaches_through_the_command_line(mini_cityscapes, tmp_path):
    """Trains, looks at the teacher before, resumes exactly, and leaves a plain student's checkpoint."""
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large
    torch.manual_seed(1)
    network = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=19)
    torch.save(network.state_dict(), tmp_path / 'lraspp.pth')
    teacher = dict(type='module', build='torchvision.models.segmentation:lraspp_mobilenet_v3_large', output='out',
                   arguments=dict(weights=None, weights_backbone=None, num_classes=19), mean=MEAN, std=STD,
                   checkpoint=str(tmp_path / 'lraspp.pth'))
    config = run_config(with_teacher(teacher), mini_cityscapes, max_iters=4, teacher_check=dict(min_miou=0))
    config.default_hooks.checkpoint.interval = 2
    config.default_hooks.checkpoint.max_keep_ckpts = 3
    config.train_cfg.val_interval = 100
    config.dump(tmp_path / 'config.py')
    tool = ['tools/train.py', tmp_path / 'config.py', '--work-dir', tmp_path / 'whole']
    printed = command(*tool).stdout
    assert '`teacher` has' in printed and 'distill.loss_kd' in printed
    whole = torch.load(tmp_path / 'whole/iter_4.pth', weights_only=False)['state_dict']
    build(segmentor()).load_state_dict(whole, strict=True)
    (tmp_path / 'whole/iter_4.pth').unlink()
    (tmp_path / 'whole/last_checkpoint').write_text(str(tmp_path / 'whole/iter_2.pth'))
    command(*tool, '--resume')
    again = torch.load(tmp_path / 'whole/iter_4.pth', weights_only=False)['state_dict']
    assert all(torch.equal(value, again[name]) for name, value in whole.items())


@pytest.mark.smp
def test_segmentation_models_pytorch_teaches():
    teacher = dict(type='module', build='segmentation_models_pytorch:Unet', mean=MEAN, std=STD, arguments=dict(
        encoder_name='mobilenet_v2', encoder_weights=None, classes=19, encoder_depth=3, decoder_channels=(16, 8, 8)))
    at = dict(loss=dict(type='mmseg_kd.AttentionTransferLoss'), on=('backbone.layer3', 'encoder.features.3'))
    losses, _ = losses_of(build(with_teacher(teacher, at=at, kd=dict(loss=dict(type='mmseg_kd.KDLoss')))), batch())
    assert losses['distill.loss_kd'].item() > 0 and losses['distill.loss_at'].item() > 0

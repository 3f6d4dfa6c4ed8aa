"""teacher=dict(type='timm'): networks of timm, with random weights."""
import copy

import pytest
import torch
from tiny import batch, build, distilled, segmentor
from torch import nn

pytestmark = pytest.mark.timm
AT = dict(loss=dict(type='mmseg_kd.AttentionTransferLoss', ignore_index=None))


def with_teacher(on, term=None, **settings):
    term = copy.deepcopy(term or AT) | dict(on=on)
    return distilled(segmentor(dropout_ratio=0.), segmentor(16), distill=dict(x=term)) | dict(
        teacher=dict(type='timm', **settings))


def losses_of(config):
    model = build(config)
    raw = batch(height=64, width=96)
    data = model.data_preprocessor(copy.deepcopy(raw), True)
    return model, raw, model.train().loss(data['inputs'], data['data_samples'])


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    """A convolutional network and a vision transformer that takes no sizes but its own unless it is told to."""
    import timm
    folder = tmp_path_factory.mktemp('timm')
    for name in ('test_resnet', 'test_vit'):
        torch.manual_seed(1)
        torch.save(timm.create_model(name).state_dict(), folder / f'{name}.pth')
    return folder


@pytest.mark.parametrize('name, index, channels', [('test_resnet', 3, 192), ('test_vit', 5, 64)])
def test_maps_by_their_index(saved, name, index, channels):
    """The maps that the loss sees are those of the network itself on pictures normalised as timm says."""
    import timm
    term = dict(loss=dict(type='mmseg_kd.FeatureMSELoss'), adapter=dict(kind='linear'))
    model, raw, losses = losses_of(with_teacher(('backbone.layer4', f'features[{index}]'), term, model=name,
                                                checkpoint=str(saved / f'{name}.pth')))
    assert losses['distill.loss_x'].item() > 0
    assert model.terms['x'].adapters[0][0].weight.shape[0] == channels
    more = dict(dynamic_img_size=True) if name == 'test_vit' else {}
    own = timm.create_model(name, **more).eval()
    own.load_state_dict(torch.load(saved / f'{name}.pth'))
    images = ((torch.stack(raw['inputs']).flip(1) / 255. - 0.5) / 0.5)
    with torch.no_grad():
        wanted = own.forward_intermediates(images, intermediates_only=True)[index]
        data = model.data_preprocessor(copy.deepcopy(raw), True)
        got = model.teacher(data['inputs'], data['data_samples'], {f'features[{index}]'})['features'][index]
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)
    assert not set(model.state_dict()) - set(build(segmentor()).state_dict())


def test_without_a_classifier_and_of_one_size(monkeypatch):
    bare = dict(model='test_vit', arguments=dict(num_classes=0, dynamic_img_size=False, img_size=64))
    model, _, losses = losses_of(with_teacher(('backbone.layer4', 'features[0]'), **bare))
    assert losses['distill.loss_x'].item() > 0 and model.teacher.has_weights is False
    with pytest.raises(ValueError, match='`distill.x.on` reads logits'):
        build(with_teacher('logits', dict(loss=dict(type='mmseg_kd.KDLoss')), **bare))


@pytest.mark.parametrize('settings, message', [
    (dict(model='resnet5'), r"`teacher.model`: timm has no model 'resnet5'. Near it are \['resnet50"),
    (dict(model=None), r'`teacher.model`: timm has no model None'),
    (dict(model='test_vit', arguments=dict(colour=1)), r'`teacher.arguments`: .* TypeError'),
    (dict(model='test_vit', checkpoint='nowhere.pth'), '`teacher.checkpoint`: expected an existing'),
    (dict(model='test_vit', config='x'), r"unknown setting \['config'\] of type='timm'")], ids=str)
def test_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        build(with_teacher(('backbone.layer4', 'features[0]'), **settings))


def test_weights_of_another_network(saved):
    with pytest.raises(ValueError, match='`teacher.checkpoint`: .* does not fit `teacher.model`'):
        build(with_teacher(('backbone.layer4', 'features[0]'), model='test_vit',
                           checkpoint=str(saved / 'test_resnet.pth')))


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'timm', None)
    with pytest.raises(ImportError, match=r"type='timm' needs the extra \"timm\".*pip install 'mmseg_kd\[timm\]'"):
        build(with_teacher(('backbone.layer4', 'features[0]'), model='test_vit'))


@pytest.mark.cls
def test_a_classifier_teaches_a_classifier():
    from tiny_cls import classifier, image_batch
    student = classifier()
    config = copy.deepcopy(student) | dict(
        type='mmseg_kd.DistilledImageClassifier', distill=dict(kd=dict(loss=dict(type='mmseg_kd.KDLoss'))),
        teacher=dict(type='timm', model='test_resnet', arguments=dict(num_classes=student['head']['num_classes'])))
    model = build(config, scope='mmpretrain')
    data = model.data_preprocessor(image_batch(), True)
    assert model.loss(data['inputs'], data['data_samples'])['distill.loss_kd'].item() > 0
    assert isinstance(model.teacher.model, nn.Module)

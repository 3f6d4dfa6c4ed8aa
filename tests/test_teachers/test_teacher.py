"""Teachers that a config can name, and those that are refused."""
import functools
import http.server
import threading
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from tiny import batch, build, build_part, distilled, preprocessor, segmentor

from mmseg_kd.config import read_config, student_config
from mmseg_kd.teachers.normalization import Renormalize, swaps_channels
from mmseg_kd.teachers.weights import read_weights

PSPNET = 'mmseg::pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py'


@pytest.fixture(scope='module')
def teacher_weights():
    return build(segmentor(16, 'PSPHead'), seed=5).state_dict()


def with_teacher(**settings):
    return distilled(segmentor(), segmentor(16, 'PSPHead')) | dict(teacher=settings)


def same(model, weights):
    return all(torch.equal(value, weights[name]) for name, value in model.teacher.model.state_dict().items())


@pytest.mark.parametrize('wrap', [
    lambda state: dict(state_dict=state, meta=dict(epoch=1)), lambda state: state,
    lambda state: dict(state_dict={f'module.{name}': value for name, value in state.items()})],
    ids=['state_dict', 'bare', 'module.'])
def test_checkpoint_file_reaches_the_teacher(tmp_path, teacher_weights, wrap):
    torch.save(wrap(teacher_weights), tmp_path / 'teacher.pth')
    model = build(distilled(segmentor(), segmentor(16, 'PSPHead'), tmp_path / 'teacher.pth'))
    assert same(model, teacher_weights)


def test_checkpoint_url_reaches_the_teacher(tmp_path, teacher_weights, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    torch.save(teacher_weights, tmp_path / 'teacher.pth')
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f'http://127.0.0.1:{server.server_port}/teacher.pth'
        model = build(distilled(segmentor(), segmentor(16, 'PSPHead'), url))
        server.shutdown()
    assert same(model, teacher_weights)


@pytest.mark.parametrize('kind', ['path', 'dict', 'Config'])
def test_config_from_anywhere(tmp_path, kind):
    config = Config(dict(model=segmentor(16, 'PSPHead'), default_scope='mmseg'))
    config.dump(tmp_path / 'teacher.py')
    given = dict(path=str(tmp_path / 'teacher.py'), dict=config.to_dict(), Config=config)[kind]
    model = build(with_teacher(config=given))
    assert type(model.teacher.model.decode_head).__name__ == 'PSPHead'


def test_config_by_mmseg_name():
    """Beside the distribution onedl-mmsegmentation, and without pip being called."""
    model = build(with_teacher(config=PSPNET))
    assert model.teacher.model.backbone.depth == 18


def test_mmseg_name_as_base_of_a_config(tmp_path):
    (tmp_path / 'student.py').write_text(f"""
_base_ = ['{PSPNET}']
custom_imports = dict(imports=['mmseg_kd'])
model = dict(
    type='mmseg_kd.DistilledEncoderDecoder',
    teacher=dict(config='{PSPNET}'),
    distill=dict(dkd=dict(loss=dict(type='mmseg_kd.DKDLoss', alpha=1., beta=8., temperature=4.))))
""")
    config = Config.fromfile(tmp_path / 'student.py')
    config.model.data_preprocessor.size = (32, 64)
    for part in ('decode_head', 'auxiliary_head'):
        config.model[part].norm_cfg = dict(type='BN')
    config.model.backbone.norm_cfg = dict(type='BN')
    config.model.pretrained = None
    model = build(config.model).train()
    data = model.data_preprocessor(batch(), True)
    losses = model.loss(data['inputs'], data['data_samples'])
    assert {'decode.loss_ce', 'aux.loss_ce', 'distill.loss_dkd'} <= set(losses)


def test_a_distilled_config_can_be_a_teacher():
    """Its student teaches; the teacher's teacher is not built."""
    model = build(with_teacher(config=dict(model=distilled(segmentor(16, 'PSPHead'), segmentor(32)))))
    assert type(model.teacher.model).__name__ == 'EncoderDecoder'


def test_no_checkpoint_is_said(monkeypatch):
    said = []
    monkeypatch.setattr('mmseg_kd.teachers.openmmlab.print_log', lambda message, **_: said.append(message))
    build(with_teacher(config=dict(model=segmentor(16))))
    assert len(said) == 1 and 'RANDOM weights' in said[0]


def test_student_config_of_a_distilled_one_is_the_plain_one():
    assert student_config(distilled(segmentor(), segmentor(16))) == segmentor()
    assert student_config(segmentor()) == segmentor()


def checkpoint_of(tmp_path, state):
    torch.save(state, tmp_path / 'some.pth')
    return str(tmp_path / 'some.pth')


@pytest.mark.parametrize('settings, message', [
    (dict(), r'`teacher`: expected dict\(config='),
    (dict(config=dict(model=segmentor(16)), ckpt='x.pth'), r"unknown setting \['ckpt'\]"),
    (dict(config='nowhere.py'), r'`teacher.config`: expected an existing config file'),
    (dict(config='mmseg::pspnet/none.py'), r'`teacher.config`: mmseg ships no config'),
    (dict(config='mmnothing::a/b.py'), r"package 'mmnothing', which is not installed"),
    (dict(config=dict(backbone=1)), r'expected a config with the key `model`'),
    (dict(config=3), r'`teacher.config`: expected a path'),
    (dict(config=dict(model=segmentor(16)), checkpoint='nowhere.pth'), r'`teacher.checkpoint`: expected an existing'),
    (dict(config=dict(model=segmentor(16, num_classes=7))), r'the student has 19, the teacher 7'),
], ids=lambda value: None if isinstance(value, dict) else value[:30])
def test_refused_teachers(settings, message):
    with pytest.raises(ValueError, match=message):
        build(with_teacher(**settings))


def test_checkpoint_of_another_network_is_refused(tmp_path, teacher_weights):
    path = checkpoint_of(tmp_path, {name: value for name, value in teacher_weights.items() if 'layer4' not in name})
    with pytest.raises(ValueError, match=r'`teacher.checkpoint`: .* keys are missing \(backbone.layer4'):
        build(distilled(segmentor(), segmentor(16, 'PSPHead'), path))


def test_checkpoint_of_another_width_is_refused(tmp_path, teacher_weights):
    path = checkpoint_of(tmp_path, teacher_weights)
    with pytest.raises(ValueError, match=r'have another shape \(backbone.stem.0.weight: checkpoint \(8, 3, 3, 3\), '
                                         r'model'):
        build(distilled(segmentor(), segmentor(32, 'PSPHead'), path))


def test_truncated_checkpoint_is_refused(tmp_path, teacher_weights):
    path = checkpoint_of(tmp_path, teacher_weights)
    content = open(path, 'rb').read()
    open(path, 'wb').write(content[:len(content) // 2])
    with pytest.raises(ValueError, match='`teacher.checkpoint`'):
        read_weights(path)


class Evil:
    def __reduce__(self):
        return exec, ('raise AssertionError("the pickle ran code")',)


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    with pytest.raises(ValueError, match='holds more than weights'):
        read_weights(checkpoint_of(tmp_path, dict(state_dict={}, more=Evil())))


class Stealthy:
    """Reaches for os.system through getattr, which mmengine's own reader allows."""

    def __reduce__(self):
        import os
        return getattr, (os, 'system')


def test_getattr_in_a_pickle_reaches_nothing(tmp_path):
    with pytest.raises((ValueError, TypeError)):
        torch.save(dict(state_dict=dict(a=torch.zeros(1)), more=Stealthy()), tmp_path / 'x.pth')
        read_weights(str(tmp_path / 'x.pth'))


@pytest.mark.parametrize('on, message', [
    ('backbone.layer9', r"`distill.x.on`: the student has nothing to read at 'backbone.layer9'.*backbone.layer"),
    (('logits', 'neck'), r"the teacher has nothing to read at 'neck'"),
    (('a', 'b', 'c'), r'`distill.x.on`: expected'),
    (4, r'`distill.x.on`: expected'),
])
def test_refused_taps(on, message):
    term = dict(x=dict(loss=dict(type='mmseg_kd.KDLoss'), on=on))
    with pytest.raises(ValueError, match=message):
        build(distilled(segmentor(), segmentor(16), distill=term))


@pytest.mark.parametrize('distill, message', [
    ({'a.b': dict(loss=dict(type='mmseg_kd.KDLoss'))}, r'letters, digits'),
    (dict(x=dict(type='mmseg_kd.KDLoss')), r'`distill.x`: expected dict\(loss='),
    (dict(x=dict(loss=dict(type='mmseg_kd.KDLoss'), temperature=4.)), r"`distill.x`: unknown setting "
                                                                      r"\['temperature'\]"),
    (dict(x=dict(loss=dict(type='mmseg_kd.KDLoss', loss_weight=-1.))), r'`distill.x.loss.loss_weight`'),
    ([1], r'`distill`: expected dict'),
])
def test_refused_terms(distill, message):
    with pytest.raises(ValueError, match=message):
        build(distilled(segmentor(), segmentor(16), distill=distill))


def test_a_head_itself_cannot_be_tapped():
    model = build(distilled(segmentor(), segmentor(16), distill=dict(
        x=dict(loss=dict(type='mmseg_kd.KDLoss'), on=('logits', 'decode_head')))))
    data = model.data_preprocessor(batch(), True)
    with pytest.raises(ValueError, match="module 'decode_head' of the teacher exists but was not called"):
        model.loss(data['inputs'], data['data_samples'])


@pytest.mark.parametrize('theirs', [
    dict(mean=[127.5] * 3, std=[127.5] * 3), dict(bgr_to_rgb=False),
    dict(mean=[1., 2., 3.], std=[4., 5., 6.], bgr_to_rgb=False), dict(pad_val=7, mean=[0.] * 3), dict(pad_val=7),
    dict(mean=None, std=None), dict(mean=None, std=None, bgr_to_rgb=False)],
    ids=['constants', 'channels', 'both', 'padding', 'padding alone', 'raw pixels', 'raw pixels of other channels'])
def test_teacher_sees_what_its_own_preprocessor_makes(theirs):
    ours, own = (build_part(preprocessor(size=(40, 72), **settings)) for settings in (dict(), theirs))
    got = ours(batch(), True)
    wanted = own(batch(), True)['inputs']
    renormalize = Renormalize(ours, own)
    assert not renormalize.is_identity
    before = got['inputs'].clone()
    torch.testing.assert_close(renormalize(got['inputs'], got['data_samples']), wanted, rtol=1e-5, atol=1e-4)
    assert torch.equal(got['inputs'], before)  # the student's stay as they are


def test_padding_at_test_time_is_the_teachers():
    """mmseg notes it under another name there."""
    settings = dict(test_cfg=dict(size_divisor=24))
    ours = build_part(preprocessor(**settings))
    own = build_part(preprocessor(mean=[1., 2., 3.], pad_val=9., **settings))
    got, wanted = ours(batch(), False), own(batch(), False)['inputs']
    assert wanted.shape[2:] == (48, 72) and (wanted[:, :, 32:] == 9.).all()
    found = Renormalize(ours, own)(got['inputs'], got['data_samples'])
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize('name', ['_channel_conversion', 'channel_conversion', 'to_rgb'])
def test_swapped_channels_are_seen_in_every_librarys_preprocessor(name):
    """mmengine's, mmsegmentation 1.2's and mmpretrain's name for it."""
    assert swaps_channels(SimpleNamespace(**{name: True})) is True
    assert swaps_channels(SimpleNamespace(**{name: False})) is False and swaps_channels(SimpleNamespace()) is False


def test_equal_preprocessors_share_the_images():
    first, second = (build_part(preprocessor()) for _ in range(2))
    inputs = torch.rand(1, 3, 32, 64)
    assert Renormalize(first, second)(inputs) is inputs


def test_read_config_leaves_its_argument_alone():
    given = dict(model=segmentor())
    read_config(given).model.type = 'Other'
    assert given['model']['type'] == 'EncoderDecoder'

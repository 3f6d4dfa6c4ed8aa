"""teacher=dict(type='exported'): files of torch.export, TorchScript and ONNX."""
import copy

import pytest
import torch
from tiny import batch, build, distilled, segmentor
from torch import nn

FORMAT = dict(mean=[0.5] * 3, std=[0.25] * 3)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 19, 3, 2, 1)

    def forward(self, images):
        return self.conv(images)


def net():
    torch.manual_seed(4)
    return Net().eval()


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp('exported')
    torch.jit.script(net()).save(str(folder / 'script.pt'))
    sides = {2: torch.export.Dim('height', min=16), 3: torch.export.Dim('width', min=16)}
    torch.export.save(torch.export.export(net(), (torch.zeros(2, 3, 32, 48), ), dynamic_shapes=(
        {0: torch.export.Dim('batch'), **sides}, )), folder / 'any.pt2')
    torch.export.save(torch.export.export(net(), (torch.zeros(3, 3, 32, 48), )), folder / 'fixed.pt2')
    torch.save(net().state_dict(), folder / 'weights.pth')
    return folder


def onnx_file(path, shape):
    """The same convolution, written by hand."""
    onnx = pytest.importorskip('onnx')
    tensors = [onnx.numpy_helper.from_array(value.detach().numpy(), name)
               for name, value in net().conv.named_parameters()]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node('Conv', ['images', 'weight', 'bias'], ['map'], kernel_shape=[3, 3], strides=[2, 2],
                               pads=[1, 1, 1, 1]), onnx.helper.make_node('Identity', ['map'], ['again'])], 'net',
        [onnx.helper.make_tensor_value_info('images', onnx.TensorProto.FLOAT, shape)],
        [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in ('map', 'again')], tensors)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid('', 17)], ir_version=9)
    onnx.save(model, path)
    return path


def with_teacher(file, **settings):
    return distilled(segmentor(dropout_ratio=0.), segmentor(16), distill=dict(kd=dict(
        loss=dict(type='mmseg_kd.KDLoss')))) | dict(teacher=dict(type='exported', file=str(file), **FORMAT, **settings))


def check(config, size=None):
    """Its logits are those of the network itself; a step trains; two passes over the images give the same."""
    model = build(config)
    raw = batch(4)
    data = model.data_preprocessor(copy.deepcopy(raw), True)
    images = (torch.stack(raw['inputs']).flip(1) / 255. - 0.5) / 0.25
    if size:
        images = nn.functional.interpolate(images, size, mode='bilinear')
    got = model.teacher(data['inputs'], data['data_samples'], {'logits'})['logits']
    assert got.size == (32, 64)
    torch.testing.assert_close(got.logits, net()(images).detach(), rtol=1e-4, atol=1e-4)
    losses = model.train().loss(data['inputs'], data['data_samples'])
    losses['distill.loss_kd'].backward()
    assert losses['distill.loss_kd'].item() > 0
    # A copy that is converted leaves the original's teacher as it is.
    before = {name: value.dtype for name, value in model.teacher.model.state_dict().items()}
    copy.deepcopy(model).to(torch.float64)
    assert {name: value.dtype for name, value in model.teacher.model.state_dict().items()} == before


@pytest.mark.parametrize('name, size', [('script.pt', None), ('any.pt2', None), ('fixed.pt2', (32, 48))])
def test_programs_teach_where_they_are_trusted(files, name, size):
    """Also one of three images of one size only, for four of another."""
    check(with_teacher(files / name, trusted=True), size)
    with pytest.raises(ValueError, match='`teacher.file`: .* is a program, .* trusted=True'):
        build(with_teacher(files / name))


@pytest.mark.export
@pytest.mark.parametrize('shape, size', [(['n', 3, 'h', 'w'], None), ([1, 3, 40, 24], (40, 24))])
def test_onnx_teaches(tmp_path, shape, size):
    path = onnx_file(tmp_path / 'net.onnx', shape)
    check(with_teacher(path, output='map'), size)
    with pytest.raises(ValueError, match=r"keys \['map', 'again'\]. Name one of the keys., and `distill.kd.on`"):
        build(with_teacher(path))


@pytest.mark.parametrize('name, message', [
    ('gone.onnx', 'expected an existing file'), ('weights.pth', 'is not a file of torch.export, .* Weights alone'),
    ('page.pt', 'is not a file of torch.export')])
def test_refused_files(files, name, message):
    (files / 'page.pt').write_text('<!DOCTYPE html>')
    with pytest.raises(ValueError, match=f'`teacher.file`: .*{message}'):
        build(with_teacher(files / name, trusted=True))


@pytest.mark.export
def test_refused_onnx(files):
    (files / 'page.onnx').write_text('<!DOCTYPE html>')
    with pytest.raises(ValueError, match='`teacher.file`: .* could not be loaded'):
        build(with_teacher(files / 'page.onnx'))


@pytest.mark.parametrize('settings, message', [
    (dict(dtype='bf16'), r"unknown setting \['dtype'\] of type='exported'"),
    (dict(sha256='0' * 64), 'has the SHA-256'), (dict(output='out'), 'there is no .out.'),
    (dict(classes=['road']), 'expected one name for each of the 19')])
def test_refused_settings(files, settings, message):
    with pytest.raises(ValueError, match=message):
        build(with_teacher(files / 'script.pt', trusted=True, **settings))


def test_it_has_no_modules_to_read(files):
    config = with_teacher(files / 'any.pt2', trusted=True)
    config['distill'] = dict(x=dict(loss=dict(type='mmseg_kd.AttentionTransferLoss'), on=('backbone.layer4', 'conv')))
    with pytest.raises(ValueError, match="the teacher has nothing to read at 'conv'"):
        build(config)

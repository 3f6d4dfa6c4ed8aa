"""TorchScript, torch.export and ONNX: each run by its own runtime, against plain mmseg."""
import json

import numpy as np
import pytest
import torch
from mmseg.models import FCNHead
from mmseg.registry import MODELS
from tiny import build, cascade, distilled, segmentor

from mmseg_kd.export import export_student, formats
from mmseg_kd.export.differences import difference
from mmseg_kd.export.pooling import DynamicAdaptiveAvgPool2d

MEAN, STD = ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])


def expected_logits(model, batch):
    """Logits of RGB pictures (N, 3, H, W), 0 to 255, by plain mmseg in float64."""
    mean, std = (torch.tensor(values, dtype=torch.float64).view(1, 3, 1, 1) for values in (MEAN, STD))
    size = batch.shape[2:]
    with torch.no_grad():
        return model.double().encode_decode(
            (batch.double() - mean) / std, [dict(img_shape=size, pad_shape=size, ori_shape=size)]).numpy()


def run_file(out, name, batch):
    """Run an exported file by the runtime that it is for."""
    if name == 'onnx':
        import onnxruntime
        session = onnxruntime.InferenceSession(str(out / 'student.onnx'), providers=['CPUExecutionProvider'])
        return session.run(['logits'], dict(image=batch.numpy()))[0]
    if name == 'torchscript':
        return torch.jit.load(str(out / 'student.torchscript.pt'))(batch).numpy()
    return torch.export.load(str(out / 'student.pt2')).module()(batch).numpy()


def notes(out, name):
    """What the file says of itself."""
    if name == 'onnx':
        import onnx
        properties = onnx.load(str(out / 'student.onnx')).metadata_props
        return {item.key: json.loads(item.value) for item in properties}
    extra = {'notes.json': ''}
    if name == 'torchscript':
        torch.jit.load(str(out / 'student.torchscript.pt'), _extra_files=extra)
    else:
        torch.export.load(str(out / 'student.pt2'), extra_files=extra)
    return json.loads(extra['notes.json'])


NAMES = [pytest.param('onnx', marks=pytest.mark.export), 'torchscript', 'export']


@pytest.mark.parametrize('name', NAMES)
def test_a_distilled_student_at_any_size(config, trained, student, rgb, tmp_path, name):
    if name == 'onnx':
        pytest.importorskip('onnxruntime', reason='needs the extra "export": bash tools/test.sh --all')
    report = export_student(config, str(trained[1]), tmp_path / 'out', [name], repetitions=1)
    assert report['forms'][name]['dynamic'] == ['batch', 'height', 'width']
    # Three pictures of a size that the export has not seen.
    batch = torch.stack([rgb, rgb.flip(2), rgb * 0.5])
    np.testing.assert_allclose(run_file(tmp_path / 'out', name, batch), expected_logits(student, batch), atol=1e-4)
    said = notes(tmp_path / 'out', name)
    assert said['classes'][:2] == ['road', 'sidewalk'] and said['palette'][0] == [128, 64, 128]
    np.testing.assert_allclose(said['mean'], MEAN, rtol=1e-6)
    assert 'RGB, 0 to 255' in said['input']


def test_a_cascade(save_random, rgb, tmp_path):
    model = distilled(cascade(), segmentor(16)) | dict(type='mmseg_kd.DistilledCascadeEncoderDecoder')
    config, _ = save_random(cascade())
    config.model = model
    plain = build(cascade()).eval()
    torch.save(plain.state_dict(), tmp_path / 'weights.pth')
    export_student(config, str(tmp_path / 'weights.pth'), tmp_path / 'out', ['torchscript'], repetitions=1)
    found = run_file(tmp_path / 'out', 'torchscript', rgb[None])
    np.testing.assert_allclose(found, expected_logits(plain, rgb[None]), atol=1e-4)


def test_a_model_that_wants_bgr(save_random, rgb, tmp_path):
    model = segmentor()
    model['data_preprocessor'] |= dict(bgr_to_rgb=False)
    config, checkpoint = save_random(model)
    export_student(config, checkpoint, tmp_path / 'out', ['torchscript'], repetitions=1)
    plain = build(model).eval()
    plain.load_state_dict(torch.load(checkpoint)['state_dict'])
    found = run_file(tmp_path / 'out', 'torchscript', rgb[None])
    # Mean and std belong to the channels as the model sees them.
    np.testing.assert_allclose(found, expected_logits(plain, rgb[None].flip(1)), atol=1e-4)


@MODELS.register_module()
class PositionHead(FCNHead):
    """Adds what it has learnt of each position of one size of map."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.positions = torch.nn.Parameter(torch.zeros(1, 19, 4, 8))

    def forward(self, inputs):
        return super().forward(inputs) + self.positions


@MODELS.register_module()
class TwoFacedHead(FCNHead):
    """Computes something else while it is exported."""

    def forward(self, inputs):
        logits = super().forward(inputs)
        return logits * 1.5 if torch.jit.is_tracing() else logits


@MODELS.register_module()
class ForgetfulHead(FCNHead):
    """Depends on numbers that are in no checkpoint."""

    def forward(self, inputs):
        if not hasattr(self, 'unsaved'):
            self.unsaved = torch.rand(1)
        return super().forward(inputs) + self.unsaved * torch.arange(19).view(1, 19, 1, 1)


def with_head(name):
    model = segmentor()
    model['decode_head'] |= dict(type=name)
    return model


@pytest.mark.parametrize('name', ['torchscript', 'export'])
def test_a_model_of_one_size_is_exported_for_it_and_the_report_says_so(save_random, tmp_path, name):
    config, checkpoint = save_random(with_head('PositionHead'))
    form = export_student(config, checkpoint, tmp_path / 'out', [name], repetitions=1)['forms'][name]
    assert form['dynamic'] == ['batch']
    assert [attempt['dynamic'] for attempt in form['refused']] == [['batch', 'height', 'width']]


@pytest.mark.parametrize('head, wanted, reason', [
    ('TwoFacedHead', ['torchscript'], r'`torchscript`: no form of it .* is \d.*, \d.* of the largest value'),
    ('ForgetfulHead', [], r'the plain form computes other outputs .* is \d.*, \d.* of the largest value'),
])
def test_an_export_that_differs_is_not_left(save_random, tmp_path, head, wanted, reason):
    config, checkpoint = save_random(with_head(head))
    (tmp_path / 'exports').mkdir()
    with pytest.raises(ValueError, match=reason):
        export_student(config, checkpoint, tmp_path / 'exports/out', wanted, repetitions=1)
    assert not list((tmp_path / 'exports').iterdir())


def test_windows_that_slide_are_told_of(save_random, pictures, tmp_path):
    model = segmentor() | dict(test_cfg=dict(mode='slide', crop_size=(32, 32), stride=(16, 16)))
    config, checkpoint = save_random(model)
    report = export_student(config, checkpoint, tmp_path / 'out', images=pictures[:1], repetitions=1)
    assert 'crop_size (32, 32), stride (16, 16)' in report['student']['windows']


def test_missing_packages_are_named_with_the_command(config, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(formats, 'find_spec', lambda name: None if name == 'onnxruntime' else True)
    with pytest.raises(ImportError, match=r"onnxruntime is not installed: pip install 'mmseg_kd\[export\]'"):
        export_student(config, str(trained[1]), tmp_path / 'out', ['onnx'])


@pytest.mark.parametrize('bins', [(1, 1), (2, 3), (3, 6), (6, 5)])
@pytest.mark.parametrize('size', [(6, 6), (7, 13), (16, 5), (3, 2)])
def test_pooling_is_torchs(size, bins):
    maps = torch.randn(2, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    pool = torch.nn.AdaptiveAvgPool2d(bins)
    torch.testing.assert_close(DynamicAdaptiveAvgPool2d.of(pool)(maps), pool(maps))
    keeps = torch.nn.AdaptiveAvgPool2d((None, 2))
    assert DynamicAdaptiveAvgPool2d.of(keeps) is keeps


def test_a_difference_is_that_of_numpy_and_nan_is_one():
    generator = np.random.default_rng(0)
    expected, found = generator.normal(size=(2, 2, 5, 4, 3))
    report = difference([(torch.from_numpy(expected), torch.from_numpy(found))])
    assert report['largest'] == pytest.approx(np.abs(expected - found).max())
    assert report['relative'] == pytest.approx(np.abs(expected - found).max() / np.abs(expected).max())
    assert report['other_class'] == pytest.approx((expected.argmax(1) != found.argmax(1)).mean())
    found[0, 0, 0, 0] = np.nan
    assert difference([(torch.from_numpy(expected), torch.from_numpy(found))])['largest'] == float('inf')
    assert difference([(torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 5))])['largest'] == float('inf')

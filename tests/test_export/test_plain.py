"""The plain form: what a machine without mmseg_kd loads."""
import copy
import json

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmseg.datasets import CityscapesDataset
from tiny import command

from mmseg_kd.export import export_student
from mmseg_kd.export.plain import plain_config

WITHOUT_US = '''
import json, sys
sys.modules['mmseg_kd'] = None  # every import of it fails
import numpy as np
from mmseg.apis import inference_model, init_model
folder, picture = sys.argv[1:]
model = init_model(folder + '/config.py', folder + '/weights.pth', device='cpu')
result = inference_model(model, picture)
np.save(folder + '/logits.npy', result.seg_logits.data.numpy())
print(json.dumps([type(model).__name__, model.dataset_meta]))
'''


@pytest.fixture(scope='module')
def exported(trained, tmp_path_factory):
    """The tool as a user types it: (folder, output)."""
    out = tmp_path_factory.mktemp('exported') / 'student'
    output = command('tools/export_student.py', *trained, '--out', out, '--torchscript', '--repetitions', 3).stdout
    return out, output


def test_mmseg_loads_it_where_importing_mmseg_kd_is_impossible(exported, student, pictures):
    out, _ = exported
    output = command('-c', WITHOUT_US, out, pictures[0]).stdout
    kind, meta = json.loads(output.strip().splitlines()[-1])
    assert kind == 'EncoderDecoder'
    assert meta['classes'] == list(CityscapesDataset.METAINFO['classes'])
    assert meta['palette'] == CityscapesDataset.METAINFO['palette']
    assert not any(word in output for word in ('missing keys', 'unexpected', 'size mismatch'))
    # Expected: the same weights in the plain student of the tests, and the formula of the normalisation.
    picture = torch.from_numpy(cv2.imread(pictures[0])[..., ::-1].copy()).permute(2, 0, 1)[None].double()
    mean, std = (torch.tensor(values, dtype=torch.float64).view(1, 3, 1, 1)
                 for values in ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375]))
    with torch.no_grad():
        size = picture.shape[2:]
        expected = copy.deepcopy(student).double().encode_decode(
            (picture - mean) / std, [dict(img_shape=size, pad_shape=size, ori_shape=size)])
    np.testing.assert_allclose(np.load(out / 'logits.npy'), expected[0].numpy(), atol=1e-4)


def test_the_files_know_nothing_of_distillation(exported, trained):
    out, output = exported
    text = (out / 'config.py').read_text()
    assert not any(word in text for word in ('mmseg_kd', 'teacher', 'distill', 'dual_head', 'upsample_in_loss'))
    config = Config.fromfile(out / 'config.py', import_custom_modules=False)
    assert config.test_pipeline and 'optim_wrapper' not in config and 'train_dataloader' not in config
    weights = torch.load(out / 'weights.pth', weights_only=True)
    # The run's checkpoint also holds the optimizer, the teacher's name and the auxiliary classifier.
    assert weights['state_dict'].keys() == torch.load(trained[1], weights_only=False)['state_dict'].keys()
    assert set(weights) == {'meta', 'state_dict'}
    assert '| plain | weights.pth |' in output and '| torchscript |' in output


def test_the_report_has_sizes_differences_and_times(exported):
    out, _ = exported
    report = json.loads((out / 'export.json').read_text())
    assert report['forms']['plain']['differences'][0]['largest'] == 0
    for form in report['forms'].values():
        assert form['bytes'] == (out / form['file']).stat().st_size and form['milliseconds'] > 0
    assert report['student']['classes'] == list(CityscapesDataset.METAINFO['classes'])
    assert report['timed']['repetitions'] == 3 and report['checked_on']['size'] == [32, 64]


def test_a_plain_config_of_mmseg_stays_one(config):
    plain = plain_config(config)
    again = plain_config(plain)
    assert again.to_dict() == plain.to_dict()
    # Imports of others stay, ours go.
    config.custom_imports = dict(imports=['mmseg_kd', 'cv2'])
    config.default_hooks.checkpoint = dict(type='mmseg_kd.SafeCheckpointHook')
    plain = plain_config(config)
    assert plain.custom_imports == dict(imports=['cv2']) and 'checkpoint' not in plain.default_hooks


def test_a_student_built_of_our_own_parts_has_no_plain_form(config, trained, tmp_path):
    config.model.backbone.type = 'mmseg_kd.MobileNetV1'
    with pytest.raises(ValueError, match="model.backbone.type='mmseg_kd.MobileNetV1'.*--no-plain"):
        export_student(config, str(trained[1]), tmp_path / 'out')


@pytest.mark.parametrize('change, reason', [
    (dict(model=dict(backbone=dict(base_channels=16))), r'does not fit `config`: .* [1-9]\d* have another shape'),
    (dict(model=dict(auxiliary_head=dict(
        type='FCNHead', in_channels=32, in_index=2, channels=8, num_convs=1, num_classes=19))),
     # Weight and bias of conv_seg, of one convolution, and of the one after the concatenation.
     'does not fit `config`: 6 of .* keys are missing'),
    (dict(val_dataloader=dict(dataset=dict(data_root='gone'))), '`images`: the validation data .*--images'),
    (dict(default_scope='mmdet'), "`config`: expected a model of mmseg or mmpretrain, got .*'mmdet'"),
])
def test_what_does_not_fit_is_refused_and_nothing_is_left(config, trained, tmp_path, change, reason):
    config.merge_from_dict(change)
    with pytest.raises(ValueError, match=reason):
        export_student(config, str(trained[1]), tmp_path / 'out')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('settings, reason', [
    (dict(checkpoint='gone.pth'), '`checkpoint`: expected an existing checkpoint file'),
    (dict(images=['gone.png']), '`images`: expected an existing picture file'),
    (dict(formats=['tflite']), r"`formats`: expected some of \['export', 'onnx', 'torchscript'\]"),
    (dict(plain=False), '`formats`: nothing is left to export'),
    (dict(pictures=0), '`pictures`: expected at least 1'), (dict(repetitions=0), '`repetitions`: expected at least 1'),
])
def test_settings_that_are_wrong(config, trained, tmp_path, settings, reason):
    with pytest.raises(ValueError, match=reason):
        export_student(config, **dict(checkpoint=str(trained[1]), out=tmp_path / 'out') | settings)
    assert not list(tmp_path.iterdir())


def test_a_folder_with_something_in_it_is_not_touched(config, trained, tmp_path):
    (tmp_path / 'mine').write_text('mine')
    with pytest.raises(ValueError, match='`out`: expected a folder that does not exist or is empty'):
        export_student(config, str(trained[1]), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ['mine']

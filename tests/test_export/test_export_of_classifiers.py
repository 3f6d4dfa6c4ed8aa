"""The export of a distilled image classifier, against plain mmpretrain."""
import json

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from tiny import command
from tiny_cls import build_classifier, classifier, distilled_classifier

from mmseg_kd.export import export_student

pytestmark = pytest.mark.cls
# A backbone of mmpretrain's own: the plain form must do without ours.
STUDENT = classifier(
    backbone=dict(type='ResNet_CIFAR', depth=18, base_channels=8, stem_channels=8),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=64, loss=dict(type='CrossEntropyLoss')))
PIPELINE = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(32, 24)), dict(type='PackInputs')]
WITHOUT_US = '''
import json, sys
sys.modules['mmseg_kd'] = None
from mmpretrain.apis import get_model
folder = sys.argv[1]
model = get_model(folder + '/config.py', pretrained=folder + '/weights.pth', device='cpu')
weights = model.state_dict().values()
print(json.dumps([type(model).__name__, sum(value.double().abs().sum().item() for value in weights)]))
'''


def test_a_classifier(pictures, tmp_path):
    plain = build_classifier(STUDENT)
    torch.save(dict(state_dict=plain.state_dict(), meta=dict(dataset_meta=dict(classes=tuple('abcdefghij')))),
               tmp_path / 'epoch_1.pth')
    terms = dict(kd=dict(loss=dict(type='mmseg_kd.KDLoss'), on='aux_logits'))
    model = distilled_classifier(STUDENT, classifier(14), distill=terms, dual_head=dict(kind='linear'))
    config = Config(dict(
        default_scope='mmpretrain', custom_imports=dict(imports=['mmseg_kd']), model=model, test_pipeline=PIPELINE,
        test_dataloader=dict(dataset=dict(type='mmseg_kd.Digits'))))
    report = export_student(config, str(tmp_path / 'epoch_1.pth'), tmp_path / 'out', ['torchscript'],
                            images=pictures[:2], repetitions=1)
    assert report['student']['classes'] == list('abcdefghij') and 'classes)' in report['student']['output']
    kind, total = json.loads(command('-c', WITHOUT_US, tmp_path / 'out').stdout.strip().splitlines()[-1])
    assert kind == 'ImageClassifier'
    assert total == pytest.approx(sum(value.double().abs().sum().item() for value in plain.state_dict().values()))
    picture = torch.from_numpy(cv2.imread(pictures[0])).permute(2, 0, 1)[None].float()
    with torch.no_grad():
        # The preprocessor of tests/tiny_cls.py: mean 100, deviation 60, channels as they are loaded, BGR.
        expected = plain.eval().double()((picture.double() - 100) / 60, mode='tensor').numpy()
    found = torch.jit.load(str(tmp_path / 'out/student.torchscript.pt'))(picture.flip(1)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)

"""DistilledImageClassifier against plain mmpretrain."""
import copy

import numpy as np
import pytest
import scipy.special
import torch
from mmengine.optim import OptimWrapper
from tiny_cls import build_classifier, classifier, distilled_classifier, image_batch, losses_of

pytestmark = pytest.mark.cls
KD = dict(kd=dict(loss=dict(type='mmseg_kd.KDLoss', temperature=4., loss_weight=3.)))
DKD = dict(dkd=dict(loss=dict(type='mmseg_kd.DKDLoss', alpha=1., beta=2., temperature=4.)))
MIXES = dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.)])


def kd_value(student, teacher, temperature=4.):
    """Mean over images of T^2 KL(teacher || student), in float64."""
    z, v = (scipy.special.log_softmax(np.asarray(logits, dtype=np.float64) / temperature, 1)
            for logits in (student, teacher))
    return temperature**2 * (np.exp(v) * (v - z)).sum(1).mean()


def dkd_value(student, teacher, target, beta, temperature=4.):
    """Zhao et al., equation 7, in float64: binary divergence of the target, and beta times that of the rest."""
    total = 0.
    for z, v, label in zip(student, teacher, target, strict=True):
        p, q = (scipy.special.softmax(np.asarray(x, dtype=np.float64) / temperature) for x in (v, z))
        between = p[label] * np.log(p[label] / q[label]) + (1 - p[label]) * np.log((1 - p[label]) / (1 - q[label]))
        p, q = (np.delete(x, label) / (1 - x[label]) for x in (p, q))
        total += between + beta * (p * np.log(p / q)).sum()
    return temperature**2 * total / len(target)


def raw_logits(model, images, mean=100.):
    """Logits in eval mode of raw images, normalised here."""
    with torch.no_grad():
        return model.eval()((torch.stack(images).float() - mean) / 60., mode='tensor').numpy()


def student_logits(model, data):
    """Logits that a training step computes (BatchNorm of the batch), from a copy."""
    model = copy.deepcopy(model).train()
    return model(model.data_preprocessor(data, True)['inputs'], mode='tensor').detach().numpy()


@pytest.mark.parametrize('augments', [None, MIXES], ids=['plain', 'mixed'])
def test_weight_zero_gives_the_weights_of_plain_mmpretrain(augments):
    zero = dict(kd=dict(loss=dict(type='mmseg_kd.KDLoss', loss_weight=0.)))
    student, weights = classifier(train_cfg=augments), []
    for config in (student, distilled_classifier(student, classifier(14), distill=zero)):
        model = build_classifier(config, seed=3).train()
        optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9))
        torch.manual_seed(5)
        np.random.seed(5)
        for seed in range(3):
            model.train_step(image_batch(seed=seed), optimizer)
        weights.append(model.state_dict())
    assert list(weights[0]) == list(weights[1])
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_the_losses_are_the_students_and_the_formulas():
    """The teacher sees the images under its own normalisation, which its config has beside the model."""
    teacher = classifier(14)
    del teacher['data_preprocessor']
    config = distilled_classifier(classifier(), teacher, distill=KD | DKD)
    config['teacher']['config']['data_preprocessor'] = dict(num_classes=10, mean=[30.] * 3, std=[60.] * 3)
    model, data = build_classifier(config), image_batch()
    z, v = student_logits(model, data), raw_logits(model.teacher.model, data['inputs'], mean=30.)
    target = [sample.gt_label.item() for sample in data['data_samples']]
    losses = losses_of(model, data)
    assert set(losses) == {'loss_cls', 'distill.loss_kd', 'distill.loss_dkd'}
    plain = -scipy.special.log_softmax(z.astype(np.float64), 1)[range(len(target)), target].mean()
    assert losses['loss_cls'].item() == pytest.approx(plain, rel=1e-5)
    assert losses['distill.loss_kd'].item() == pytest.approx(3 * kd_value(z, v), rel=1e-4)
    assert losses['distill.loss_dkd'].item() == pytest.approx(dkd_value(z, v, target, beta=2.), rel=1e-4)
    total, logs = model.parse_losses(losses)
    assert total.item() == pytest.approx(sum(value.item() for value in losses.values()), rel=1e-6)
    assert logs['loss'] == total and logs['loss_cls'] == losses['loss_cls']


def test_teacher_of_the_other_colour_order():
    teacher = classifier(14)
    teacher['data_preprocessor'] |= dict(to_rgb=True, mean=[10., 20., 30.])
    model, data = build_classifier(distilled_classifier(classifier(), teacher, distill=KD)), image_batch()
    images = (torch.stack(data['inputs']).flip(1).float() - torch.tensor([10., 20., 30.]).view(3, 1, 1)) / 60.
    with torch.no_grad():
        v = model.teacher.model(images, mode='tensor').numpy()
    assert losses_of(model, data)['distill.loss_kd'].item() == pytest.approx(
        3 * kd_value(student_logits(model, data), v), rel=1e-4)


def test_mixed_images_reach_both_networks():
    student = classifier(train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8)]))
    model, data = build_classifier(distilled_classifier(student, classifier(14), distill=KD)), image_batch()
    losses = losses_of(model, copy.deepcopy(data))
    np.random.seed(7)
    torch.manual_seed(7)
    mixed = model.data_preprocessor(copy.deepcopy(data), True)['inputs']
    assert not torch.allclose(mixed, (torch.stack(data['inputs']).float() - 100) / 60, atol=0.1)
    with torch.no_grad():
        v = model.teacher.model(mixed, mode='tensor').numpy()
        z = build_classifier(student).train()(mixed, mode='tensor').numpy()
    assert losses['distill.loss_kd'].item() == pytest.approx(3 * kd_value(z, v), rel=1e-4)


def test_a_loss_with_a_target_refuses_mixed_images():
    with pytest.raises(ValueError, match=r'`distill\.dkd\.loss`: DKDLoss needs the class of each image.*KDLoss, GDKD'):
        build_classifier(distilled_classifier(classifier(train_cfg=MIXES), classifier(14), distill=DKD))


def test_a_loss_with_a_target_refuses_soft_labels():
    scores = torch.full((4, 10), 0.1)
    model = build_classifier(distilled_classifier(classifier(), classifier(14), distill=DKD))
    for labels in (None, [1, 2, 3, 4]):
        with pytest.raises(ValueError, match=r'`distill\.dkd\.loss`: it needs the class of each image, `gt_label`'):
            losses_of(model, image_batch(scores=scores, labels=labels))
    model = build_classifier(distilled_classifier(classifier(), classifier(14), distill=KD))
    assert losses_of(model, image_batch(scores=scores))['distill.loss_kd'] > 0


def test_several_labels_are_refused():
    head = dict(type='MultiLabelLinearClsHead', num_classes=10, in_channels=64)
    model = build_classifier(distilled_classifier(classifier(head=head), classifier(14), distill=DKD))
    with pytest.raises(ValueError, match='`gt_label`, and got soft labels, several or none'):
        losses_of(model, image_batch(labels=[[1, 2], [3], [4], [5]]))


@pytest.mark.parametrize('changed', ['label smoothing', 'one-hot labels'])
def test_hard_targets_stay_hard(changed):
    """The distillation term sees classes, whatever the student's own loss makes of them."""
    student = classifier()
    if changed == 'label smoothing':
        student['head']['loss'] = dict(type='LabelSmoothLoss', label_smooth_val=0.1, num_classes=10)
    else:
        student['data_preprocessor']['to_onehot'] = True
        student['head']['loss']['use_soft'] = True
    plain, model = build_classifier(student), build_classifier(distilled_classifier(student, classifier(14),
                                                                                    distill=DKD))
    data = image_batch()
    target = [sample.gt_label.item() for sample in data['data_samples']]
    z, v = student_logits(model, data), raw_logits(model.teacher.model, data['inputs'])
    losses = losses_of(model, copy.deepcopy(data))
    assert torch.equal(losses['loss_cls'], losses_of(plain, data)['loss'])
    assert losses['distill.loss_dkd'].item() == pytest.approx(dkd_value(z, v, target, beta=2.), rel=1e-4)


def test_class_255_counts():
    """255 is the ignore label of segmentation, and a dog of ImageNet."""
    config = distilled_classifier(classifier(num_classes=300), classifier(14, num_classes=300), distill=DKD)
    model, data = build_classifier(config), image_batch(labels=[255, 3, 255, 299])
    z, v = student_logits(model, data), raw_logits(model.teacher.model, data['inputs'])
    assert losses_of(model, data)['distill.loss_dkd'].item() == pytest.approx(
        dkd_value(z, v, [255, 3, 255, 299], beta=2.), rel=1e-4)
    named = dict(dkd=dict(loss=dict(type='mmseg_kd.DKDLoss', ignore_index=255)))
    with pytest.raises(ValueError, match=r'`distill\.dkd\.loss\.ignore_index`: 255 is one of the 300 classes'):
        build_classifier(config | dict(distill=named))


def test_a_named_module_is_compared():
    on = dict(mse=dict(loss=dict(type='mmseg_kd.LogitMSELoss'), on='backbone.layer3'))
    model, data = build_classifier(distilled_classifier(classifier(), classifier(14), distill=on)), image_batch()
    images = (torch.stack(data['inputs']).float() - 100) / 60
    with torch.no_grad():
        z, = copy.deepcopy(model).train().backbone(images)
        v, = model.teacher.model.backbone(images)
    # Summed over the channels, mean over images and positions.
    wanted = ((z - v).double()**2).sum(1).mean().item()
    assert losses_of(model, data)['distill.loss_mse'].item() == pytest.approx(wanted, rel=1e-5)


def test_pooled_features_pass_through_an_adapter():
    """A vector (N, C) is a map of one position: the mean square of what a 1x1 convolution makes of it."""
    term = dict(loss=dict(type='mmseg_kd.HierarchicalContextLoss'), adapter=dict(kind='linear'), on='neck[0]')
    student = classifier(backbone=dict(type='mmseg_kd.CIFARResNet', depth=8, width_factor=2),
                         head=dict(type='LinearClsHead', num_classes=10, in_channels=128))
    model, data = build_classifier(distilled_classifier(student, classifier(14), distill=dict(x=term))), image_batch()
    images = (torch.stack(data['inputs']).float() - 100) / 60
    with torch.no_grad():
        z, = copy.deepcopy(model).train().backbone(images)
        v, = model.teacher.model.backbone(images)
        layer = model.terms['x'].adapters[0][0]
        assert layer.weight.shape == (64, 128, 1, 1)
        z = z.mean((2, 3)) @ layer.weight[:, :, 0, 0].T + layer.bias
        wanted = (z - v.mean((2, 3))).double().square().mean().item()
    losses = losses_of(model, data)
    assert losses['distill.loss_x'].item() == pytest.approx(wanted, rel=1e-4)
    losses['distill.loss_x'].backward()
    assert layer.weight.grad.abs().max() > 0
    model.terms['x'].scale = 0.  # beyond a stop: still a zero with a graph through the adapter
    assert losses_of(model, data)['distill.loss_x'].item() == 0


def test_the_teacher_stays_as_it_was_and_out_of_the_weights():
    model = build_classifier(distilled_classifier(classifier(), classifier(14))).train()
    before = {name: value.clone() for name, value in model.teacher.model.state_dict().items()}
    model.train_step(image_batch(), OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1)))
    assert all(torch.equal(before[name], value) for name, value in model.teacher.model.state_dict().items())
    assert not any(module.training for module in model.teacher.model.modules())
    assert list(model.state_dict()) == list(build_classifier(classifier()).state_dict())


@pytest.mark.parametrize('change, message', [
    (dict(teacher=dict(config=dict(model=classifier(14, num_classes=7)))),
     '`teacher.config`: `distill.kd.on` compares logits.*the student has 10, the teacher 7'),
    (dict(head=None), '`head`: a distilled classifier needs one'),
    (dict(distill=dict(kd=dict(loss=dict(type='mmseg_kd.KDLoss'), on='backbone.layer9'))),
     "nothing to read at 'backbone.layer9'"),
    (dict(dual_head=dict(kind='linear')), '`dual_head`: no term trains it'),
    (dict(teacher=dict(cache='work_dirs/cache')), '`teacher.cache`: a cache holds the logits of a segmentor'),
    (dict(teacher=[dict(cache='a'), dict(cache='b')]), '`teacher.cache`: a cache holds the logits of a segmentor'),
], ids=lambda value: None if isinstance(value, str) else str(value)[:40])
def test_what_does_not_fit_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        build_classifier(distilled_classifier(classifier(), classifier(14)) | change)


def test_a_teacher_without_logits_is_refused():
    teacher = classifier(14, neck=None, head=dict(type='ClsHead'))
    model = build_classifier(distilled_classifier(classifier(), teacher))
    with pytest.raises(ValueError, match=r'`teacher\.config`: expected logits \(N, C\) from ClsHead, got a tensor'):
        losses_of(model)


def test_five_lines_on_a_config_of_mmpretrain(tmp_path):
    """The guide's example: a student and a teacher that mmpretrain ships."""
    from mmengine.config import Config
    (tmp_path / 'config.py').write_text('''
_base_ = ['mmpretrain::resnet/resnet18_8xb32_in1k.py']
custom_imports = dict(imports=['mmseg_kd'])
model = dict(
    type='mmseg_kd.DistilledImageClassifier',
    teacher=dict(config='mmpretrain::resnet/resnet34_8xb32_in1k.py'),
    distill=dict(dkd=dict(loss=dict(type='mmseg_kd.DKDLoss', alpha=1., beta=0.5, temperature=1.))))
''')
    config = Config.fromfile(tmp_path / 'config.py')
    config.model.data_preprocessor = config.data_preprocessor
    model = build_classifier(config.model).train()
    assert model.backbone.depth == 18 and model.teacher.model.backbone.depth == 34
    assert model.teacher.renormalize.is_identity
    logs = model.train_step(image_batch(2, 64, 1000), OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1)))
    assert logs['loss'] == logs['loss_cls'] + logs['distill.loss_dkd'] and logs['distill.loss_dkd'] > 0

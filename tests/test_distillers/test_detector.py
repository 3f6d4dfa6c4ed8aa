"""Distilled detectors against plain mmdet."""
import copy

import numpy as np
import pytest
import scipy.special
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from tiny_det import (
    FAMILIES,
    NUM_CLASSES,
    TWO_STAGE,
    box_batch,
    build_detector,
    detector,
    distilled_detector,
    losses_of,
)

from mmseg_kd.teachers.class_names import check_config

pytestmark = pytest.mark.det
KD = dict(kd=dict(loss=dict(type='mmseg_kd.KDLoss', temperature=2.)))
DKD = dict(dkd=dict(loss=dict(type='mmseg_kd.DKDLoss', alpha=1., beta=2., temperature=2.)))
BINARY = dict(binary=dict(loss=dict(type='mmseg_kd.BinaryKLLoss', temperature=2.)))
DENSE = tuple(family for family in FAMILIES if family not in TWO_STAGE)


def float64(logits):
    return np.asarray(torch.as_tensor(logits).detach(), dtype=np.float64)


def kd_map(student, teacher, temperature=2.):
    """T^2 KL(teacher || student) of each row, in float64."""
    z, v = (scipy.special.log_softmax(float64(logits) / temperature, 1) for logits in (student, teacher))
    return temperature**2 * (np.exp(v) * (v - z)).sum(1)


def dkd_map(student, teacher, target, beta=2., temperature=2.):
    """Zhao et al., equation 7, of each row, in float64."""
    values = []
    for z, v, label in zip(float64(student), float64(teacher), target.tolist(), strict=True):
        p, q = (scipy.special.softmax(x / temperature) for x in (v, z))
        between = p[label] * np.log(p[label] / q[label]) + (1 - p[label]) * np.log((1 - p[label]) / (1 - q[label]))
        p, q = (np.delete(x, label) / (1 - x[label]) for x in (p, q))
        values.append(between + beta * (p * np.log(p / q)).sum())
    return temperature**2 * np.array(values)


def binary_map(student, teacher, temperature=2.):
    """T^2 times the divergences of all classes' yes or no, of each row, in float64."""
    q, p = (scipy.special.expit(float64(logits) / temperature) for logits in (student, teacher))
    return temperature**2 * (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).sum(1)


def pair(family, distill):
    """A distilled model of a family, its teacher twice as wide, and a batch."""
    return build_detector(distilled_detector(detector(family), detector(family, 16), distill=distill)), box_batch()


def with_background(logits):
    return np.concatenate([float64(logits), np.zeros((len(logits), 1))], 1)


def rows(maps, channels):
    """mmdet's order: level by level, image by image, row by row; in float64."""
    return np.concatenate([float64(each.permute(0, 2, 3, 1).reshape(-1, channels)) for each in maps])


def inputs_of(model, data):
    data = model.data_preprocessor(copy.deepcopy(data), True)
    return data['inputs'], data['data_samples']


def plain_dense(config, data):
    """Scores, assigned labels and label weights of plain mmdet's own training step, and the model."""
    model = build_detector(config).train()
    images, samples = inputs_of(model, data)
    head, found = model.bbox_head, {}
    original = head.get_targets

    def watched(*args, **kwargs):
        found['targets'] = original(*args, **kwargs)
        return found['targets']

    head.get_targets = watched
    outputs = head(model.extract_feat(images))
    metas = [sample.metainfo for sample in samples]
    head.loss_by_feat(*outputs, [sample.gt_instances for sample in samples], metas)
    targets = found['targets']
    if type(head).__name__ == 'FCOSHead':
        labels = weights = targets[0]
        weights = [torch.ones_like(each, dtype=torch.float) for each in labels]
    else:
        # ATSS and GFL return their anchors first.
        labels, weights = targets[1:3] if type(head).__name__ != 'RetinaHead' else targets[:2]
    labels, weights = (torch.cat([each.reshape(-1) for each in maps]) for maps in (labels, weights))
    return model, images, outputs, labels.numpy(), weights.numpy()


def plain_second_stage(config, data, seed=7):
    """What plain mmdet's box heads see in a training step: proposals, scores, labels of each stage; and the images."""
    model, found = build_detector(config).train(), []
    heads = model.roi_head.bbox_head
    for head in heads if isinstance(heads, torch.nn.ModuleList) else [heads]:
        def watched(cls_score, bbox_pred, rois, labels, *args, original=head.loss, **kwargs):
            found.append((rois, cls_score, labels))
            return original(cls_score, bbox_pred, rois, labels, *args, **kwargs)
        head.loss = watched
    torch.manual_seed(seed)
    images, samples = inputs_of(model, data)
    model.loss(images, samples)
    return found, images


@pytest.mark.parametrize('family', FAMILIES)
def test_weight_zero_gives_the_weights_of_plain_mmdet(family):
    zero = dict(kd=dict(loss=dict(type='mmseg_kd.KDLoss', loss_weight=0.), weight='confidence'))
    student, weights = detector(family), []
    for config in (student, distilled_detector(student, detector(family, 16), distill=zero)):
        model = build_detector(config, seed=3).train()
        optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9))
        torch.manual_seed(5)
        for seed in range(2):
            model.train_step(box_batch(seed=seed), optimizer)
        weights.append(model.state_dict())
    assert list(weights[0]) == list(weights[1])
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


@pytest.mark.parametrize('family', DENSE)
def test_dense_scores_are_compared_position_by_position(family):
    """Sums over all levels over the number of objects' positions; the background has the logit 0."""
    model, data = pair(family, KD | DKD | BINARY)
    _, images, outputs, labels, weights = plain_dense(detector(family), data)
    z = rows(outputs[0], NUM_CLASSES)
    teacher = model.teacher.model
    with torch.no_grad():
        v = rows(teacher.bbox_head(teacher.extract_feat(images))[0], NUM_CLASSES)
    positives = ((labels < NUM_CLASSES) & (weights > 0)).sum()
    assert positives > 3 and len(z) > 300
    losses = losses_of(model, data)
    full = with_background(z), with_background(v)
    for name, values in (('kd', kd_map(*full)), ('dkd', dkd_map(*full, labels)), ('binary', binary_map(z, v))):
        assert losses[f'distill.loss_{name}'].item() == pytest.approx((values * weights).sum() / positives, rel=1e-4)


def test_positions_are_weighted():
    distill = {f'{name}_{weight}': dict(term, weight=weight) for weight in ('foreground', 'confidence')
               for name, term in (KD | DKD).items()}
    model, data = pair('atss', distill)
    _, images, outputs, labels, weights = plain_dense(detector('atss'), data)
    z = rows(outputs[0], NUM_CLASSES)
    teacher = model.teacher.model
    with torch.no_grad():
        v = rows(teacher.bbox_head(teacher.extract_feat(images))[0], NUM_CLASSES)
    losses, full = losses_of(model, data), (with_background(z), with_background(v))
    confidence = scipy.special.expit(v.max(1))
    for name, values in (('kd', kd_map(*full)), ('dkd', dkd_map(*full, labels))):
        for weight, factor in (('foreground', labels < NUM_CLASSES), ('confidence', confidence)):
            factor = factor * (weights > 0)
            assert losses[f'distill.loss_{name}_{weight}'].item() == pytest.approx(
                (values * factor).sum() / factor.sum(), rel=1e-4)


def test_ignored_positions_do_not_count():
    """A crowd that is no object takes the anchors that lie in it out of the student's loss, and out of ours."""
    student = detector('retinanet')
    student['train_cfg']['assigner']['ignore_iof_thr'] = 0.5
    model, data = build_detector(distilled_detector(student, detector('retinanet', 16), distill=KD)), box_batch()
    for sample in data['data_samples']:
        sample.ignored_instances.bboxes = torch.tensor([[64., 64., 127., 127.]])
        sample.ignored_instances.labels = torch.zeros(1, dtype=torch.long)
    with_crowd, seen = losses_of(model, data), []
    model.bbox_head.loss_cls.register_forward_pre_hook(lambda module, args: seen.append(args))
    losses_of(model, data)
    z, weights = (torch.cat([call[index] for call in seen]) for index in (0, 2))
    positives = (torch.cat([call[1] for call in seen]) < NUM_CLASSES).sum().item()
    images, _ = inputs_of(model, data)
    teacher = model.teacher.model
    with torch.no_grad():
        v = rows(teacher.bbox_head(teacher.extract_feat(images))[0], NUM_CLASSES)
    values = kd_map(with_background(z), with_background(v))
    assert (weights == 0).sum() > 20
    assert with_crowd['distill.loss_kd'].item() == pytest.approx(
        values[weights.numpy() > 0].sum() / positives, rel=1e-4)


def test_edges_of_boxes_are_compared_as_the_heads_own_loss_weighs_them():
    """Localisation distillation: 4 edges of each position with an object, by the student's confidence there."""
    distill = dict(ld=dict(loss=dict(type='mmseg_kd.KDLoss', temperature=2.), on='box_logits'))
    model, data = pair('gfl', distill)
    student, images, outputs, labels, _ = plain_dense(detector('gfl'), data)
    positive = labels < NUM_CLASSES
    bins = student.bbox_head.reg_max + 1
    z = rows(outputs[1], 4 * bins)[positive].reshape(-1, bins)
    teacher = model.teacher.model
    with torch.no_grad():
        v = rows(teacher.bbox_head(teacher.extract_feat(images))[1], 4 * bins)[positive].reshape(-1, bins)
    weight = scipy.special.expit(rows(outputs[0], NUM_CLASSES)[positive].max(1))
    wanted = (kd_map(z, v).reshape(-1, 4).mean(1) * weight).sum() / max(weight.sum(), 1)
    assert losses_of(model, data)['distill.loss_ld'].item() == pytest.approx(wanted, rel=1e-4)


def test_the_target_of_an_edge_is_the_nearest_bin():
    distill = dict(dkd=dict(DKD['dkd'], on='box_logits'))
    model, data = pair('gfl', distill)
    seen = []
    model.bbox_head.loss_dfl.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append((*args, kwargs['weight'])), with_kwargs=True)
    losses = losses_of(model, data)
    z, target, weight = (torch.cat([call[index] for call in seen]) for index in range(3))
    images, _ = inputs_of(model, data)
    _, _, _, labels, _ = plain_dense(detector('gfl'), data)
    teacher = model.teacher.model
    with torch.no_grad():
        v = rows(teacher.bbox_head(teacher.extract_feat(images))[1], 4 * z.shape[1])
    v = v[labels < NUM_CLASSES].reshape(-1, z.shape[1])
    weight = float64(weight)
    wanted = (dkd_map(z, v, np.rint(float64(target)).astype(int)) * weight / 4).sum() / max(weight.sum() / 4, 1)
    assert losses['distill.loss_dkd'].item() == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize('family', ['faster_rcnn', 'cascade_rcnn'])
def test_the_teacher_scores_the_students_proposals(family):
    """The mean over the sampled proposals of each stage; the stages count 1, 1/2, 1/4 as in the student's own loss."""
    model, data = pair(family, KD | DKD)
    stages, images = plain_second_stage(detector(family), data)
    assert len(stages) == (3 if family == 'cascade_rcnn' else 1)
    head, wanted = model.teacher.model.roi_head, dict(kd=0., dkd=0.)
    with torch.no_grad():
        features = model.teacher.model.extract_feat(images)
        for number, (rois, z, labels) in enumerate(stages):
            v = head._bbox_forward(*([number] if len(stages) > 1 else []), features, rois)['cls_score']
            assert z.shape[1] == NUM_CLASSES + 1
            wanted['kd'] += 0.5**number * kd_map(z, v).mean()
            wanted['dkd'] += 0.5**number * dkd_map(z, v, labels).mean()
    losses = losses_of(model, data)
    for name, value in wanted.items():
        assert losses[f'distill.loss_{name}'].item() == pytest.approx(value, rel=1e-3)


def test_proposals_are_weighted_by_the_teachers_confidence():
    distill = {weight: dict(KD['kd'], weight=weight) for weight in ('foreground', 'confidence')}
    model, data = pair('faster_rcnn', distill)
    ((rois, z, labels), ), images = plain_second_stage(detector('faster_rcnn'), data)
    teacher = model.teacher.model
    with torch.no_grad():
        v = teacher.roi_head._bbox_forward(teacher.extract_feat(images), rois)['cls_score']
    confidence = scipy.special.softmax(float64(v), 1)[:, :-1].max(1)
    losses = losses_of(model, data)
    for weight, factor in (('foreground', labels.numpy() < NUM_CLASSES), ('confidence', confidence)):
        assert factor.sum() > 0
        assert losses[f'distill.loss_{weight}'].item() == pytest.approx(
            (kd_map(z, v) * factor).sum() / factor.sum(), rel=1e-3)


def test_masks_of_the_objects_classes_are_compared():
    distill = dict(mask=dict(BINARY['binary'], on='mask_logits'))
    model, data = pair('mask_rcnn', distill)
    seen = []
    model.roi_head.mask_roi_extractor.register_forward_pre_hook(lambda module, args: seen.append(args[1]))
    model.roi_head.mask_head.loss_mask.register_forward_pre_hook(lambda module, args: seen.append(args))
    loss = losses_of(model, data)['distill.loss_mask'].item()
    rois, (z, _, labels) = seen
    images, _ = inputs_of(model, data)
    teacher = model.teacher.model
    with torch.no_grad():
        v = teacher.roi_head._mask_forward(teacher.extract_feat(images), rois)['mask_preds']
    assert z.shape[1] == NUM_CLASSES and len(set(labels.tolist())) > 1
    pairs = [(z[index, label].reshape(-1, 1), v[index, label].reshape(-1, 1))
             for index, label in enumerate(labels.tolist())]
    assert loss == pytest.approx(np.mean([binary_map(*pair) for pair in pairs]), rel=1e-4)


@pytest.mark.parametrize('family', ['retinanet', 'faster_rcnn'])
def test_features_are_compared(family):
    """With the teacher's own number of channels behind an adapter; maps of the neck as they are."""
    distill = dict(
        neck=dict(loss=dict(type='mmseg_kd.FeatureMSELoss'), on='neck[1]'),
        fitnet=dict(loss=dict(type='mmseg_kd.FeatureMSELoss'), on='backbone.layer4', adapter=dict(kind='linear')))
    model, data = pair(family, distill)
    images, _ = inputs_of(model, data)
    with torch.no_grad():
        z = copy.deepcopy(model).train().extract_feat(images)[1]
        v = model.teacher.model.extract_feat(images)[1]
    losses = losses_of(model, data)
    loss = model.terms['neck'].loss
    assert losses['distill.loss_neck'].item() == pytest.approx(loss(z.double(), v.double()).item(), rel=1e-4)
    assert losses['distill.loss_fitnet'] > 0
    assert set(model.state_dict()) == set(build_detector(detector(family)).state_dict())


def test_the_teacher_sees_the_pictures_as_it_was_trained(family='retinanet'):
    """Its own mean, and its own value in the padding of a smaller picture."""
    teacher = detector(family, 16)
    teacher['data_preprocessor'] |= dict(mean=[10., 20., 30.], std=[50., 60., 70.], bgr_to_rgb=False, pad_value=7)
    model, data = build_detector(distilled_detector(detector(family), teacher)), box_batch()
    images, samples = inputs_of(model, data)
    wanted, _ = inputs_of(model.teacher.model, data)
    assert (wanted[1, :, -8:] == 7).all()
    torch.testing.assert_close(model.teacher.renormalize(images, samples), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('family', ['gfl', 'mask_rcnn'])
def test_the_student_is_plain_and_the_teacher_a_guest(family):
    model = build_detector(distilled_detector(detector(family), detector(family, 16))).train()
    before = {name: value.clone() for name, value in model.teacher.model.state_dict().items()}
    model.train_step(box_batch(), OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.01)))
    assert all(torch.equal(before[name], value) for name, value in model.teacher.model.state_dict().items())
    plain = build_detector(detector(family), seed=1)
    plain.load_state_dict(model.state_dict(), strict=True)
    images, samples = inputs_of(plain, box_batch())
    for one, other in zip(plain.eval().predict(images, copy.deepcopy(samples)), model.eval().predict(images, samples),
                          strict=True):
        assert torch.equal(one.pred_instances.bboxes, other.pred_instances.bboxes)


@pytest.mark.parametrize('family', ['fcos', 'gfl', 'mask_rcnn', 'cascade_mask_rcnn'])
def test_pictures_without_objects(family):
    distill = {f'kd_{weight}': dict(KD['kd'], weight=weight) for weight in (None, 'foreground', 'confidence')}
    distill |= dict(masks=dict(BINARY['binary'], on='mask_logits')) if 'mask' in family else {}
    distill |= dict(ld=dict(KD['kd'], on='box_logits')) if family == 'gfl' else {}
    model, data = pair(family, distill)
    for sample in data['data_samples']:
        sample.gt_instances = sample.gt_instances[:0]
    losses = losses_of(model, data)
    total, _ = model.parse_losses(losses)
    total.backward()
    assert torch.isfinite(total)
    for name in {'kd_foreground', 'masks', 'ld'} & set(distill):
        assert losses[f'distill.loss_{name}'] == 0
    assert losses['distill.loss_kd_None'] > 0


def test_several_teachers_and_the_students_average():
    """The mean over two; and the student's own average."""
    teachers = [dict(config=dict(model=detector('atss', width))) for width in (8, 16)]
    student = detector('atss')
    losses = [losses_of(build_detector(distilled_detector(student, student, distill=KD) | dict(teacher=teacher)))
              for teacher in (teachers[0], teachers[1], teachers)]
    one, two, both = (each['distill.loss_kd'].item() for each in losses)
    assert both == pytest.approx((one + two) / 2, rel=1e-5) and one != two
    model = build_detector(distilled_detector(student, student, distill=KD) | dict(teacher=dict(type='ema')))
    model.teacher.start(model)
    assert losses_of(model)['distill.loss_kd'] > 0  # BatchNorm of the batch beside running statistics


def softmax_retinanet():
    model = detector('retinanet', 16)
    model['bbox_head']['loss_cls'] = dict(type='CrossEntropyLoss', use_sigmoid=False)
    return model


def retinanet_with(**anchors):
    model = detector('retinanet', 16)
    model['bbox_head']['anchor_generator'] |= anchors
    return model


def gfl_with(**settings):
    model = detector('gfl', 16)
    model['bbox_head'] |= settings
    return model


ON = dict(loss=dict(type='mmseg_kd.KDLoss'))


@pytest.mark.parametrize('student, teacher, term, message', [
    ('retinanet', lambda: detector('retinanet', num_classes=5), ON,
     '`teacher.config`: `distill.kd.on` compares scores.*the student has 3, the teacher 5'),
    ('retinanet', lambda: retinanet_with(ratios=[1.]), ON, 'heads have other positions.*Train the teacher'),
    ('retinanet', lambda: retinanet_with(octave_base_scale=8), ON, 'heads have other positions'),
    ('retinanet', lambda: detector('fcos'), ON, 'heads have other positions'),
    ('retinanet', softmax_retinanet, ON, 'the student are of sigmoid kind, those of the teacher of softmax kind'),
    ('retinanet', lambda: detector('faster_rcnn'), ON, 'the teacher has no dense head'),
    ('faster_rcnn', lambda: detector('retinanet'), ON, 'the teacher has no second stage'),
    ('cascade_rcnn', lambda: detector('faster_rcnn'), ON, 'the student has 3 stages, the teacher 1'),
    ('faster_rcnn', lambda: detector('faster_rcnn', num_classes=5), ON, 'the student has 3, the teacher 5'),
    ('retinanet', lambda: detector('retinanet'), ON | dict(weight='hard'), '`distill.kd.weight`: expected None or'),
    ('retinanet', lambda: detector('retinanet'), ON | dict(on='neck[0]', weight='foreground'), "the term reads 'neck"),
    ('retinanet', lambda: detector('retinanet'), ON | dict(on='box_logits'), "expected 'logits' or the name of one"),
    ('faster_rcnn', lambda: detector('faster_rcnn'), ON | dict(on='mask_logits'), "expected 'logits' or the name"),
    ('mask_rcnn', lambda: detector('faster_rcnn'), ON | dict(on='mask_logits'),
     'the teacher has StandardRoIHead, whose masks'),
    ('gfl', lambda: gfl_with(reg_max=8), ON | dict(on='box_logits'), 'reg_max=16, the teacher GFLHead reg_max=8'),
    ('gfl', lambda: detector('atss'), ON | dict(on='box_logits'), 'the teacher ATSSHead reg_max=None'),
    ('gfl', lambda: detector('gfl'), ON | dict(on=('logits', 'box_logits')), 'compared with their like alone'),
], ids=lambda value: value if isinstance(value, str) else None)
def test_what_does_not_fit_is_refused(student, teacher, term, message):
    with pytest.raises(ValueError, match=message):
        build_detector(distilled_detector(detector(student), teacher(), distill=dict(kd=term)))


def test_a_head_with_a_loss_of_its_own_is_refused():
    student = detector('atss')
    student['bbox_head']['type'] = 'PAAHead'
    student['bbox_head'] |= dict(score_voting=True, topk=9)
    with pytest.raises(ValueError, match='the student has PAAHead, whose positions cannot be matched; known are'):
        build_detector(distilled_detector(student, student))


def test_heads_of_one_anchor_a_cell_may_differ():
    """GFL and ATSS score the same cells."""
    model = build_detector(distilled_detector(detector('gfl'), detector('atss', 16), distill=KD))
    assert losses_of(model)['distill.loss_kd'] > 0


def test_positions_of_segmentors_and_classifiers_have_no_weight():
    from mmseg_kd.distillers.terms import build_terms
    with pytest.raises(ValueError, match=r'`distill.kd.weight`: expected none, only positions of detectors'):
        build_terms(dict(kd=dict(ON, weight='foreground')), None)


def test_classes_of_detectors_are_not_mapped():
    """Where a segmentor would match equal names in another order."""
    def data(*classes):
        return dict(train_dataloader=dict(dataset=dict(type='CocoDataset', metainfo=dict(classes=classes))))

    teacher = dict(config=dict(data('car', 'road'), model=dict(type='RetinaNet')))
    model = dict(type='mmseg_kd.DistilledSingleStageDetector', distill=KD, teacher=teacher)
    with pytest.raises(ValueError, match='have another order'):
        check_config(Config(dict(data('road', 'car'), model=model)))

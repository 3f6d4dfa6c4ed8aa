"""A dual head around mmdet's classification branches, gradient alignment there, and resume."""
import copy

import numpy as np
import pytest
import torch
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
from torch import nn
from torch.nn import functional as F

from mmseg_kd.distillers.detection.heads import main_branch
from mmseg_kd.engine import GradAlignOptimWrapper

pytestmark = pytest.mark.det
AUX = dict(dhkd=dict(loss=dict(type='mmseg_kd.BinaryKLNormLoss', temperature=2.), on='aux_logits'))
WITH_ONE = tuple(family for family in FAMILIES if 'cascade' not in family)
#: With this sign of the term the two gradients are in conflict.
SIGN = dict(retinanet=-1., faster_rcnn=1.)
LAYERS = dict(retinanet='bbox_head.retina_cls', fcos='bbox_head.conv_cls', gfl='bbox_head.gfl_cls',
              atss='bbox_head.atss_cls', faster_rcnn='roi_head.bbox_head.fc_cls', mask_rcnn='roi_head.bbox_head.fc_cls')


def dual(family, kind='linear', distill=AUX):
    return build_detector(distilled_detector(detector(family), detector(family, 16), distill=distill,
                                             dual_head=dict(kind=kind)))


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


def binary_norm(z, v, temperature=2.):
    """Of each row, in float64: T^2 times the sum of log cosh((z - v) / 2 T)."""
    z, v = (np.asarray(logits.detach(), dtype=np.float64) for logits in (z, v))
    return temperature**2 * np.log(np.cosh((z - v) / (2 * temperature))).sum(1)


def seen_by(module, run):
    """What a module was called with while ``run()`` ran."""
    calls = []
    handle = module.register_forward_pre_hook(lambda module, args: calls.append(args))
    try:
        run()
    finally:
        handle.remove()
    return calls


def rows(maps, channels):
    """mmdet's order: level by level, image by image, row by row."""
    return torch.cat([each.permute(0, 2, 3, 1).reshape(-1, channels) for each in maps])


@pytest.mark.parametrize('family', WITH_ONE)
def test_the_term_is_the_formula_on_the_second_classifiers_scores(family):
    model, data = dual(family), box_batch()
    second, main = model.auxiliary_classifier, model.get_submodule(LAYERS[family])
    assert model.main_classifier() is main and second.weight.shape == main.weight.shape
    nn.init.normal_(second.bias)
    two_stage = family in TWO_STAGE
    losses = {}
    loss_cls = (model.roi_head.bbox_head if two_stage else model.bbox_head).loss_cls
    calls = {}
    calls['loss'] = seen_by(loss_cls, lambda: calls.__setitem__('main', seen_by(main, lambda: losses.update(
        losses_of(model, data)))))
    images = model.data_preprocessor(copy.deepcopy(data), True)['inputs']
    teacher = model.teacher.model
    with torch.no_grad():
        features = teacher.extract_feat(images)
        if two_stage:
            (x, ), = calls['main']
            rois = seen_by(model.roi_head.bbox_roi_extractor, lambda: losses_of(model, data))[0][1]
            z, v = F.linear(x, second.weight, second.bias), teacher.roi_head._bbox_forward(features, rois)['cls_score']
            wanted = binary_norm(z, v).mean()
        else:
            padding = {k: getattr(main, k) for k in ('stride', 'padding')}
            z = rows([F.conv2d(x, second.weight, second.bias, **padding) for x, in calls['main']], NUM_CLASSES)
            v = rows(teacher.bbox_head(features)[0], NUM_CLASSES)
            labels = [call[1][0] if isinstance(call[1], tuple) else call[1] for call in calls['loss']]
            weights = [call[2] if len(call) > 2 else torch.ones(len(call[0])) for call in calls['loss']]
            labels, weights = torch.cat(labels), torch.cat(weights).double().numpy()
            positives = ((labels < NUM_CLASSES).numpy() & (weights != 0)).sum()
            assert positives > 3 and len(calls['main']) == 5
            wanted = (binary_norm(z, v) * weights).sum() / positives
    assert losses['distill.loss_dhkd'].item() == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize('family', ['retinanet', 'faster_rcnn'])
@pytest.mark.parametrize('kind', ['linear', 'nonlinear'])
def test_the_main_classifier_sees_the_supervised_loss_alone(family, kind):
    model = dual(family, kind)
    losses = losses_of(model)
    losses['distill.loss_dhkd'].backward()
    main = model.main_classifier()
    assert main.weight.grad is None and main.bias.grad is None
    for parameter in (*model.auxiliary_classifier.parameters(), model.neck.lateral_convs[0].conv.weight):
        assert parameter.grad.abs().sum() > 0


@pytest.mark.parametrize('family', ['gfl', 'mask_rcnn'])
def test_inference_and_weights_are_the_plain_students_bit_for_bit(family):
    model, plain = dual(family), build_detector(detector(family))
    assert same(model.state_dict(), plain.state_dict())
    state = {name: value.clone() for name, value in model.train_only_state().items()}
    assert set(state) == {'dual_head.weight', 'dual_head.bias'}
    model.train().train_step(box_batch(), OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.01)))
    assert not torch.equal(state['dual_head.weight'], model.train_only_state()['dual_head.weight'])
    plain.load_state_dict(model.state_dict(), strict=True)
    ours, theirs = [], []
    with torch.no_grad():
        calls = seen_by(model.auxiliary_classifier, lambda: ours.extend(model.eval().test_step(box_batch(seed=3))))
        theirs.extend(plain.eval().test_step(box_batch(seed=3)))
    assert not calls
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one.pred_instances.bboxes, other.pred_instances.bboxes)
        assert torch.equal(one.pred_instances.scores, other.pred_instances.scores)


@pytest.mark.parametrize('family', ['atss', 'faster_rcnn'])
def test_weight_zero_gives_the_weights_of_plain_mmdet(family):
    zero = copy.deepcopy(AUX)
    zero['dhkd']['loss']['loss_weight'] = 0.
    weights = []
    for build in (lambda: build_detector(detector(family)), lambda: dual(family, distill=zero)):
        model = build().train()
        optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9))
        torch.manual_seed(5)
        for seed in range(2):
            model.train_step(box_batch(seed=seed), optimizer)
        weights.append(model.state_dict())
    assert same(*weights)


@pytest.mark.parametrize('family', ['retinanet', 'faster_rcnn'])
def test_alignment_over_parameters(family):
    """Over what both reach, the distillation gradient loses its part against the supervised one."""
    model = dual(family).train()
    model.terms['dhkd'].loss.loss_weight = SIGN[family]
    expected = copy.deepcopy(model)
    gradients = []
    for part in (0, 1):
        total, _ = expected.parse_losses(losses_of(expected))
        gradients.append(torch.autograd.grad(total.objectives[part], list(expected.parameters()), allow_unused=True))
        expected.load_state_dict(model.state_dict())
    shared = [(s, d) for s, d in zip(*gradients, strict=True) if s is not None and d is not None]
    inner, square = sum((s * d).sum().double() for s, d in shared), sum((s * s).sum().double() for s, _ in shared)
    coefficient = min(0., (inner / square).item())
    assert coefficient < -1e-3 and 0 < len(shared) < len(gradients[0])
    torch.manual_seed(7)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    wrapper = GradAlignOptimWrapper(optimizer=torch.optim.SGD(model.parameters(), lr=1.), level='parameters')
    model.train_step(box_batch(), wrapper)
    for old, new, s, d in zip(before, model.parameters(), *gradients, strict=True):
        step = (0 if s is None else s) + (0 if d is None else d)
        if s is not None and d is not None:
            step = step - coefficient * s
        torch.testing.assert_close(old - new.detach(), step + torch.zeros_like(old), rtol=1e-3, atol=1e-4)


def test_alignment_at_the_features_of_a_box_head_and_not_of_five_levels():
    for family, refusal in (('faster_rcnn', None), ('gfl', 'main classifier runs more than once.*parameters')):
        model = dual(family).train()
        wrapper = GradAlignOptimWrapper(optimizer=torch.optim.SGD(model.parameters(), lr=.01), level='features')
        if refusal is None:
            model.train_step(box_batch(), wrapper)
            assert wrapper.message_hub.get_scalar('train/align_cosine').current() != 0
        else:
            with pytest.raises(ValueError, match=refusal):
                model.train_step(box_batch(), wrapper)


@pytest.mark.parametrize('weight', ['foreground', 'confidence'])
def test_positions_are_weighted(weight):
    plain, weighted = (losses_of(dual('atss', distill=dict(dhkd=dict(AUX['dhkd'], weight=each))))['distill.loss_dhkd']
                       for each in (None, weight))
    assert 0 < weighted.item() and weighted.item() != pytest.approx(plain.item(), rel=1e-2)


@pytest.mark.parametrize('family', ['fcos', 'mask_rcnn'])
def test_pictures_without_objects(family):
    model, data = dual(family, 'nonlinear'), box_batch()
    for sample in data['data_samples']:
        sample.gt_instances = sample.gt_instances[:0]
    total, _ = model.parse_losses(losses_of(model, data))
    total.backward()
    assert torch.isfinite(total)


def test_what_has_no_single_classifier_is_refused():
    with pytest.raises(ValueError, match='`dual_head`: ModuleList cannot .*a cascade classifies in each of its stages'):
        dual('cascade_rcnn')
    with pytest.raises(ValueError, match="the student has no 'aux_logits': add dual_head"):
        build_detector(distilled_detector(detector('gfl'), detector('gfl', 16), distill=AUX))
    with pytest.raises(ValueError, match='Identity cannot have .*none is known'):
        main_branch(nn.Identity())
    head = build_detector(detector('retinanet')).bbox_head
    head.retina_cls = nn.Sequential(head.retina_cls)
    with pytest.raises(ValueError, match='RetinaHead cannot .*`retina_cls` is a Sequential'):
        main_branch(head)

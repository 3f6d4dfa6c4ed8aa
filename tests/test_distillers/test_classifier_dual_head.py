"""A dual head around mmpretrain's linear head, and resume."""
import copy

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from tiny import train_only_state
from tiny_cls import build_classifier, classifier, distilled_classifier, image_batch, losses_of
from torch import nn

pytestmark = pytest.mark.cls
AUX = dict(dhkd=dict(loss=dict(type='mmseg_kd.BinaryKLNormLoss', temperature=2.), on='aux_logits'))


def dual(kind='nonlinear', **settings):
    return distilled_classifier(classifier(), classifier(14), distill=AUX, dual_head=dict(kind=kind)) | settings


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


def test_the_papers_sequence_on_the_pooled_features():
    layers = list(build_classifier(dual()).auxiliary_classifier)
    assert [type(layer) for layer in layers] == [nn.Linear, nn.Dropout, nn.BatchNorm1d, nn.ReLU, nn.Linear]
    assert layers[0].weight.shape == (200, 64) and layers[1].p == 0.1 and layers[4].weight.shape == (10, 200)


def test_the_term_is_the_formula_on_the_second_classifiers_logits():
    model, data = build_classifier(dual('linear')), image_batch()
    images = (torch.stack(data['inputs']).float() - 100) / 60
    second = model.auxiliary_classifier
    with torch.no_grad():
        pooled = copy.deepcopy(model).train().backbone(images)[0].mean((2, 3))
        z, v = pooled @ second.weight.T + second.bias, model.teacher.model(images, mode='tensor')
    z, v = z.double().numpy(), v.double().numpy()
    wanted = (2**2 * np.log(np.cosh((z - v) / (2 * 2)))).sum(1).mean()
    assert losses_of(model, data)['distill.loss_dhkd'].item() == pytest.approx(wanted, rel=1e-4)


def test_inference_and_weights_are_the_plain_students_bit_for_bit():
    model, plain = build_classifier(dual()), build_classifier(classifier())
    assert same(model.state_dict(), plain.state_dict())
    model.train().train_step(image_batch(), OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1)))
    assert not same(model.state_dict(), plain.state_dict())
    plain.load_state_dict(model.state_dict(), strict=True)
    calls = []
    for module in model.distill.modules():
        module.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        ours, theirs = (each.eval().test_step(image_batch(seed=3)) for each in (model, plain))
    assert all(torch.equal(one.pred_score, other.pred_score) for one, other in zip(ours, theirs, strict=True))
    assert not calls and not any(module._forward_hooks or module._forward_pre_hooks
                                 for name, module in model.named_modules() if not name.startswith('distill'))


@pytest.mark.parametrize('head, features, path', [
    (dict(type='StackedLinearClsHead', num_classes=10, in_channels=64, mid_channels=[24]), 24, 'layers.1.fc'),
    (dict(type='MultiLabelLinearClsHead', num_classes=10, in_channels=64), 64, 'fc')],
    ids=lambda value: value['type'] if isinstance(value, dict) else None)
def test_other_heads_with_one_classifier(head, features, path):
    model = build_classifier(dual('linear', head=head))
    assert model.main_classifier() is model.head.get_submodule(path)
    assert model.auxiliary_classifier.in_features == features
    assert losses_of(model)['distill.loss_dhkd'] > 0


def test_the_heads_of_vision_transformers():
    from mmpretrain.models.heads import ArcFaceClsHead, ConformerHead, DeiTClsHead, VisionTransformerClsHead

    from mmseg_kd.distillers.classification.heads import main_linear
    head = VisionTransformerClsHead(num_classes=10, in_channels=16, hidden_dim=12)
    features = (torch.randn(2, 16),)
    seen = []
    main_linear(head).register_forward_hook(lambda module, args, output: seen.append(output))
    assert head((features[0],)) is seen[0]
    for refused, why in ((DeiTClsHead(num_classes=10, in_channels=16), 'mean of two classifiers'),
                         (ConformerHead(num_classes=10, in_channels=(16, 16)), 'two classifiers already'),
                         (ArcFaceClsHead(num_classes=10, in_channels=16), 'cosines'),
                         (nn.Identity(), 'none is known')):
        with pytest.raises(ValueError, match=f'`dual_head`: {type(refused).__name__} cannot .*{why}'):
            main_linear(refused)


def run(model, work_dir, epochs, **settings):
    """Train on a few digits in mmengine's Runner, with what tools/train.py adds."""
    from mmseg_kd.engine.runner_defaults import add_training_hooks
    config = Config(dict(
        default_scope='mmpretrain', model=model, work_dir=str(work_dir), log_level='ERROR',
        train_dataloader=dict(
            batch_size=8, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
            dataset=dict(type='mmseg_kd.Digits', per_class=2, pipeline=[
                dict(type='RandomCrop', crop_size=8, padding=1), dict(type='PackInputs')])),
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01, momentum=0.9)),
        train_cfg=dict(by_epoch=True, max_epochs=epochs), randomness=dict(seed=0),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=2)),
        experiment_name=f'{work_dir.name}_{epochs}') | settings)
    add_training_hooks(config)
    return Runner.from_cfg(config).train()


def test_resume_restores_it_exactly(tmp_path):
    """Four epochs against two and two more: both classifiers, a warm-up, and a checkpoint of the plain student."""
    warm = dict(dhkd=AUX['dhkd'] | dict(schedule=dict(warmup=3, by_epoch=True)))
    torch.save(build_classifier(classifier(14), seed=1).state_dict(), tmp_path / 'teacher.pth')
    model = dual(distill=warm)
    model['teacher']['checkpoint'] = str(tmp_path / 'teacher.pth')
    run(copy.deepcopy(model), tmp_path / 'straight', 4)
    run(copy.deepcopy(model), tmp_path / 'broken', 2)
    run(copy.deepcopy(model), tmp_path / 'broken', 4, resume=True)
    straight, broken, halfway = (torch.load(tmp_path / name, weights_only=False) for name in (
        'straight/epoch_4.pth', 'broken/epoch_4.pth', 'broken/epoch_2.pth'))
    for checkpoint in (straight, broken, halfway):
        checkpoint['train_only_state'] = train_only_state(checkpoint)
    for part in ('state_dict', 'train_only_state'):
        assert same(straight[part], broken[part]), part
        assert not same(straight[part], halfway[part]), part
    build_classifier(classifier()).load_state_dict(straight['state_dict'], strict=True)

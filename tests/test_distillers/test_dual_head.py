"""A dual head in a distilled segmentor: what it is made of, and that nothing of it outlives training."""
import copy

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.model import ExponentialMovingAverage
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from tiny import batch, build, build_part, command, distilled, run_config, segmentor, train_only_state
from torch import nn

from mmseg_kd.distillers.dual_head import auxiliary_classifier

AUX = dict(dhkd=dict(loss=dict(type='mmseg_kd.BinaryKLNormLoss'), on='aux_logits'))
HOOKS = [dict(type='mmseg_kd.ExactResumeHook')]


def dual(kind='nonlinear', distill=AUX, checkpoint=None, **student):
    model = distilled(segmentor(**student), segmentor(16, 'PSPHead'), checkpoint, distill)
    return model | dict(dual_head=dict(kind=kind))


def train_step(model, seed=0):
    return model.train().train_step(batch(seed=seed), OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1)))


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


def test_linear_is_one_layer_like_the_main_classifier():
    model = build(dual('linear'))
    second, main = model.auxiliary_classifier, model.decode_head.conv_seg
    assert type(second) is nn.Conv2d and second.weight.shape == main.weight.shape
    assert second.weight.std().item() == pytest.approx(0.01, rel=0.2) and not second.bias.any()


@pytest.mark.parametrize('main, kind', [
    (nn.Linear(40, 30), 'linear'), (nn.Linear(40, 30), 'nonlinear'), (nn.Conv2d(40, 30, 1), 'nonlinear')])
def test_it_may_start_as_torch_starts_a_layer(main, kind):
    """Uniform within 1 / sqrt(fan in), weights and bias: the published code sets nothing else."""
    classifier = auxiliary_classifier(dict(kind=kind, init='torch'), main)
    layers = [classifier] if kind == 'linear' else [classifier[0], classifier[-1]]
    for layer in layers:
        bound = layer.weight[0].numel()**-0.5
        for values in (layer.weight, layer.bias):
            assert 0.9 * bound < values.abs().max() <= bound
            assert values.std().item() == pytest.approx(bound / 3**0.5, rel=0.25)
    plain = auxiliary_classifier(dict(kind=kind, init='normal'), main)
    assert same(plain.state_dict(), auxiliary_classifier(dict(kind=kind), main).state_dict())


def test_an_unknown_start_is_refused():
    for bad in (dict(kind='linear', init='xavier'), dict(init='torch'), dict(kind='linear', std=1.)):
        with pytest.raises(ValueError, match="`dual_head`: expected .*init='normal' or 'torch'"):
            auxiliary_classifier(bad, nn.Linear(4, 3))


def test_nonlinear_is_the_papers_sequence():
    layers = list(build(dual('nonlinear')).auxiliary_classifier)
    assert [type(layer) for layer in layers] == [nn.Conv2d, nn.Dropout2d, nn.BatchNorm2d, nn.ReLU, nn.Conv2d]
    assert layers[0].weight.shape == (200, 8, 1, 1) and layers[1].p == 0.1 and layers[4].weight.shape == (19, 200, 1, 1)


@pytest.mark.parametrize('kind', ['linear', 'nonlinear'])
def test_the_student_starts_as_without_it(kind):
    plain, model = build(segmentor(), seed=3), build(dual(kind), seed=3)
    assert same(plain.state_dict(), model.state_dict())


def test_its_weights_follow_the_seed():
    states = [build(dual(), seed=seed).auxiliary_classifier.state_dict() for seed in (1, 1, 2)]
    assert same(states[0], states[1]) and not torch.equal(states[0]['0.weight'], states[2]['0.weight'])


def test_its_weights_are_the_same_whatever_was_drawn_before():
    """Ranks of a distributed run may have drawn different numbers since they were seeded."""
    torch.manual_seed(1)
    first = build_part(dual()).auxiliary_classifier.state_dict()
    torch.manual_seed(1)
    torch.rand(7)
    assert same(first, build_part(dual()).auxiliary_classifier.state_dict())


def test_the_term_is_the_formula_on_the_second_classifiers_logits():
    model = build(dual('linear', dropout_ratio=0.)).train()
    data = model.data_preprocessor(batch(), True)
    features = []
    model.decode_head.conv_seg.register_forward_pre_hook(lambda module, args: features.append(args[0].detach()))
    got = model.loss(data['inputs'], data['data_samples'])['distill.loss_dhkd'].item()
    second = model.auxiliary_classifier
    z = torch.einsum('nchw,kc->nkhw', features[0], second.weight[:, :, 0, 0]) + second.bias[:, None, None]
    with torch.no_grad():
        v = model.teacher.model._forward(data['inputs'])
    z, v = (torch.nn.functional.interpolate(maps.detach(), size=(32, 64), mode='bilinear').double().numpy()
            for maps in (z, v))
    value = 2**2 * np.log(np.cosh((z - v) / (2 * 2))).sum(1)
    labels = np.stack([sample.gt_sem_seg.data[0].numpy() for sample in data['data_samples']])
    assert got == pytest.approx(value[labels != 255].mean(), rel=1e-5)


def test_inference_is_the_plain_students_bit_for_bit():
    model, plain = build(dual()), build(segmentor())
    train_step(model)
    plain.load_state_dict(model.state_dict(), strict=True)
    calls = []
    for module in model.distill.modules():
        module.register_forward_hook(lambda *_: calls.append(1))
    inputs = model.data_preprocessor(batch(), False)
    for each in (model, plain):
        each.eval().test_cfg = ConfigDict(mode='whole')
    with torch.no_grad():
        ours, theirs = (each.predict(inputs['inputs'], copy.deepcopy(inputs['data_samples']))
                        for each in (model, plain))
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one.seg_logits.data, other.seg_logits.data)
        assert torch.equal(one.pred_sem_seg.data, other.pred_sem_seg.data)
    assert not calls
    assert not any(module._forward_hooks or module._forward_pre_hooks for name, module in model.named_modules()
                   if not name.startswith('distill'))


def test_it_is_trained_yet_absent_from_the_students_weights():
    model, plain = build(dual()), build(segmentor())
    names = [name for name, _ in model.named_parameters()]
    assert list(model.state_dict()) == list(plain.state_dict())
    assert {name for name in names if name not in plain.state_dict()} == {
        f'distill.dual_head.{name}' for name, _ in model.auxiliary_classifier.named_parameters()}
    before = copy.deepcopy(model.train_only_state())
    train_step(model)
    assert not any(torch.equal(value, before[name]) for name, value in model.train_only_state().items())
    model.load_train_only_state(before)
    assert same(before, model.train_only_state())


def test_ema_averages_both_and_saves_the_student():
    model = build(dual())
    average = ExponentialMovingAverage(model, momentum=0.5)
    start = {name: value.detach().clone() for name, value in model.named_parameters()}
    for seed in range(2):
        train_step(model, seed)
        average.update_parameters(model)
    assert set(average.state_dict()) == {'steps'} | {f'module.{name}' for name in model.state_dict()}
    averaged = dict(average.module.named_parameters())
    for name in ('backbone.stem.0.weight', 'distill.dual_head.0.weight'):
        assert not torch.equal(averaged[name], start[name])
        assert not torch.equal(averaged[name], dict(model.named_parameters())[name])


@pytest.mark.parametrize('kind', ['linear', 'nonlinear'])
def test_weight_zero_gives_the_weights_of_plain_mmseg(mini_cityscapes, tmp_path, kind):
    """Through mmseg's Runner, seeded per iteration as tools/train.py does: the second classifier has a dropout, too."""
    zero = dict(dhkd=dict(loss=dict(type='mmseg_kd.BinaryKLNormLoss', loss_weight=0.), on='aux_logits'))
    weights = []
    for name, model in dict(plain=segmentor(), zero=dual(kind, zero)).items():
        config = run_config(model, mini_cityscapes, max_iters=4, work_dir=str(tmp_path / name), custom_hooks=HOOKS,
                            experiment_name=f'zero{name}{kind}')
        weights.append(Runner.from_cfg(config).train().state_dict())
    assert same(*weights)


def test_command_line_resume_restores_it_exactly(mini_cityscapes, tmp_path):
    """20 iterations against 10, a new process and 10 more, with an average of the weights; every bit of both
    classifiers."""
    torch.save(build(segmentor(16, 'PSPHead'), seed=1).state_dict(), tmp_path / 'teacher.pth')
    config = run_config(dual(checkpoint=tmp_path / 'teacher.pth'), mini_cityscapes, max_iters=20)
    config.custom_hooks = [dict(type='EMAHook', momentum=0.1)]
    config.train_cfg.val_interval = 10
    config.default_hooks.checkpoint.interval = 10
    config.dump(tmp_path / 'config.py')
    tool = ['tools/train.py', tmp_path / 'config.py', '--work-dir']
    command(*tool, tmp_path / 'straight')
    command(*tool, tmp_path / 'broken', '--cfg-options', 'train_cfg.max_iters=10')
    command(*tool, tmp_path / 'broken', '--resume')
    straight, broken, halfway = (torch.load(tmp_path / name, weights_only=False) for name in (
        'straight/iter_20.pth', 'broken/iter_20.pth', 'broken/iter_10.pth'))
    for checkpoint in (straight, broken, halfway):
        checkpoint['train_only_state'] = train_only_state(checkpoint)
    for part in ('state_dict', 'ema_state_dict', 'train_only_state'):
        assert same(straight[part], broken[part]), part
        assert not same(straight[part], halfway[part]), part
    assert set(straight['train_only_state']) == set(build(dual()).train_only_state())
    assert not any('distill' in name for part in ('state_dict', 'ema_state_dict') for name in straight[part])
    build(segmentor()).load_state_dict(straight['state_dict'], strict=True)


def test_resume_without_its_weights_is_refused(mini_cityscapes, tmp_path):
    def run(hooks, resume):
        config = run_config(dual(), mini_cityscapes, max_iters=2 + 2 * resume, work_dir=str(tmp_path), resume=resume,
                            custom_hooks=hooks, experiment_name=f'refuse{resume}')
        Runner.from_cfg(config).train()
    run([], False)
    checkpoint = torch.load(tmp_path / 'iter_2.pth', weights_only=False)
    del checkpoint['message_hub']['runtime_info']['train_only_state']
    torch.save(checkpoint, tmp_path / 'iter_2.pth')
    with pytest.raises(ValueError, match='`resume`: the checkpoint holds .* that only training needs'):
        run(HOOKS, True)


@pytest.mark.parametrize('settings, message', [
    (dict(kind='cubic'), r"`dual_head`: expected dict\(kind='linear'\)"),
    (dict(), '`dual_head`: expected'),
    ('linear', '`dual_head`: expected'),
    (dict(kind='linear', width=3), '`dual_head`: expected')])
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        build(dual() | dict(dual_head=settings))


def test_a_term_on_it_needs_it():
    with pytest.raises(ValueError, match=r"`distill\.dhkd\.on`: the student has no 'aux_logits': add dual_head="):
        build(distilled(segmentor(), segmentor(16), distill=AUX))


def test_it_needs_a_term():
    with pytest.raises(ValueError, match="`dual_head`: no term trains it"):
        build(dual(distill=dict(kd=dict(loss=dict(type='mmseg_kd.KDLoss')))))


def test_a_teacher_has_none():
    term = dict(dhkd=dict(loss=dict(type='mmseg_kd.BinaryKLNormLoss'), on=('aux_logits', 'aux_logits')))
    with pytest.raises(ValueError, match='only the student has a dual head'):
        build(dual(distill=term))


def test_other_classes_are_refused():
    with pytest.raises(ValueError, match='`teacher.config`: `distill.dhkd.on` compares logits'):
        build(dual(num_classes=7))


def test_it_may_stand_beside_a_term_on_the_main_logits():
    both = AUX | dict(kd=dict(loss=dict(type='mmseg_kd.KDLoss')))
    losses = train_step(build(dual(distill=both)))
    assert losses['distill.loss_dhkd'] > 0 and losses['distill.loss_kd'] > 0

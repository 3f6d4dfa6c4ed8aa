"""Statistics of a training step against the same quantities written out, and what watching leaves alone."""
import copy
from types import SimpleNamespace

import aligning
import numpy as np
import pytest
import torch
from mmengine.optim import build_optim_wrapper
from scheduled import logged, run
from tiny import batch, build, distilled, segmentor
from torch.nn.functional import interpolate
from torch.utils._python_dispatch import TorchDispatchMode

from mmseg_kd.engine import DistillStatisticsHook
from mmseg_kd.engine.step_statistics import StepStatistics, _sampled
from mmseg_kd.functional.upsampled import Upsampled

TWO_TERMS = dict(dkd=dict(loss=dict(type='mmseg_kd.DKDLoss', beta=2., temperature=4., loss_weight=0.5)),
                 deep=dict(loss=dict(type='mmseg_kd.CWDLoss'), on=('backbone.layer4', 'backbone.layer4')))


def step(model, optimizer, watch):
    """One training step under a seed; the statistics if it was watched."""
    torch.manual_seed(7)
    statistics = StepStatistics(model) if watch else None
    model.train_step(batch(), optimizer)
    return statistics.close() if watch else None


def softmax(logits, temperature=1.):
    shifted = np.exp((logits - logits.max(1, keepdims=True)) / temperature)
    return shifted / shifted.sum(1, keepdims=True)


def numpy_logits(model, teacher_model, data, size):
    """Logits (positions, C) of student and teacher in float64, and labels."""
    logits = []
    handle = model.decode_head.conv_seg.register_forward_hook(lambda module, args, output: logits.append(output))
    torch.manual_seed(7)
    model.loss(data['inputs'], data['data_samples'])
    handle.remove()
    with torch.no_grad():
        logits.append(teacher_model.decode_head(teacher_model.extract_feat(data['inputs'])))
    labels = torch.cat([sample.gt_sem_seg.data for sample in data['data_samples']]).flatten().numpy()
    return [interpolate(each.detach(), size=size, mode='bilinear').double().movedim(1, -1).flatten(0, 2).numpy()
            for each in logits] + [labels]


def test_numbers_of_a_step():
    model = build(distilled(segmentor(), segmentor(head='PSPHead'), distill=TWO_TERMS)).train()
    # As initialised, both would name one class everywhere.
    for each in (model, model.teacher.model):
        torch.nn.init.normal_(each.decode_head.conv_seg.weight)
        each.decode_head.conv_seg.bias.data[:4] = 1.5
    twin = copy.deepcopy(model)
    found = step(model, build_optim_wrapper(model, dict(optimizer=dict(type='SGD', lr=0.1))), watch=True)

    data = twin.data_preprocessor(batch(), True)
    z, v, labels = numpy_logits(copy.deepcopy(twin), twin.teacher.model, data, (32, 64))
    valid = labels != 255
    assert 0 < valid.sum() < valid.size
    z, v, labels = z[valid], v[valid], labels[valid]
    rows = np.arange(len(labels))
    q, p = softmax(z, 4), softmax(v, 4)
    q_t, p_t = q[rows, labels], p[rows, labels]
    target = 16 * (p_t * np.log(p_t / q_t) + (1 - p_t) * np.log((1 - p_t) / (1 - q_t))).mean()
    others = np.arange(19)[None] != labels[:, None]
    q, p = (each[others].reshape(-1, 18) / (1 - each[rows, labels])[:, None] for each in (q, p))
    assert found['distill.target_dkd'] == pytest.approx(target, rel=1e-4)
    assert found['distill.non_target_dkd'] == pytest.approx(16 * (p * np.log(p / q)).sum(1).mean(), rel=1e-4)
    assert found['distill.teacher_confidence_dkd'] == pytest.approx(softmax(v).max(1).mean(), rel=1e-5)
    assert found['distill.label_confidence_dkd'] == pytest.approx(softmax(z)[rows, labels].mean(), rel=1e-5)
    agreement = (z.argmax(1) == v.argmax(1)).mean()
    assert 0 < agreement < 1 and found['distill.agreement_dkd'] == pytest.approx(agreement, abs=2 / len(labels))

    features = []
    twin.decode_head.conv_seg.register_forward_pre_hook(lambda module, args: features.append(args[0]))
    torch.manual_seed(7)
    losses = twin.loss(data['inputs'], data['data_samples'])
    s, d = (torch.autograd.grad(losses[name], features[0], retain_graph=True)[0].flatten().double()
            for name in ('decode.loss_ce', 'distill.loss_dkd'))
    assert found['distill.supervised_cosine_dkd'] == pytest.approx((s @ d / s.norm() / d.norm()).item(), abs=1e-5)
    # CWD on a backbone layer has no parts, compares no classes and does not reach the classifier.
    assert not [name for name in found if name.endswith('_deep')]


@pytest.mark.parametrize('settings', [
    dict(type='OptimWrapper'),
    dict(type='mmseg_kd.GradAlignOptimWrapper', level='features'),
    dict(type='mmseg_kd.GradAlignOptimWrapper', level='parameters')], ids=['plain', 'features', 'parameters'])
def test_watching_changes_no_weight(settings):
    weights = []
    for watch in (False, True):
        loss = dict(type='mmseg_kd.StochasticGDKDLoss', keep=0.5)
        model = aligning.student(distill=dict(stochastic=dict(loss=loss, on='aux_logits')), kind='nonlinear')
        optimizer = build_optim_wrapper(model, dict(settings, optimizer=dict(type='SGD', lr=0.1, momentum=0.9)))
        found = [step(model, optimizer, watch) for _ in range(2)]
        weights.append({name: value.clone() for name, value in model.named_parameters()})
    assert all('distill.supervised_cosine_stochastic' in each for each in found)
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not model.terms['stochastic'].loss._forward_pre_hooks and not model._forward_hooks


def test_a_step_without_labels_has_no_means():
    model = build(distilled(segmentor(), segmentor(16, 'PSPHead'))).train()
    data = batch()
    for sample in data['data_samples']:
        sample.gt_sem_seg.data[:] = 255
    statistics = StepStatistics(model)
    model.train_step(data, build_optim_wrapper(model, dict(optimizer=dict(type='SGD', lr=0.1))))
    assert set(statistics.close()) <= {'distill.supervised_cosine_dkd'}


class Waits(TorchDispatchMode):
    """Counts how often a tensor's value goes to the host."""

    number = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.number += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **kwargs or {})


def test_steps_between_two_records_do_not_wait_for_the_device():
    model = build(distilled(segmentor(), segmentor(16, 'PSPHead'))).train()
    optimizer = build_optim_wrapper(model, dict(optimizer=dict(type='SGD', lr=0.1)))
    written = []
    runner = SimpleNamespace(model=model, iter=0, visualizer=SimpleNamespace(
        add_scalars=lambda values, step: written.append((step, values))))
    hook, waits = DistillStatisticsHook(interval=3), []
    for runner.iter in range(6):
        with Waits() as counted:
            hook.before_train_iter(runner, runner.iter)
            model.train_step(batch(), optimizer)
            hook.after_train_iter(runner, runner.iter)
        waits.append(counted.number)
    assert [at for at, _ in written] == [3, 6]
    plain = waits[0]
    assert waits[:2] == waits[3:5] == [plain, plain] and waits[2] > plain


def test_a_run_logs_them_where_the_backends_are(mini_cityscapes, tmp_path):
    _, runner = run(mini_cityscapes, tmp_path, None, 4, hooks=[
        dict(type='mmseg_kd.DistillStatisticsHook', interval=2)])
    target, rest, loss = (logged(runner, f'distill.{name}_kd') for name in ('target', 'non_target', 'loss'))
    assert len(target) == 2 and len(loss) == 4
    for step, (one, other) in zip((1, 3), zip(target, rest, strict=True), strict=True):
        history = runner.message_hub.get_scalar('train/distill.loss_kd').data[0]
        assert one + other == pytest.approx(history[step], rel=1e-4)
    assert logged(runner, 'loss')[0] == pytest.approx(
        logged(runner, 'distill.loss_kd')[0] + logged(runner, 'decode.loss_ce')[0], rel=1e-5)


@pytest.mark.parametrize('of_logger, expected', [(1, 50), (20, 60), (50, 50), (200, 200)])
def test_by_default_records_stand_beside_the_loggers(of_logger, expected):
    from mmengine.hooks import LoggerHook
    hook = DistillStatisticsHook()
    hook.before_train(SimpleNamespace(model=torch.nn.Module(), hooks=[LoggerHook(interval=of_logger)]))
    assert hook.interval == expected


@pytest.mark.parametrize('interval', [0, -1, 2.5, True, 'often'])
def test_bad_intervals_are_refused(interval):
    with pytest.raises(ValueError, match='`interval`: expected a positive integer'):
        DistillStatisticsHook(interval=interval)


def test_a_large_batch_is_read_at_an_even_grid():
    # 2 x 128 x 256 positions: every second row and column makes 16384.
    shape = (2, 3, 128, 256)
    logits = torch.arange(128.)[:, None] * 1000 + torch.arange(256.)
    student = logits.expand(shape)
    found, teacher, target, weight = _sampled(student, student + 1, student[:, 0].long(), None)
    rows, columns = torch.arange(1., 128, 2), torch.arange(1., 256, 2)
    expected = (rows[:, None] * 1000 + columns).expand(2, 3, 64, 128)
    assert torch.equal(found, expected) and torch.equal(teacher, expected + 1)
    assert torch.equal(target, expected[:, 0].long()) and weight is None
    small = torch.zeros(5, 3)
    assert _sampled(small, small)[0] is small


@pytest.mark.parametrize('align_corners', [False, True])
def test_logits_that_are_not_upsampled_yet_are_read_as_if_they_were(align_corners):
    student, teacher = torch.randn(2, 3, 17, 9), torch.randn(2, 3, 5, 40)
    for size in ((130, 210), (16, 20)):
        found = _sampled(*(Upsampled(each, size, align_corners) for each in (student, teacher)))
        stride = 2 if size[0] > 100 else 1
        for each, logits in zip(found, (student, teacher), strict=True):
            whole = interpolate(logits, size=size, mode='bilinear', align_corners=align_corners)
            torch.testing.assert_close(each, whole[..., stride // 2::stride, stride // 2::stride], rtol=1e-4, atol=1e-4)


def test_a_term_that_compares_twice_has_the_mean_of_both():
    model = build(distilled(segmentor(), segmentor(16, 'PSPHead'), distill=dict(kd=dict(
        loss=dict(type='mmseg_kd.KDLoss', temperature=1.))))).train()
    statistics = StepStatistics(model)
    student, labels = torch.zeros(1, 19, 2, 3), torch.full((1, 2, 3), 4)
    confident = student.clone()
    confident[:, 4] = 100.
    for teacher in (student, confident):
        model.terms['kd'].loss(student, teacher, labels)
    found = statistics.close()
    assert found['distill.teacher_confidence_kd'] == pytest.approx((1 / 19 + 1) / 2)
    assert found['distill.target_kd'] == pytest.approx(np.log(19) / 2)

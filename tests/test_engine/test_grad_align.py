"""Gradient alignment against a plain transcription, and with everything that an optimizer wrapper meets."""
import contextlib
import functools
import json

import mmengine.optim.optimizer.amp_optimizer_wrapper as mmengine_amp
import mmengine.runner.amp
import pytest
import torch
from aligning import AUX, aligned, gradients, objectives, student
from mmengine.logging import MessageHub
from mmengine.model import ExponentialMovingAverage
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.runner import Runner
from tiny import ROOT, batch, command, distilled, run_config, segmentor

from mmseg_kd.engine import AmpGradAlignOptimWrapper, GradAlignOptimWrapper

LR = 0.1


def wrapper(model, cls=GradAlignOptimWrapper, **settings):
    return cls(optimizer=torch.optim.SGD(model.parameters(), lr=LR), **settings)


def steps(model, optimizer, seeds=(0,), **data):
    torch.manual_seed(7)
    for seed in seeds:
        model.train_step(batch(seed=seed, **data), optimizer)
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def before(model):
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def equal(got, wanted, tolerance=1e-6):
    assert got.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(
            got[name], value, rtol=tolerance, atol=tolerance, msg=lambda text, name=name: f'{name}: {text}')


def logged(name):
    return MessageHub.get_current_instance().get_scalar(f'train/{name}').current()


@pytest.mark.parametrize('conflict', [True, False])
@pytest.mark.parametrize('scope', ['shared', 'all'])
def test_parameters_are_the_transcription(scope, conflict):
    model = student(conflict)
    start = before(model)
    s, d = gradients(student(conflict))
    got = steps(model, wrapper(model, scope=scope))
    wanted = aligned(s, d, scope)
    equal(got, {name: value - LR * wanted[name] for name, value in start.items()})
    assert logged('align_conflict') == conflict
    shared = [name for name in s if s[name] is not None and d[name] is not None]
    assert {name for name in s if name not in shared} == {
        f'{layer}.{part}' for layer in ('decode_head.conv_seg', 'distill.dual_head') for part in ('weight', 'bias')}
    dot, one, other = (sum((a[n].double() * b[n].double()).sum() for n in shared) for a, b in ((s, d), (s, s), (d, d)))
    if scope == 'shared':
        assert logged('align_cosine') == pytest.approx((dot / (one * other) ** 0.5).item(), abs=1e-5)
        if conflict:
            after = sum(((wanted[n] - s[n]).double() * s[n].double()).sum() for n in shared)
            assert abs(after / one) < 1e-5, 'distillation still has a component along the supervised gradient'


def test_scopes_differ_in_what_they_say():
    """'all' scales the main classifier's gradient, 'shared' leaves it alone."""
    start, weights = student().decode_head.conv_seg.weight.detach().clone(), {}
    for scope in ('shared', 'all', None):
        model = student()
        optimizer = wrapper(model, scope=scope) if scope else OptimWrapper(torch.optim.SGD(model.parameters(), lr=LR))
        weights[scope] = steps(model, optimizer)['decode_head.conv_seg.weight'] - start
    assert torch.equal(weights['shared'], weights[None])
    factor = (weights['all'] / weights[None])[weights[None].abs() > 1e-4]
    assert factor.min() > 1.0001 and factor.max() - factor.min() < 1e-2


@pytest.mark.parametrize('conflict', [True, False])
def test_features_are_the_transcription(conflict):
    """Two backward passes from the losses to the features, a third below them."""
    model = student(conflict)
    start = before(model)
    plain = student(conflict)
    seen = []
    plain.decode_head.conv_seg.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    supervised, distillation = objectives(plain)
    s, d = (torch.autograd.grad(loss, seen[0], retain_graph=True)[0] for loss in (supervised, distillation))
    dot = (s * d).sum()
    assert (dot < 0) == conflict
    pull = s + (d - dot / (s * s).sum() * s if conflict else d)
    wanted = {}
    for name, parameter in plain.named_parameters():
        if 'conv_seg' in name:
            wanted[name], = torch.autograd.grad(supervised, parameter, retain_graph=True)
        elif 'dual_head' in name:
            wanted[name], = torch.autograd.grad(distillation, parameter, retain_graph=True)
        else:
            wanted[name], = torch.autograd.grad(seen[0], parameter, pull, retain_graph=True)
    got = steps(model, wrapper(model, level='features'))
    equal(got, {name: value - LR * wanted[name] for name, value in start.items()})
    assert logged('align_conflict') == conflict
    assert logged('align_cosine') == pytest.approx((dot / (s.norm() * d.norm())).item(), abs=1e-5)


@pytest.mark.parametrize('settings', [dict(), dict(scope='all'), dict(level='features')], ids=str)
def test_without_conflict_it_is_the_plain_step(settings):
    plain, model = student(conflict=False), student(conflict=False)
    wanted = steps(plain, OptimWrapper(torch.optim.SGD(plain.parameters(), lr=LR)))
    equal(steps(model, wrapper(model, **settings)), wanted)


@pytest.mark.parametrize('settings', [dict(), dict(scope='all'), dict(level='features')], ids=str)
def test_with_conflict_it_is_not(settings):
    plain, model = student(), student()
    wanted = steps(plain, OptimWrapper(torch.optim.SGD(plain.parameters(), lr=LR)))
    got = steps(model, wrapper(model, **settings))
    assert not torch.allclose(got['backbone.stem.0.weight'], wanted['backbone.stem.0.weight'], rtol=1e-4, atol=1e-7)


def test_features_leave_one_backward_pass_through_the_backbone():
    counts = {}
    for level in ('features', 'parameters'):
        model, calls = student(), []
        model.backbone.layer1.register_full_backward_hook(lambda *_, calls=calls: calls.append(1))
        steps(model, wrapper(model, level=level))
        counts[level] = len(calls)
    assert counts == dict(features=1, parameters=2)


@pytest.mark.parametrize('level', ['features', 'parameters'])
def test_nothing_is_left_behind(level):
    """No hooks, no second gradient, and a logged value that keeps a graph would keep all activations."""
    model = student()
    optimizer = wrapper(model, level=level)
    torch.manual_seed(7)
    logs = model.train_step(batch(), optimizer)
    assert not optimizer._second.gradients and all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert not any(value.requires_grad for value in logs.values())


def test_accumulated_parameters_align_the_accumulated_gradients():
    batches = [batch(seed=seed) for seed in (0, 1, 2)]
    sums = None
    for data in batches:
        pair = gradients(student(batch_norm=False), data)
        scaled = [{name: None if value is None else value / 3 for name, value in part.items()} for part in pair]
        sums = scaled if sums is None else [
            {name: None if part[name] is None else part[name] + more[name] for name in part}
            for part, more in zip(sums, scaled, strict=True)]
    model = student(batch_norm=False)
    start, optimizer = before(model), wrapper(model, accumulative_counts=3)
    for index, data in enumerate(batches):
        assert all(torch.equal(value, start[name]) for name, value in model.named_parameters())
        torch.manual_seed(7)
        model.train_step(data, optimizer)
        assert optimizer.inner_count == index + 1
    wanted = aligned(*sums, 'shared')
    assert logged('align_conflict') == 1
    equal(before(model), {name: value - LR * wanted[name] for name, value in start.items()})


def test_accumulation_is_the_large_batch():
    """Two halves of a batch do what the whole does; 'features' aligns each half on its own."""
    whole, halves = batch(size=4), [batch(size=4), batch(size=4)]
    for half, part in zip(halves, (slice(0, 2), slice(2, 4)), strict=True):
        half['inputs'], half['data_samples'] = half['inputs'][part], half['data_samples'][part]
    one, two = (student(batch_norm=False, dropout_ratio=0.) for _ in range(2))
    one.train_step(whole, wrapper(one))
    optimizer = wrapper(two, accumulative_counts=2)
    for half in halves:
        two.train_step(half, optimizer)
    equal(before(two), before(one))


def test_clipping_sees_the_aligned_gradient():
    s, d = gradients(student())
    wanted = aligned(s, d, 'shared')
    norm = torch.stack([value.norm() for value in wanted.values()]).norm()
    model = student()
    start = before(model)
    got = steps(model, wrapper(model, clip_grad=dict(max_norm=0.5 * norm.item())))
    equal(got, {name: value - LR * 0.5 * wanted[name] for name, value in start.items()})
    assert logged('grad_norm') == pytest.approx(norm.item(), rel=1e-4)


@pytest.mark.parametrize('level', ['features', 'parameters'])
def test_frozen_layers_stay_and_do_not_count(level):
    model, plain = student(), student()
    for each in (model, plain):
        for part in (each.backbone.stem, each.backbone.layer1):
            part.requires_grad_(False)
    start = before(model)
    s, d = gradients(plain)
    got = steps(model, wrapper(model, level=level))
    assert all(torch.equal(value, start[name]) for name, value in got.items() if 'stem' in name or 'layer1' in name)
    if level == 'parameters':
        wanted = aligned(s, d, 'shared')
        equal(got, {name: value - LR * wanted[name] if name in wanted else value for name, value in start.items()})


def test_nothing_shared_is_the_plain_step():
    """A frozen student under two classifiers that learn."""
    results = []
    for level in (None, 'features', 'parameters'):
        model = student(dropout_ratio=0.)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_('conv_seg' in name or 'dual_head' in name)
        optimizer = wrapper(model, OptimWrapper) if level is None else wrapper(model, level=level)
        results.append(steps(model, optimizer))
    equal(results[1], results[0])
    equal(results[2], results[0])


def test_parameter_groups_have_their_own_rates():
    model = student()
    start = before(model)
    settings = dict(type='mmseg_kd.GradAlignOptimWrapper', optimizer=dict(type='SGD', lr=LR),
                    paramwise_cfg=dict(custom_keys=dict(decode_head=dict(lr_mult=10.), backbone=dict(lr_mult=0.5))))
    s, d = gradients(student())
    got = steps(model, build_optim_wrapper(model, settings))
    wanted = aligned(s, d, 'shared')
    rates = dict(decode_head=10 * LR, backbone=0.5 * LR, distill=LR)
    equal(got, {name: value - rates[name.split('.')[0]] * wanted[name] for name, value in start.items()}, 1e-5)


@pytest.mark.parametrize('level', ['features', 'parameters'])
def test_ema_follows(level):
    model = student()
    start, average = before(model), ExponentialMovingAverage(model, momentum=0.25)
    average.update_parameters(model)
    got = steps(model, wrapper(model, level=level))
    average.update_parameters(model)
    equal(before(average.module), {name: 0.75 * value + 0.25 * got[name] for name, value in start.items()})


@pytest.fixture
def amp_on_cpu(monkeypatch):
    """mmengine's AmpOptimWrapper refuses to start without a GPU; its arithmetic is the same."""
    monkeypatch.setattr(mmengine_amp, 'is_cuda_available', lambda: True)
    monkeypatch.setattr(mmengine_amp, 'GradScaler', functools.partial(torch.amp.GradScaler, 'cpu'))

    def use(autocast):
        monkeypatch.setattr(mmengine.runner.amp, 'autocast', autocast)
    return use


@pytest.mark.parametrize(
    'settings', [dict(), dict(scope='all'), dict(level='features'), dict(clip_grad=dict(max_norm=0.1))], ids=str)
def test_loss_scale_cancels(amp_on_cpu, settings):
    amp_on_cpu(lambda **_: contextlib.nullcontext())
    plain, model = student(), student()
    wanted = steps(plain, wrapper(plain, **dict(settings)), (0, 1))
    got = steps(model, wrapper(model, AmpGradAlignOptimWrapper, loss_scale=1024., **dict(settings)), (0, 1))
    equal(got, wanted, 1e-5)


@pytest.mark.parametrize('level', ['features', 'parameters'])
def test_half_precision_trains(amp_on_cpu, level):
    amp_on_cpu(lambda **_: torch.autocast('cpu', torch.bfloat16))
    model = student()
    start = before(model)
    got = steps(model, wrapper(model, AmpGradAlignOptimWrapper, level=level), (0, 1))
    assert all(torch.isfinite(value).all() for value in got.values())
    assert not torch.equal(got['backbone.stem.0.weight'], start['backbone.stem.0.weight'])


def test_an_overflow_skips_the_step(amp_on_cpu):
    amp_on_cpu(lambda **_: contextlib.nullcontext())
    model = student()
    model.backbone.stem[0].weight.register_hook(lambda gradient: gradient * float('inf'))
    start, optimizer = before(model), wrapper(model, AmpGradAlignOptimWrapper, loss_scale=dict(init_scale=1024.))
    got = steps(model, optimizer)
    assert all(torch.equal(value, start[name]) for name, value in got.items())
    assert optimizer.loss_scaler.get_scale() == 512.


def test_one_head_at_the_level_of_parameters():
    """Alignment needs no second classifier there."""
    kd = dict(kd=dict(loss=dict(type='mmseg_kd.KDLoss', loss_weight=5.)))
    model, plain = (student(kind=None, distill=kd) for _ in range(2))
    start = before(model)
    s, d = gradients(plain)
    wanted = aligned(s, d, 'shared')
    equal(steps(model, wrapper(model)), {name: value - LR * wanted[name] for name, value in start.items()})


@pytest.mark.parametrize('settings, message', [
    (dict(level='layers'), '`optim_wrapper.level`: expected'), (dict(scope='some'), '`optim_wrapper.scope`: expected'),
    (dict(level='features', scope='all'), '`optim_wrapper.scope`: level=')], ids=str)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        wrapper(torch.nn.Linear(1, 1), **settings)


@pytest.mark.parametrize('level', ['features', 'parameters'])
def test_a_plain_model_is_refused(level):
    from tiny import build
    model = build(segmentor())
    with pytest.raises(ValueError, match='distilled model'):
        model.train_step(batch(), wrapper(model, level=level))


def test_features_need_a_dual_head_that_takes_all():
    kd = dict(kd=dict(loss=dict(type='mmseg_kd.KDLoss')))
    model = student(kind=None, distill=kd)
    with pytest.raises(ValueError, match="level='features'`: there must be a second classifier"):
        model.train_step(batch(), wrapper(model, level='features'))
    model = student(kind='nonlinear', distill=AUX | kd)
    with pytest.raises(ValueError, match=r"level='features'`: only terms .*`distill\.kd\.on` is another"):
        model.train_step(batch(), wrapper(model, level='features'))


def test_a_forward_pass_outside_of_the_context_is_refused():
    model = student()
    loss, _ = model.parse_losses(model.loss(*model.data_preprocessor(batch(), True).values()))
    with pytest.raises(ValueError, match='must run in `optim_context`'):
        wrapper(model, level='features').update_params(loss)


def test_without_supervised_losses_there_is_nothing_to_align():
    model = student()
    losses = model.loss(*model.data_preprocessor(batch(), True).values())
    loss, _ = model.parse_losses({name: value for name, value in losses.items() if name.startswith('distill')})
    with pytest.raises(ValueError, match='no supervised loss'):
        wrapper(model).update_params(loss)


@pytest.mark.parametrize('level', ['features', 'parameters'])
def test_through_a_runner_from_a_config(mini_cityscapes, tmp_path, level):
    """Built from its name, with resume in between; the log has the cosine, and no key of it is taken for a loss."""
    def run(work_dir, max_iters, resume=False):
        model = distilled(segmentor(), segmentor(16, 'PSPHead'), distill=AUX) | dict(dual_head=dict(kind='nonlinear'))
        optimizer = dict(type='mmseg_kd.GradAlignOptimWrapper', level=level, clip_grad=dict(max_norm=1.),
                         optimizer=dict(type='AdamW', lr=1e-3))
        config = run_config(model, mini_cityscapes, max_iters=max_iters, work_dir=str(tmp_path / work_dir),
                            resume=resume, optim_wrapper=optimizer,
                            experiment_name=f'{tmp_path}{work_dir}{max_iters}',
                            visualizer=dict(type='Visualizer', name=f'{tmp_path}{work_dir}{max_iters}',
                                            vis_backends=[dict(type='LocalVisBackend')]),
                            custom_hooks=[dict(type='mmseg_kd.ExactResumeHook')])
        runner = Runner.from_cfg(config)
        runner.train()
        return before(runner.model), (tmp_path / work_dir / runner.timestamp / 'vis_data/scalars.json').read_text()

    straight, log = run('straight', 4)
    run('broken', 2)
    broken, _ = run('broken', 4, resume=True)
    assert straight.keys() == broken.keys()
    assert all(torch.equal(value, broken[name]) for name, value in straight.items())
    line = json.loads(log.splitlines()[0])
    assert -1 <= line['align_cosine'] <= 1 and line['align_conflict'] == (line['align_cosine'] < 0)
    assert line['loss'] == pytest.approx(line['decode.loss_ce'] + line['distill.loss_dhkd'], rel=1e-5)


def test_two_processes_are_one_on_the_joined_batch(tmp_path):
    """gloo, three steps each, with momentum, clipping, parameter groups and accumulation; see grad_align_ddp.py."""
    command('-m', 'torch.distributed.run', '--nproc_per_node=2', '--master_port=29713',
            'tests/test_engine/grad_align_ddp.py', tmp_path,
            PYTHONPATH=f'{ROOT}:{ROOT}/tests:{ROOT}/tests/test_engine')
    from grad_align_ddp import CASES, train
    for name, settings in CASES.items():
        alone, conflicts = train(settings, whole=True)
        assert 0 < sum(conflicts), f'{name}: no conflict, the test shows nothing'
        for rank in range(2):
            there = torch.load(tmp_path / f'{name}_{rank}.pth')
            equal(there['weights'], alone, 1e-5)
            assert there['conflicts'] == conflicts



"""Several teachers, and a teacher that is the student's own average."""
import copy

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from tiny import batch, build, command, distilled, run_config, segmentor, train_only_state

KD = dict(loss=dict(type='mmseg_kd.KDLoss'))
MSE = dict(loss=dict(type='mmseg_kd.FeatureMSELoss'), on='backbone.layer3', adapter=dict(kind='linear'))
HOOKS = [dict(type='mmseg_kd.ExactResumeHook')]
EMA = dict(type='ema', momentum=0.2, warmup=False)
TEACHERS = [segmentor(16, 'PSPHead'), segmentor(24, dilated=False)]


def guest(config, **settings):
    return dict(config=dict(model=copy.deepcopy(config)), **settings)


def with_teachers(teacher, **distill):
    return distilled(segmentor(), segmentor(16), distill=distill or dict(kd=KD)) | dict(teacher=copy.deepcopy(teacher))


def losses_of(config):
    model = build(config)
    data = model.data_preprocessor(batch(), True)
    torch.manual_seed(1)
    return model, model.train().loss(data['inputs'], data['data_samples'])


@pytest.fixture(scope='module')
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp('teachers')
    for index, config in enumerate(TEACHERS):
        torch.save(build(config, seed=7 + index).state_dict(), folder / f'{index}.pth')
    return [str(folder / '0.pth'), str(folder / '1.pth')]


def guests(checkpoints, *weights):
    return [guest(config, checkpoint=path, **({'weight': weight} if weights else {}))
            for config, path, weight in zip(TEACHERS, checkpoints, weights or (1, 1), strict=True)]


def test_each_term_is_the_weighted_sum_over_the_teachers(checkpoints):
    alone = [losses_of(with_teachers({name: value for name, value in each.items() if name != 'weight'}))[1]
             for each in guests(checkpoints)]
    first, second = (each['distill.loss_kd'].item() for each in alone)
    _, weighted = losses_of(with_teachers(guests(checkpoints, 3., 0.5)))
    assert weighted['distill.loss_kd'].item() == pytest.approx(3 * first + 0.5 * second, rel=1e-5)
    _, mean = losses_of(with_teachers(guests(checkpoints)))
    assert mean['distill.loss_kd'].item() == pytest.approx((first + second) / 2, rel=1e-5)
    assert set(mean) == set(alone[0])


def test_each_teacher_has_its_adapter(checkpoints):
    model, losses = losses_of(with_teachers(guests(checkpoints), mse=MSE))
    assert [adapter[0].weight.shape[0] for adapter in model.terms['mse'].adapters] == [64, 96]
    losses['distill.loss_mse'].backward()
    assert all(value.grad.any() for value in model.terms['mse'].parameters())


def test_all_teachers_are_guests(checkpoints):
    model = build(with_teachers([*guests(checkpoints), EMA])).to(torch.float64)
    assert list(model.state_dict()) == list(build(segmentor()).state_dict())
    for teacher in model.train().teachers:
        parameters = list(teacher.model.parameters())
        assert parameters[0].dtype == torch.float64 and not any(value.requires_grad for value in parameters)
        assert not any(module.training for module in teacher.model.modules())
    assert len(list(model.parameters())) == len(list(build(segmentor()).parameters()))


@pytest.mark.parametrize('move', [lambda model: model.half(), lambda model: model.to('meta')], ids=['half', 'meta'])
def test_a_copy_that_is_moved_leaves_the_originals_teachers(checkpoints, move):
    model = build(with_teachers([guests(checkpoints)[0], EMA])).train()
    data = model.data_preprocessor(batch(), True)
    expected = model(**data, mode='loss')['distill.loss_kd']
    before = [value.clone() for teacher in model.teachers for value in teacher.model.state_dict().values()]
    still = copy.deepcopy(model)
    assert still.to('cpu').teachers == model.teachers
    moved = move(copy.deepcopy(model))
    for own, teacher in zip(moved.teachers, model.teachers, strict=True):
        assert own is not teacher
        theirs, ours = next(own.model.parameters()), next(moved.parameters())
        assert (theirs.device, theirs.dtype) == (ours.device, ours.dtype)
    after = [value for teacher in model.teachers for value in teacher.model.state_dict().values()]
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))
    model.eval()
    assert torch.isfinite(expected) and torch.isfinite(model.loss(**data)['distill.loss_kd'])


def test_two_teachers_through_the_runner(mini_cityscapes, tmp_path, checkpoints):
    config = run_config(with_teachers(guests(checkpoints, 0.7, 0.3), kd=KD, mse=MSE), mini_cityscapes, max_iters=2,
                        work_dir=str(tmp_path), custom_hooks=HOOKS, experiment_name='two')
    Runner.from_cfg(config).train()
    checkpoint = torch.load(tmp_path / 'iter_2.pth', weights_only=False)
    build(segmentor()).load_state_dict(checkpoint['state_dict'], strict=True)
    assert set(train_only_state(checkpoint)) == {
        f'terms.mse.adapters.{index}.0.{name}' for index in (0, 1) for name in ('weight', 'bias')}


@pytest.mark.parametrize('warmup', [False, True])
def test_the_average_is_its_formula(mini_cityscapes, tmp_path, warmup):
    """Through the Runner with two iterations to a step: three steps, three averages, of what the optimizer left."""
    seen = []

    class Watch(torch.optim.SGD):
        def step(self, *args, **kwargs):
            result = super().step(*args, **kwargs)
            seen.append([value.detach().double().clone() for group in self.param_groups for value in group['params']])
            return result

    config = run_config(with_teachers(dict(EMA, momentum=0.4, warmup=warmup)), mini_cityscapes, max_iters=6,
                        work_dir=str(tmp_path), custom_hooks=HOOKS, experiment_name=f'formula{warmup}')
    config.optim_wrapper = dict(type='OptimWrapper', accumulative_counts=2,
                                optimizer=dict(type=Watch, lr=0.05))
    runner = Runner.from_cfg(config)
    model = runner.model
    model.init_weights()
    average = [value.detach().double().clone() for value in model.parameters()]
    runner.train()
    assert len(seen) == 3
    for step, weights in enumerate(seen, start=1):
        share = max(0.4, 1 / (step + 1)) if warmup else 0.4
        average = [(1 - share) * old + share * new for old, new in zip(average, weights, strict=True)]
    teacher = model.teacher
    assert teacher.steps == 3
    for got, expected in zip(teacher.model.parameters(), average, strict=True):
        torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-6)
    counters = [value for name, value in teacher.model.named_buffers() if name.endswith('num_batches_tracked')]
    assert all(value == 6 for value in counters)


def test_it_begins_as_the_student_begins():
    """Against the student itself, without dropout and in eval mode, there is nothing to distil."""
    model = build(with_teachers(EMA))
    for teacher in model.ema_teachers:
        teacher.start(model)
    data = model.data_preprocessor(batch(), True)
    losses = model.eval().loss(data['inputs'], data['data_samples'])
    assert losses['distill.loss_kd'].item() == pytest.approx(0, abs=1e-6)


def test_command_line_resume_restores_it_exactly(mini_cityscapes, tmp_path, checkpoints):
    """6 iterations against 3, a new process and 3 more; beside a second teacher, and through an adapter."""
    teachers = [dict(EMA, weight=1.), dict(guests(checkpoints)[0], weight=0.5)]
    config = run_config(with_teachers(teachers, kd=KD, mse=MSE), mini_cityscapes, max_iters=6)
    config.default_hooks.checkpoint.interval = 3
    config.default_hooks.checkpoint.max_keep_ckpts = 5
    config.train_cfg.val_interval = 100
    config.dump(tmp_path / 'config.py')
    tool = ['tools/train.py', tmp_path / 'config.py', '--work-dir']
    command(*tool, tmp_path / 'straight')
    command(*tool, tmp_path / 'broken', '--cfg-options', 'train_cfg.max_iters=3')
    command(*tool, tmp_path / 'broken', '--resume')
    straight, broken, halfway = (torch.load(tmp_path / name, weights_only=False) for name in (
        'straight/iter_6.pth', 'broken/iter_6.pth', 'broken/iter_3.pth'))
    for checkpoint in (straight, broken, halfway):
        checkpoint['train_only_state'] = train_only_state(checkpoint)
    for part in ('state_dict', 'train_only_state'):
        assert straight[part].keys() == broken[part].keys()
        assert all(torch.equal(value, broken[part][name]) for name, value in straight[part].items()), part
    of_teacher = {name: value for name, value in straight['train_only_state'].items() if name.startswith('ema_teacher')}
    assert {name.removeprefix('ema_teacher.0.') for name in of_teacher} == {'steps', *straight['state_dict']}
    assert of_teacher['ema_teacher.0.steps'] == 6 and halfway['train_only_state']['ema_teacher.0.steps'] == 3
    name = 'backbone.layer1.0.conv1.weight'
    assert not torch.equal(of_teacher[f'ema_teacher.0.{name}'], straight['state_dict'][name])
    build(segmentor()).load_state_dict(straight['state_dict'], strict=True)


def test_a_step_that_a_scaler_left_out_inside_a_fused_optimizer_does_not_count():
    """torch calls such an optimizer for every step; it looks itself whether the gradients are finite."""
    model = build(with_teachers(EMA)).train()
    data = model.data_preprocessor(batch(), True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=True)
    scaler = torch.amp.GradScaler('cpu', init_scale=2.)
    counted, changed = [], []
    for factor in (1., float('inf'), 1.):
        before = model.decode_head.conv_seg.weight.detach().clone()
        optimizer.zero_grad()
        total, _ = model.parse_losses(model(**data, mode='loss'))
        scaler.scale(total * factor).backward()
        scaler.step(optimizer)
        scaler.update()
        counted.append(model.teacher.steps)
        changed.append(not torch.equal(before, model.decode_head.conv_seg.weight))
    assert counted == [1, 1, 2] and changed == [True, False, True]


def test_it_follows_a_loop_of_ones_own():
    """Without a Runner as well: it begins as the student began, and takes in each of two steps."""
    model = build(with_teachers(dict(EMA, momentum=0.25, warmup=False))).train()
    average = [value.detach().clone() for value in model.parameters()]
    optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    for _ in range(2):
        model.train_step(batch(), optimizer)
        average = [0.75 * old + 0.25 * new.detach() for old, new in zip(average, model.parameters(), strict=True)]
    assert model.teacher.steps == 2
    for got, expected in zip(model.teacher.model.parameters(), average, strict=True):
        torch.testing.assert_close(got, expected)


def test_a_teacher_that_did_not_begin_is_said():
    model = build(with_teachers(EMA))
    with pytest.raises(ValueError, match="`teacher`: the average of type='ema' begins with the first training step"):
        data = model.data_preprocessor(batch(), True)
        model.loss(data['inputs'], data['data_samples'])


@pytest.mark.parametrize('teacher, message', [
    ([], '`teacher`: expected dict'),
    (['a.py'], '`teacher`: expected dict'),
    ([guest(segmentor(), weight=1.), guest(segmentor())], r'`teacher.weight`: expected .* got \[1.0, None\]'),
    ([guest(segmentor(), weight=-1.)], '`teacher.weight`: expected a finite number >= 0'),
    (guest(segmentor(), weight=1.), r"`teacher`: unknown setting \['weight'\]"),
    ([guest(segmentor()), guest(segmentor(num_classes=7))], 'the student has 19, the teacher 7'),
    (dict(EMA, momentum=0.), '`teacher.momentum`: expected a number above 0'),
    (dict(EMA, momentum='0.1'), '`teacher.momentum`: expected a number above 0'),
    (dict(EMA, warmup=3), '`teacher.warmup`: expected True or False'),
    (dict(EMA, checkpoint='x.pth'), r"`teacher`: unknown setting \['checkpoint'\] of type='ema'"),
])
def test_refused(teacher, message):
    with pytest.raises(ValueError, match=message):
        build(with_teachers(teacher))


def test_a_tap_must_be_in_every_teacher():
    tap = dict(loss=dict(type='mmseg_kd.AttentionTransferLoss'), on='decode_head.convs')
    with pytest.raises(ValueError, match="the teacher has nothing to read at 'decode_head.convs'.*conv_seg"):
        build(with_teachers([guest(segmentor(16)), guest(segmentor(16, 'PSPHead'))], x=tap))


def test_images_of_another_number_of_channels_are_refused():
    teacher = segmentor(16)
    teacher['backbone'] = dict(teacher['backbone'], in_channels=4)
    with pytest.raises(ValueError, match=r'`teacher.*`: the teacher takes images of 4 channels, the student of 3 .*'
                                         r'`backbone.in_channels`'):
        build(with_teachers(guest(teacher)))

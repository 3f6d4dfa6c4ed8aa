"""DistilledEncoderDecoder against plain mmseg."""
import numpy as np
import pytest
import scipy.special
import torch
from mmengine.model import ExponentialMovingAverage
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from tiny import batch, build, build_part, distilled, run_config, segmentor

KD = dict(kd=dict(loss=dict(type='mmseg_kd.KDLoss', temperature=2., loss_weight=3.)))


def train_step(model, data=None, lr=0.1):
    optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=lr))
    return model.train().train_step(data or batch(), optimizer)


def teacher_tensors(model):
    return {name: value.clone() for name, value in model.teacher.model.state_dict().items()}


def test_training_leaves_the_teacher_as_it_was():
    model = build(distilled(segmentor(), segmentor(16, 'PSPHead')))
    before = teacher_tensors(model)
    student_before = {name: value.clone() for name, value in model.state_dict().items()}
    for seed in range(2):
        train_step(model, batch(seed=seed))
    assert all(torch.equal(before[name], value) for name, value in teacher_tensors(model).items())
    for name in ('backbone.stem.0.weight', 'decode_head.conv_seg.weight', 'backbone.stem.1.running_mean'):
        assert not torch.equal(student_before[name], model.state_dict()[name])


def test_teacher_stays_in_eval_without_gradients():
    model = build(distilled(segmentor(), segmentor(16, 'PSPHead'))).train()
    assert not any(module.training for module in model.teacher.model.modules())
    assert not any(parameter.requires_grad for parameter in model.teacher.model.parameters())
    model.requires_grad_(True)
    model.init_weights()
    assert not any(parameter.requires_grad for parameter in model.teacher.model.parameters())


def test_init_weights_does_not_touch_the_teacher():
    model = build(distilled(segmentor(), segmentor(16, 'PSPHead')))
    before = teacher_tensors(model)
    model._is_init = False
    model.init_weights()
    assert all(torch.equal(before[name], value) for name, value in teacher_tensors(model).items())


def test_the_model_has_the_names_of_its_student():
    plain, model = build(segmentor()), build(distilled(segmentor(), segmentor(16, 'PSPHead')))
    assert list(model.state_dict()) == list(plain.state_dict())
    assert [name for name, _ in model.named_parameters()] == [name for name, _ in plain.named_parameters()]
    assert not any('teacher' in name for name, _ in model.named_modules())


def test_the_teacher_changes_no_initial_weight_of_the_student():
    plain, model = build(segmentor(), seed=3), build(distilled(segmentor(), segmentor(16, 'PSPHead')), seed=3)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in plain.state_dict().items())


def test_ema_copy_shares_the_teacher_and_has_the_students_keys():
    model = build(distilled(segmentor(), segmentor(16, 'PSPHead')))
    average = ExponentialMovingAverage(model)
    assert average.module.teacher.model is model.teacher.model
    assert set(average.state_dict()) == {'steps'} | {f'module.{name}' for name in model.state_dict()}
    average.load_state_dict(average.state_dict(), strict=True)


def test_the_teacher_follows_moves():
    model = build(distilled(segmentor(), segmentor(16, 'PSPHead'))).to(torch.float64)
    assert all(value.dtype == torch.float64 for value in model.teacher.model.parameters())
    assert next(model.to('meta').teacher.model.parameters()).is_meta


def test_a_step_runs_the_student_once_after_the_teacher():
    """What the teacher needs on its way is gone before the student's maps wait for the backward pass."""
    model = build(distilled(segmentor(), segmentor(16, 'PSPHead')))
    calls = []
    for owner, network in (('student', model), ('teacher', model.teacher.model)):
        for name in ('backbone', 'decode_head.conv_seg'):
            network.get_submodule(name).register_forward_hook(
                lambda *_, call=f'{owner} {name}': calls.append(call))
    train_step(model)
    assert calls == ['teacher backbone', 'teacher decode_head.conv_seg', 'student backbone',
                     'student decode_head.conv_seg']


@pytest.mark.parametrize('head', ['FCNHead', 'PSPHead', 'ASPPHead', 'DAHead'])
def test_the_students_own_losses_are_mmsegs(head):
    extra = dict(ASPPHead=dict(dilations=(1, 2)), DAHead=dict(pam_channels=4)).get(head, {})
    config = segmentor(head=head, **extra)
    plain, model = build(config), build(distilled(config, segmentor(16, 'PSPHead'), distill=KD))
    losses = []
    for each in (plain, model):
        data = each.data_preprocessor(batch(), True)
        torch.manual_seed(1)
        losses.append(each.train().loss(data['inputs'], data['data_samples']))
    assert set(losses[1]) - set(losses[0]) == {'distill.loss_kd'}
    assert all(torch.equal(value, losses[1][name]) for name, value in losses[0].items())


@pytest.mark.parametrize('dilated', [True, False], ids=['stride 8', 'stride 32'])
def test_distillation_loss_is_the_formula_at_label_resolution(dilated):
    student, teacher = segmentor(dropout_ratio=0.), segmentor(16, 'PSPHead', dilated=dilated)
    model, plain = build(distilled(student, teacher, distill=KD)), build(student)
    data = model.data_preprocessor(batch(), True)
    inputs, samples = data['inputs'], data['data_samples']
    got = model.train().loss(inputs, samples)['distill.loss_kd'].item()

    guest = build_part(teacher).eval()
    guest.load_state_dict(model.teacher.model.state_dict())
    with torch.no_grad():
        low = [plain.train()._forward(inputs), guest._forward(inputs)]
    z, v = (torch.nn.functional.interpolate(logits, size=(32, 64), mode='bilinear').double().numpy() / 2
            for logits in low)
    p = scipy.special.softmax(v, axis=1)
    divergence = (p * (scipy.special.log_softmax(v, axis=1) - scipy.special.log_softmax(z, axis=1))).sum(1)
    labels = np.stack([sample.gt_sem_seg.data[0].numpy() for sample in samples])
    assert got == pytest.approx(3 * 2**2 * divergence[labels != 255].mean(), rel=1e-5)


def test_ignored_pixels_carry_no_distillation():
    model = build(distilled(segmentor(dropout_ratio=0.), segmentor(16, 'PSPHead')))
    data = model.data_preprocessor(batch(), True)
    for sample in data['data_samples']:
        sample.gt_sem_seg.data.fill_(255)
    loss = model.loss(data['inputs'], data['data_samples'])['distill.loss_dkd']
    assert loss.item() == 0 and loss.requires_grad


def test_a_module_tap_compares_features_of_two_sizes():
    term = dict(feature=dict(loss=dict(type='mmseg_kd.KDLoss'), on=('backbone.layer4', 'backbone.layer3')))
    model = build(distilled(segmentor(8), segmentor(16, dilated=False), distill=term))
    losses = train_step(model)
    assert losses['distill.loss_feature'] > 0


def test_weight_zero_gives_the_weights_of_plain_mmseg(mini_cityscapes, tmp_path):
    """mmseg's own Runner on both, with dropout, augmentation, momentum and a validation in between."""
    zero = dict(kd=dict(loss=dict(type='mmseg_kd.KDLoss', loss_weight=0.)),
                dkd=dict(loss=dict(type='mmseg_kd.DKDLoss', loss_weight=0.)))
    weights = []
    models = dict(plain=segmentor(), zero=distilled(segmentor(), segmentor(16, 'PSPHead'), distill=zero))
    for name, model in models.items():
        config = run_config(model, mini_cityscapes, max_iters=6, work_dir=str(tmp_path / name), experiment_name=name)
        config.train_cfg.val_interval = 3
        weights.append(Runner.from_cfg(config).train().state_dict())
    assert list(weights[0]) == list(weights[1])
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_weight_above_zero_changes_the_weights(mini_cityscapes, tmp_path):
    weights = []
    for name, model in dict(p=segmentor(), d=distilled(segmentor(), segmentor(16, 'PSPHead'), distill=KD)).items():
        config = run_config(model, mini_cityscapes, max_iters=2, work_dir=str(tmp_path / name), experiment_name=name)
        weights.append(Runner.from_cfg(config).train().state_dict())
    assert not torch.equal(weights[0]['decode_head.conv_seg.weight'], weights[1]['decode_head.conv_seg.weight'])


def test_runner_checkpoint_is_the_plain_students(mini_cityscapes, tmp_path):
    model = distilled(segmentor(), segmentor(16, 'PSPHead'))
    config = run_config(model, mini_cityscapes, max_iters=2, work_dir=str(tmp_path), experiment_name='ckpt')
    Runner.from_cfg(config).train()
    checkpoint = torch.load(tmp_path / 'iter_2.pth', weights_only=False)
    result = build(segmentor(), seed=9).load_state_dict(checkpoint['state_dict'], strict=True)
    assert not result.missing_keys and not result.unexpected_keys
    groups = checkpoint['optimizer']['param_groups']
    assert sum(len(group['params']) for group in groups) == len(list(build(segmentor()).parameters()))

"""DistilledCascadeEncoderDecoder against mmseg's cascade."""
import pytest
import torch
from mmengine.optim import OptimWrapper
from tiny import batch, build, cascade, distilled, segmentor

KD = dict(kd=dict(loss=dict(type='mmseg_kd.KDLoss')))


def distil(config, terms=KD, **settings):
    return distilled(config, segmentor(16, 'PSPHead'), distill=terms) | dict(
        type='mmseg_kd.DistilledCascadeEncoderDecoder', **settings)


def steps(model, number=3):
    """Train with dropout and momentum from one seed; the weights."""
    optimizer = OptimWrapper(torch.optim.SGD(model.train().parameters(), lr=0.05, momentum=0.9))
    torch.manual_seed(5)
    for seed in range(number):
        model.train_step(batch(seed=seed), optimizer)
    return model.state_dict()


@pytest.mark.parametrize('stages', [2, 3])
def test_weight_zero_gives_the_weights_of_plain_mmseg(stages):
    zero = dict(kd=dict(loss=dict(type='mmseg_kd.KDLoss', loss_weight=0.)))
    plain, ours = steps(build(cascade(stages))), steps(build(distil(cascade(stages), zero)))
    assert list(plain) == list(ours) and all(torch.equal(value, ours[name]) for name, value in plain.items())


def test_losses_have_mmsegs_names_and_values():
    plain, model = build(cascade()), build(distil(cascade()))
    losses = []
    for each in (plain, model):
        data = each.data_preprocessor(batch(), True)
        torch.manual_seed(1)
        losses.append(each.train().loss(data['inputs'], data['data_samples']))
    assert set(losses[1]) - set(losses[0]) == {'distill.loss_kd'}
    assert all(torch.equal(value, losses[1][name]) for name, value in losses[0].items())


def test_the_logits_are_the_last_stages():
    model = build(distil(cascade()))
    data = model.data_preprocessor(batch(), True)
    model.train().loss(data['inputs'], data['data_samples'])['distill.loss_kd'].backward()
    assert model.decode_head[1].conv_seg.weight.grad.abs().sum() > 0


def test_dual_head_is_on_the_last_stage():
    aux = dict(dhkd=dict(loss=dict(type='mmseg_kd.BinaryKLNormLoss'), on='aux_logits'))
    model = build(distil(cascade(), aux, dual_head=dict(kind='linear')))
    assert model.main_classifier() is model.decode_head[1].conv_seg
    optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    assert torch.isfinite(model.train().train_step(batch(), optimizer)['loss'])


def test_a_cascade_teacher():
    model = build(distilled(segmentor(), cascade(), distill=KD))
    data = model.data_preprocessor(batch(), True)
    assert model.train().loss(data['inputs'], data['data_samples'])['distill.loss_kd'] > 0

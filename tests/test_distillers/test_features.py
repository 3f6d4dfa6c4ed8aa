"""Terms on features: where they read, what stands between, what is trained and what is left of it."""
import copy

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmseg.models.utils import resize
from tiny import ROOT, batch, build, build_part, distilled, segmentor
from torch import nn

from mmseg_kd.distillers.adapters import ReviewFusion, adapter
from mmseg_kd.engine.runner_defaults import _replace_sync_bn

MSE = dict(type='mmseg_kd.FeatureMSELoss')
LINEAR = dict(kind='linear')
LAYERS = [f'backbone.layer{stage}' for stage in (1, 2, 3, 4)]
REVIEW = dict(loss=dict(type='mmseg_kd.HierarchicalContextLoss'), on=(LAYERS, LAYERS),
              adapter=dict(kind='review', width=6))


def model_with(term, student=None, teacher=None, **settings):
    config = distilled(student or segmentor(8), teacher or segmentor(16, dilated=False), distill=dict(x=term))
    return build(config | settings)


def losses_of(model, seed=0):
    data = model.data_preprocessor(batch(seed=seed), True)
    return model.train().loss(data['inputs'], data['data_samples']), data


def outputs_of(model, name, inputs):
    """Outputs of a module of student and teacher, apart from any code of ours."""
    found = []
    for each in (model, model.teacher.model):
        handle = each.get_submodule(name).register_forward_hook(lambda module, args, output: found.append(output))
        each.extract_feat(inputs)
        handle.remove()
    return [value.detach().double() for value in found]


def counted(data, size):
    target = torch.stack([sample.gt_sem_seg.data for sample in data['data_samples']]).double()
    return resize(target, size=size, mode='nearest')[:, 0] != 255


def test_the_term_is_the_formula_behind_the_adapter():
    """Student of stride 8 and 64 channels, teacher of stride 32 and 128."""
    model = model_with(dict(loss=MSE, on='backbone.layer4', adapter=LINEAR))
    losses, data = losses_of(model)
    s, t = outputs_of(model, 'backbone.layer4', data['inputs'])
    layer = model.terms['x'].adapters[0][0]
    assert layer.weight.shape == (128, 64, 1, 1)
    s = torch.einsum('nchw,kc->nkhw', s, layer.weight[:, :, 0, 0].double()) + layer.bias.double()[:, None, None]
    t = nn.functional.interpolate(t, size=(4, 8), mode='bilinear', align_corners=False)
    expected = (s - t).square().mean(1)[counted(data, (4, 8))].mean()
    assert losses['distill.loss_x'].item() == pytest.approx(expected.item(), rel=1e-4)


def test_several_taps_are_added():
    def value(on):
        losses, _ = losses_of(model_with(dict(loss=dict(type='mmseg_kd.AttentionTransferLoss'), on=on)))
        return losses['distill.loss_x'].item()
    assert value((LAYERS, LAYERS)) == pytest.approx(sum(map(value, LAYERS)), rel=1e-5)


@pytest.mark.parametrize('loss', [MSE, dict(type='mmseg_kd.CWDLoss'), dict(type='mmseg_kd.HierarchicalContextLoss')],
                         ids=lambda loss: loss['type'])
def test_a_step_trains_student_and_adapter(loss):
    model = model_with(dict(loss=loss, on='backbone.layer3', adapter=LINEAR))
    losses_of(model)[0]['distill.loss_x'].backward()
    reached = {name for name, value in model.named_parameters() if value.grad is not None and value.grad.any()}
    assert {'distill.terms.x.adapters.0.0.weight', 'backbone.stem.0.weight', 'backbone.layer3.1.bn2.weight'} <= reached
    assert not any('layer4' in name or 'decode_head' in name for name in reached)


@pytest.mark.parametrize('term', [dict(loss=MSE, on='backbone.layer4', adapter=LINEAR), REVIEW],
                         ids=['linear', 'review'])
def test_what_stands_between_is_not_the_students(term):
    plain, model = build(segmentor(), seed=3), build(
        distilled(segmentor(), segmentor(16), distill=dict(x=term)), seed=3)
    assert list(plain.state_dict()) == list(model.state_dict())
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in plain.state_dict().items())
    state = copy.deepcopy(model.train_only_state())
    assert state and all(name.startswith('terms.x.adapters.0.') for name in state)
    model.train().train_step(batch(), OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1)))
    assert not torch.equal(model.train_only_state()[next(iter(state))], state[next(iter(state))])
    model.load_train_only_state(state)
    assert all(torch.equal(value, state[name]) for name, value in model.train_only_state().items())


def test_finding_the_channels_leaves_no_trace():
    """No random number is drawn, no batch statistics move, no mode changes."""
    term = dict(loss=MSE, on='backbone.layer4', adapter=LINEAR)
    student = segmentor() | dict(backbone=segmentor()['backbone'] | dict(frozen_stages=1))
    draws, models = [], []
    for distill in (dict(x=term), None):
        torch.manual_seed(0)
        models.append(build_part(distilled(student, segmentor(16), distill=distill)))
        draws.append(torch.rand(3))
    assert torch.equal(*draws)
    ours, without = ({name: module.training for name, module in model.named_modules() if 'distill' not in name}
                     for model in models)
    assert ours == without and len(set(ours.values())) == 2
    assert all(torch.equal(value, models[1].state_dict()[name]) for name, value in models[0].state_dict().items())


@pytest.mark.parametrize('term', [dict(loss=MSE, on='backbone.layer4', adapter=LINEAR), REVIEW],
                         ids=['linear', 'review'])
@pytest.mark.parametrize('how', ['stopped', 'weight 0'])
def test_every_parameter_is_in_every_graph(term, how):
    """What DDP asks for without find_unused_parameters."""
    term = copy.deepcopy(term)
    if how == 'weight 0':
        term['loss']['loss_weight'] = 0.
    model = model_with(term)
    if how == 'stopped':
        model.terms['x'].scale = 0.
    losses, _ = losses_of(model)
    assert losses['distill.loss_x'] == 0
    losses['distill.loss_x'].backward()
    for name, value in model.distill.named_parameters():
        assert value.grad is not None and not value.grad.any(), name


def test_weight_zero_gives_the_weights_of_plain_mmseg():
    states = []
    for config in (segmentor(), distilled(segmentor(), segmentor(16), distill=dict(
            x=dict(REVIEW, loss=dict(REVIEW['loss'], loss_weight=0.))))):
        model = build(config).train()
        optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9))
        torch.manual_seed(5)
        for seed in range(3):
            model.train_step(batch(seed=seed), optimizer)
        states.append(model.state_dict())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def convolved(x, weight):
    """Zero-padded convolution by its definition."""
    k = weight.shape[2] // 2
    padded = np.pad(x, ((0, 0), (0, 0), (k, k), (k, k)))
    height, width = x.shape[2:]
    return sum(np.einsum('nchw,kc->nkhw', padded[:, :, i:i + height, j:j + width], weight[:, :, i, j])
               for i in range(2 * k + 1) for j in range(2 * k + 1))


def normalised(x, norm):
    mean, var = (np.array(v.detach()).reshape(1, -1, 1, 1) for v in (norm.running_mean, norm.running_var))
    gamma, beta = (np.array(v.detach()).reshape(1, -1, 1, 1) for v in (norm.weight, norm.bias))
    return gamma * (x - mean) / np.sqrt(var + norm.eps) + beta


def nearest(x, size):
    rows, columns = (np.arange(new) * old // new for new, old in zip(size, x.shape[2:], strict=True))
    return x[:, :, rows][:, :, :, columns]


def test_review_fusion_is_the_papers():
    torch.manual_seed(0)
    fusion = ReviewFusion([(3, 5), (4, 6), (2, 7)], 4).double().eval()
    for module in fusion.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight)
    features = [torch.randn(2, c, *size, dtype=torch.float64) for c, size in ((3, (8, 6)), (4, (4, 3)), (2, (2, 2)))]
    sizes = [(8, 6), (8, 6), (4, 3)]
    got = fusion(features, sizes)

    mixture = None
    for stage in (2, 1, 0):
        inward, outward = fusion.inward[stage], fusion.outward[stage]
        own = normalised(convolved(features[stage].numpy(), inward[0].weight.detach().numpy()), inward[1])
        if mixture is None:
            mixture = own
        else:
            below = nearest(mixture, own.shape[2:])
            layer = fusion.attention[stage]
            scores = convolved(np.concatenate([own, below], 1), layer.weight.detach().numpy())
            scores = 1 / (1 + np.exp(-scores - layer.bias.detach().numpy().reshape(1, 2, 1, 1)))
            mixture = own * scores[:, :1] + below * scores[:, 1:]
        mixture = nearest(mixture, sizes[stage])
        expected = normalised(convolved(mixture, outward[0].weight.detach().numpy()), outward[1])
        np.testing.assert_allclose(got[stage].detach().numpy(), expected, rtol=1e-9, atol=1e-12)


def test_an_adapters_weights_follow_seed_and_name():
    weights = []
    for seed, name, drawn in ((1, 'a.0', 0), (1, 'a.0', 9), (1, 'b.0', 0), (2, 'a.0', 0)):
        torch.manual_seed(seed)
        torch.rand(drawn)
        weights.append(adapter(LINEAR, [(3, 4)], name)[0].weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2]) and not torch.equal(weights[0], weights[3])


def test_one_of_several_outputs():
    """A transformer's maps are among its backbone's outputs alone."""
    vit = segmentor() | dict(backbone=dict(
        type='MixVisionTransformer', embed_dims=8, num_heads=[1, 1, 1, 1], num_layers=[1, 1, 1, 1]))
    vit['decode_head'] = vit['decode_head'] | dict(in_channels=8)
    term = dict(loss=MSE, on=('backbone.layer2', 'backbone[1]'), adapter=LINEAR)
    assert losses_of(model_with(term, teacher=vit))[0]['distill.loss_x'] > 0
    tokens = dict(loss=dict(type='mmseg_kd.AttentionTransferLoss'), on=('backbone.layer2', 'backbone.layers.1.2'))
    with pytest.raises(ValueError, match=r"expected maps \(N, C, h, w\) at \['backbone.layers.1.2'\], got the shape"):
        losses_of(model_with(tokens, teacher=vit))


BUILT = [
    (dict(loss=MSE, on='backbone.layer4'), r"`distill.x.on`: 'backbone.layer4' of the student has 64 channels, "
                                           r"'backbone.layer4' of the teacher 128. Add adapter=dict\(kind='linear'\)"),
    (dict(loss=MSE, on='backbone.layre4'), r"nothing to read at 'backbone.layre4'.*instance \['backbone.layer4"),
    (dict(loss=MSE, on=(LAYERS, ['backbone.layer1', 'x', 'y', 'backbon.layer2'])), r"the teacher has nothing to read"),
    (dict(loss=MSE, on='backbone[1].x'), r"nothing to read at 'backbone\[1\].x'"),
    (dict(loss=MSE, on='backbone.layer4', adapter=dict(kind='cubic')), r'`distill.x.adapter`: expected dict\(kind='),
    (dict(loss=MSE, on='backbone.layer4', adapter=dict(kind='linear', width=3)), r'`distill.x.adapter`: expected'),
    (dict(loss=MSE, on='backbone.layer4', adapter=dict(kind='review', width=0)), r'`distill.x.adapter`: expected'),
    (dict(loss=MSE, adapter=LINEAR), '`distill.x.adapter`: logits are compared class by class'),
    (dict(loss=MSE, on='decode_head', adapter=LINEAR), "the channels of 'decode_head' of the student are not known"),
    (dict(loss=MSE, on=(LAYERS, LAYERS[:2])), '`distill.x.on`: expected .* pair of equally long lists'),
    (dict(loss=MSE, on=(['logits'], ['logits'])), '`distill.x.on`: expected .* pair of equally long lists'),
]


@pytest.mark.parametrize('term, message', BUILT, ids=range(len(BUILT)))
def test_refused_when_it_is_built(term, message):
    with pytest.raises(ValueError, match=message):
        model_with(term)


@pytest.mark.parametrize('tap, message', [
    ('backbone', r"'backbone' of the student returns a tuple of 4, expected a tensor. Take one of them, like 'backb"),
    ('backbone[4]', r"'backbone\[4\]' of the student is not there: 'backbone' returns a tuple of 4"),
    ('backbone.stem.1', r"output of 'backbone.stem.1' of the student is overwritten in place"),
])
def test_refused_in_the_first_step(tap, message):
    model = model_with(dict(loss=dict(type='mmseg_kd.AttentionTransferLoss'), on=(tap, 'backbone.layer1')))
    with pytest.raises(ValueError, match=message):
        losses_of(model)


def test_an_output_of_several_that_is_overwritten_is_refused_and_the_others_are_not():
    from mmseg_kd.taps import module_calls, read_tap

    class Two(torch.nn.Module):
        def forward(self, x):
            return x + 1, x + 2

    two = Two()
    with module_calls(dict(two=two)) as calls:
        first, second = two(torch.zeros(3))
        torch.relu_(second)
    assert torch.equal(read_tap(calls.outputs, 'two[0]', 'x', 'student'), first)
    with pytest.raises(ValueError, match=r"output of 'two\[1\]' of the student is overwritten in place"):
        read_tap(calls.outputs, 'two[1]', 'x', 'student')


@pytest.mark.parametrize('method', ['dkd', 'dhkd'])
def test_the_configs_with_reviewkd(method):
    """PSPNet R101 to R18 as written, without the teacher's checkpoint; one step on a small crop."""
    path, = (ROOT / f'configs/seg/{method}_reviewkd').glob('*_pspnet-r101-d8_pspnet-r18-d8_*_cityscapes-*.py')
    config = Config.fromfile(path)
    del config.model.teacher['checkpoint']
    config.model.pretrained = None
    config.model.data_preprocessor.size = (64, 64)
    _replace_sync_bn(config.model)
    model = build_part(config.model).train()
    for term in model.terms.values():
        assert term.schedule is None or term.schedule.warmup == 1000
        term.scale = 1.
    data = model.data_preprocessor(batch(height=64, width=64), True)
    losses = model.loss(data['inputs'], data['data_samples'])
    assert {name for name in losses if name.startswith('distill.')} == {f'distill.loss_{method}', 'distill.loss_review'}
    model.parse_losses(losses)[0].backward()
    assert [layer[0].weight.shape[:2] for layer in model.terms['review'].adapters[0].inward] == [
        (128, 64), (128, 128), (128, 256), (128, 512)]
    assert all(value.grad is not None for value in model.parameters())

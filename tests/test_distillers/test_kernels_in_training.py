"""The operators change what a training costs, not what it learns."""
import pytest
import torch
from tiny import batch, build, distilled, segmentor

DISTILL = dict(
    dkd=dict(loss=dict(type='mmseg_kd.DKDLoss', alpha=1., beta=2., temperature=2.)),
    gdkd=dict(loss=dict(type='mmseg_kd.GDKDLoss', k=3, divergence='both', temperature=1.)),
    norm=dict(loss=dict(type='mmseg_kd.BinaryKLNormLoss', loss_weight=.1), on='aux_logits'))


def train(choice, monkeypatch, iterations=50):
    """Losses of every iteration, and the weights at the end."""
    monkeypatch.setenv('MMSEG_KD_KERNELS', choice)
    torch.manual_seed(5)
    teacher = build(segmentor(16, 'PSPHead'), seed=5)
    config = distilled(segmentor(), segmentor(16, 'PSPHead'), distill=DISTILL) | dict(dual_head=dict(kind='linear'))
    model = build(config).train()
    weights = teacher.state_dict()
    weights['decode_head.conv_seg.weight'] *= 100
    model.teacher.model.load_state_dict(weights)
    optimizer = torch.optim.SGD(model.parameters(), lr=.01, momentum=.9, weight_decay=1e-4)
    torch.manual_seed(0)
    history = []
    for iteration in range(iterations):
        data = model.data_preprocessor(batch(seed=iteration), True)
        loss, values = model.parse_losses(model.loss(data['inputs'], data['data_samples']))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append([values[f'distill.loss_{name}'].item() for name in DISTILL])
    return torch.tensor(history), model.state_dict()


def test_fifty_iterations_are_the_same(monkeypatch):
    fast, fast_weights = train('auto', monkeypatch)
    plain, plain_weights = train('naive', monkeypatch)
    torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-4)
    for name, value in plain_weights.items():
        torch.testing.assert_close(fast_weights[name], value, rtol=1e-4, atol=1e-4)
    # Not for want of training, and not because both took one path.
    assert (plain[-1] < .9 * plain[0]).all()
    assert not torch.equal(fast, plain)


def test_the_switch_is_read_when_a_loss_is_called(monkeypatch):
    monkeypatch.setenv('MMSEG_KD_KERNELS', 'quick')
    model = build(distilled(segmentor(), segmentor(16, 'PSPHead'))).train()
    data = model.data_preprocessor(batch(), True)
    with pytest.raises(ValueError, match="MMSEG_KD_KERNELS must be 'auto', 'naive' or 'triton', got 'quick'"):
        model.loss(data['inputs'], data['data_samples'])

"""Losses of features against their formulas, written out in float64 by loops."""
import math

import numpy as np
import pytest
import torch
from loss_cases import labels, logits
from torch.testing import assert_close

from mmseg_kd import functional, losses

LOSSES = dict(
    feature_mse=losses.FeatureMSELoss, attention_transfer=losses.AttentionTransferLoss,
    hierarchical_context=losses.HierarchicalContextLoss)
each = pytest.mark.parametrize('name', LOSSES)


def features(channels=3, seed=0, height=5, width=6):
    return logits(2, channels, height, width, seed=seed)


def mse(s, t, counts):
    """Mean over the positions that count of the mean over the channels."""
    return np.mean([np.mean([(s[n, c, i, j] - t[n, c, i, j])**2 for c in range(s.shape[1])])
                    for n, i, j in np.argwhere(counts)])


def attention_distance(s, t, counts):
    """Per image; the images that have a position."""
    values = []
    for n in range(len(s)):
        where = np.argwhere(counts[n])
        q, r = ([sum(x[n, c, i, j]**2 for c in range(x.shape[1])) for i, j in where] for x in (s, t))
        q, r = (np.array(a) / math.sqrt(sum(value**2 for value in a)) for a in (q, r))
        values.append(sum((a - b)**2 for a, b in zip(q, r, strict=True)))
    return np.mean(values)


def bounds(side, regions):
    """Rows of each region as torch's adaptive pooling has them."""
    return [(side * k // regions, -(-side * (k + 1) // regions)) for k in range(regions)]


def hierarchical(s, t, counts):
    """Images weighed by their positions, each: (sum of level weights x distances) / sum of level weights."""
    total, positions = 0., 0
    height, width = counts.shape[1:]
    for n in range(len(s)):
        value, weights = mse(s[n:n + 1], t[n:n + 1], counts[n:n + 1]), 1.
        for level, weight in ((4, 0.5), (2, 0.25), (1, 0.125)):
            if level >= min(height, width):
                # Left out, and the next takes its weight.
                continue
            distances = []
            for top, bottom in bounds(height, level):
                for left, right in bounds(width, level):
                    inside = counts[n, top:bottom, left:right]
                    if inside.any():
                        a, b = (x[n, :, top:bottom, left:right][:, inside].mean(1) for x in (s, t))
                        distances.append(((a - b)**2).mean())
            weight = 0.5**(1 + [x for x in (4, 2, 1) if x < min(height, width)].index(level))
            value, weights = value + weight * np.mean(distances), weights + weight
        total, positions = total + counts[n].sum() * value / weights, positions + counts[n].sum()
    return total / positions


ORACLES = dict(feature_mse=mse, attention_transfer=attention_distance, hierarchical_context=hierarchical)


def call(name, *args, **settings):
    return getattr(functional, f'{name}_loss')(*args, **settings)


@pytest.mark.parametrize('ignored', [(), (0, 1, 2, 6, 7, 8, 31, 59)], ids=['all', 'some ignored'])
@pytest.mark.parametrize('size', [(5, 6), (4, 3), (2, 2), (9, 8)], ids=str)
@each
def test_value_of_the_paper(name, size, ignored):
    student, teacher = (features(seed=seed, height=size[0], width=size[1]) for seed in (0, 1))
    target = labels(2, *size, ignored=[i for i in ignored if i < 2 * size[0] * size[1]])
    expected = ORACLES[name](student.numpy(), teacher.numpy(), target.numpy() != 255)
    assert call(name, student, teacher, target).item() == pytest.approx(expected, rel=1e-12)
    single = call(name, student.float(), teacher.float(), target)
    assert single.dtype == torch.float32 and single.item() == pytest.approx(expected, rel=1e-5)


@each
def test_gradient_by_finite_differences(name):
    student, teacher = features(2, height=3, width=3), features(2, seed=1, height=3, width=3)
    target, weight = labels(2, 3, 3, ignored=[1, 9]), torch.linspace(0, 2, 18, dtype=torch.float64).view(2, 3, 3)
    for reduction in ('mean', 'sum', 'none'):
        assert torch.autograd.gradcheck(
            lambda x, reduction=reduction: call(name, x, teacher, target, weight, reduction=reduction),
            student.clone().requires_grad_())


@each
def test_equal_features_cost_nothing(name):
    assert call(name, features(), features(), labels(2, 5, 6)) == 0


@each
def test_reductions_and_module_agree(name):
    student, teacher, target = features(), features(seed=1), labels(2, 5, 6, ignored=[0, 40])
    values = call(name, student, teacher, target, reduction='none')
    assert values.shape == target.shape and (values[target == 255] == 0).all()
    units = 2 if name == 'attention_transfer' else 58
    assert_close(values.sum() / units, call(name, student, teacher, target))
    assert LOSSES[name](loss_weight=3.)(student, teacher, target) == 3 * call(name, student, teacher, target)
    assert call(name, student, teacher, labels(2, 5, 6), ignore_index=None) == call(name, student, teacher)


@each
def test_any_label_is_fine(name):
    """Features have channels, not classes: labels only say what counts."""
    assert call(name, features(), features(seed=1), labels(2, 5, 6) + 100) == call(name, features(), features(seed=1))


@each
def test_nothing_valid_is_a_zero_with_a_graph(name):
    student = features().requires_grad_()
    value = call(name, student, features(seed=1), torch.full((2, 5, 6), 255))
    value.backward()
    assert value == 0 and (student.grad == 0).all()


@pytest.mark.parametrize('scale', [0., 1e-30, 1e30])
def test_attention_knows_no_scale(scale):
    """Of zeros there is none; elsewhere float32 neither overflows nor underflows by the fourth power."""
    student = (features().float() * scale).requires_grad_()
    value = functional.attention_transfer_loss(student, features(seed=1).float())
    value.backward()
    assert student.grad.isfinite().all()
    expected = 1. if scale == 0 else functional.attention_transfer_loss(features(), features(seed=1)).item()
    assert value.item() == pytest.approx(expected, rel=1e-5)


def test_attention_takes_other_channels():
    student, teacher = features(3), features(5, seed=1)
    expected = attention_distance(student.numpy(), teacher.numpy(), np.ones((2, 5, 6), bool))
    assert functional.attention_transfer_loss(student, teacher).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize('name, student, teacher, message', [
    ('feature_mse', features(), features(4), 'must have the same classes in dimension 1, got 3 and 4'),
    ('hierarchical_context', features()[0], features()[0], r'must be an \(N, C, H, W\) map'),
    ('attention_transfer', features()[..., 0, 0], features()[..., 0, 0], r'must be \(N, C, \*\) with positions'),
    ('attention_transfer', features(), features()[..., :2], '`teacher` must have the shape of `student`'),
    ('feature_mse', features(), features().requires_grad_(), '`teacher` must not require grad'),
])
def test_refusals(name, student, teacher, message):
    for loss in (getattr(functional, f'{name}_loss'), LOSSES[name]()):
        with pytest.raises(ValueError, match=message):
            loss(student, teacher)


@each
def test_autocast_and_half_precision(name):
    student, teacher = (features(seed=seed).bfloat16() for seed in (0, 1))
    expected = call(name, student.float(), teacher.float())
    with torch.autocast('cpu', dtype=torch.bfloat16):
        value = call(name, student, teacher)
    assert value.dtype == torch.float32 and value == expected

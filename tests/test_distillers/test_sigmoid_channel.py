"""Segmentors with one sigmoid channel for two classes, which mmseg calls ``out_channels=1``."""
import copy

import numpy as np
import pytest
import torch
from scipy.special import expit, log_expit, log_softmax
from tiny import batch, build, distilled, segmentor
from torch import nn


def binary(width=8, channels=1):
    model = segmentor(width, num_classes=2, dropout_ratio=0.)
    if channels == 1:
        model['decode_head'] |= dict(out_channels=1, threshold=0.5, loss_decode=dict(
            type='CrossEntropyLoss', use_sigmoid=True, avg_non_ignore=True))
    return model


def maps(student, teacher, loss, **settings):
    """The loss, and logits of student and teacher at full size in float64 with the labelled positions."""
    model = build(distilled(student, teacher, distill=dict(x=dict(loss=dict(type=f'mmseg_kd.{loss}', **settings)))))
    data = model.data_preprocessor(batch(num_classes=2), True)
    losses = model.train().loss(copy.copy(data['inputs']), data['data_samples'])
    losses['distill.loss_x'].backward()
    assert model.decode_head.conv_seg.weight.grad.any()
    with torch.no_grad():
        z = model(data['inputs'], mode='tensor')
        v = model.teacher.model(data['inputs'], mode='tensor')
    z, v = (nn.functional.interpolate(each, (32, 64), mode='bilinear').double().numpy() for each in (z, v))
    labels = np.stack([sample.gt_sem_seg.data[0].numpy() for sample in data['data_samples']])
    return losses['distill.loss_x'].item(), z, v, labels != 255


def pair(logits):
    """As two classes."""
    return logits if logits.shape[1] == 2 else np.concatenate([0 * logits, logits], 1)


@pytest.mark.parametrize('student, teacher', [(1, 1), (1, 2), (2, 1)])
def test_kd_compares_two_classes(student, teacher):
    got, z, v, counts = maps(binary(8, student), binary(16, teacher), 'KDLoss', temperature=2.)
    p, q = (log_softmax(pair(each) / 2, axis=1) for each in (v, z))
    assert got == pytest.approx(4 * (np.exp(p) * (p - q)).sum(1)[counts].mean(), rel=1e-4)


@pytest.mark.parametrize('student, teacher', [(1, 1), (1, 2), (2, 1)])
def test_binary_kl_compares_the_channel(student, teacher):
    got, z, v, counts = maps(binary(8, student), binary(16, teacher), 'BinaryKLLoss', temperature=2.)
    z, v = ((each[:, -1] - (each[:, 0] if each.shape[1] == 2 else 0)) / 2 for each in (z, v))
    divergence = expit(v) * (log_expit(v) - log_expit(z)) + expit(-v) * (log_expit(-v) - log_expit(-z))
    assert got == pytest.approx(4 * divergence[counts].mean(), rel=1e-4)


@pytest.mark.parametrize('loss', ['DKDLoss', 'DGKDLoss', 'BinaryKLNormLoss', 'CWDLoss', 'LogitMSELoss', 'DISTLoss'])
def test_the_others_learn_from_it(loss):
    assert np.isfinite(maps(binary(), binary(16), loss)[0])


@pytest.mark.parametrize('loss', ['GDKDLoss', 'GDKD3Loss'])
def test_what_needs_more_classes_says_what_works(loss):
    with pytest.raises(ValueError, match='for 2 classes, got .*; for two classes use KDLoss, DKDLoss or BinaryKLLoss'):
        maps(binary(), binary(16), loss)


def test_a_dual_head_has_a_channel_of_its_own():
    terms = dict(dhkd=dict(loss=dict(type='mmseg_kd.BinaryKLNormLoss'), on='aux_logits'))
    model = build(distilled(binary(), binary(16), distill=terms) | dict(dual_head=dict(kind='linear')))
    data = model.data_preprocessor(batch(num_classes=2), True)
    assert model.train().loss(data['inputs'], data['data_samples'])['distill.loss_dhkd'].item() > 0

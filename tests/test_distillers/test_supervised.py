"""The supervised loss from small logits, against mmseg's own."""
import copy

import pytest
import torch
from tiny import batch, build, distilled, segmentor
from torch.nn import functional as F


def pair(student, **settings):
    """mmseg's way and ours, with equal weights."""
    config = distilled(student, segmentor(16, 'PSPHead'))
    return build(config), build(config | dict(upsample_in_loss=True) | settings)


def losses(model, seed=3):
    data = model.data_preprocessor(batch(), True)
    torch.manual_seed(seed)
    return model.train().loss(data['inputs'], data['data_samples'])


def with_loss(loss):
    student = segmentor()
    student['decode_head']['loss_decode'] = loss
    return student


def with_auxiliary(student, loss):
    student = copy.deepcopy(student)
    student['auxiliary_head'] = dict(student['decode_head'], in_channels=4 * 8, in_index=2, loss_decode=loss)
    return student


@pytest.mark.parametrize('loss', [
    dict(type='CrossEntropyLoss', avg_non_ignore=True),
    dict(type='CrossEntropyLoss', avg_non_ignore=False, loss_weight=.4),
    # mmseg cannot do both class weights and avg_non_ignore=True: it ends in an IndexError.
    dict(type='CrossEntropyLoss', class_weight=[.5 + .1 * index for index in range(19)]),
    [dict(type='CrossEntropyLoss', avg_non_ignore=True), dict(type='CrossEntropyLoss', loss_name='loss_more')]],
    ids=['mean', 'all pixels', 'class weights', 'two losses'])
def test_values_names_and_gradients_are_mmsegs(loss):
    student = with_auxiliary(with_loss(loss), loss)
    plain, ours = pair(student)
    wanted, got = losses(plain), losses(ours)
    assert list(wanted) == list(got)
    for name, value in wanted.items():
        torch.testing.assert_close(got[name], value, rtol=1e-5, atol=1e-6)
    for values in (wanted, got):
        sum(value for name, value in values.items() if 'loss' in name).backward()
    for (name, wanted_parameter), parameter in zip(plain.named_parameters(), ours.parameters(), strict=True):
        if wanted_parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, wanted_parameter.grad, rtol=1e-3, atol=1e-5), name


def test_a_step_makes_no_full_size_map_of_logits(monkeypatch):
    student = with_auxiliary(segmentor(), dict(type='CrossEntropyLoss', avg_non_ignore=True))
    plain, ours = pair(student)
    sizes, interpolate = [], F.interpolate

    def watched(values, *args, **kwargs):
        result = interpolate(values, *args, **kwargs)
        sizes.append(tuple(result.shape))
        return result

    monkeypatch.setattr(F, 'interpolate', watched)
    full = (2, 19, 32, 64)
    losses(plain)
    assert sizes.count(full) == 2
    sizes.clear()
    losses(ours)
    assert full not in sizes


def test_it_is_gone_from_the_plain_student():
    from mmseg_kd.config import student_config
    assert student_config(distilled(segmentor(), segmentor()) | dict(upsample_in_loss=True)) == segmentor()


@pytest.mark.parametrize('student,message', [
    (with_loss(dict(type='DiceLoss')), r'`decode_head.loss_decode` is DiceLoss.*Remove `upsample_in_loss`'),
    (with_loss(dict(type='CrossEntropyLoss', use_sigmoid=True)), r'expected CrossEntropyLoss over the classes'),
    (segmentor(sampler=dict(type='OHEMPixelSampler', thresh=.7)), r'`decode_head.sampler` looks at full-size logits')])
def test_refusals(student, message):
    with pytest.raises(ValueError, match=f'(?s)`upsample_in_loss`: .*{message}'):
        pair(student)


def test_it_is_a_switch():
    with pytest.raises(ValueError, match="`upsample_in_loss`: expected True or False, got 'yes'"):
        pair(segmentor(), upsample_in_loss='yes')

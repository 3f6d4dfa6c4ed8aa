"""What makes a teacher faster changes nothing but rounding."""
import copy

import pytest
import torch
from tiny import batch, build, distilled, segmentor

from mmseg_kd.functional.upsampled import at_full_size


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp('teacher') / 'teacher.pth'
    torch.save(build(segmentor(16, 'PSPHead'), seed=5).state_dict(), path)
    return path


def model_with(checkpoint, **speed):
    config = distilled(segmentor(), segmentor(16, 'PSPHead'), checkpoint)
    config['teacher'].update(speed)
    return build(config)


def teacher_logits(model, autocast=False):
    data = model.data_preprocessor(batch(), True)
    with torch.autocast('cpu', dtype=torch.bfloat16, enabled=autocast):
        return model.teacher(data['inputs'], data['data_samples'], {'logits'})['logits']


def test_precision(checkpoint):
    exact, low = model_with(checkpoint), model_with(checkpoint, dtype='bf16')
    assert {p.dtype for p in low.teacher.model.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in low.parameters()} == {torch.float32}
    wanted, got = (at_full_size(teacher_logits(model)) for model in (exact, low))
    assert got.dtype == torch.bfloat16
    # bfloat16 has 8 bits: the logits differ, but by no more than its rounding makes of 20 layers.
    error = (got.float() - wanted).norm() / wanted.norm()
    assert 0 < error < .05
    # Autocast is for the student; it would bring layers of the teacher to another precision.
    assert torch.equal(at_full_size(teacher_logits(low, autocast=True)), got)


def test_a_step_trains_the_student_alone(checkpoint):
    losses = {}
    for name, speed in (('plain', {}), ('bf16', dict(dtype='bf16')), ('channels_last', dict(channels_last=True))):
        model = model_with(checkpoint, **speed)
        weights = copy.deepcopy(model.teacher.model.state_dict())
        data = model.data_preprocessor(batch(), True)
        losses[name] = model.train().loss(data['inputs'], data['data_samples'])['distill.loss_dkd']
        losses[name].backward()
        assert model.decode_head.conv_seg.weight.grad.abs().max() > 0
        assert all(torch.equal(value, weights[key]) for key, value in model.teacher.model.state_dict().items())
    torch.testing.assert_close(losses['channels_last'], losses['plain'], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(losses['bf16'], losses['plain'], rtol=.05, atol=0)


def test_memory_format(checkpoint):
    plain, last = model_with(checkpoint), model_with(checkpoint, channels_last=True)
    weight = last.teacher.model.backbone.layer1[0].conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(teacher_logits(last).logits, teacher_logits(plain).logits, rtol=1e-4, atol=1e-5)


def test_compiled(checkpoint):
    plain, compiled = model_with(checkpoint), model_with(checkpoint, compile=dict(backend='eager'))
    torch._dynamo.reset()
    counts = torch._dynamo.utils.counters
    counts.clear()
    torch.testing.assert_close(at_full_size(teacher_logits(compiled)), at_full_size(teacher_logits(plain)))
    assert counts['frames']['ok'] > 0


def test_a_compiled_teacher_gives_its_logits_alone(checkpoint):
    model = model_with(checkpoint, compile=True)
    with pytest.raises(ValueError, match=r"`teacher.compile`: .*reads \['backbone.layer4'\]"):
        model.teacher(torch.zeros(1, 3, 32, 64), (), {'backbone.layer4'})


@pytest.mark.parametrize('speed,message', [
    (dict(dtype='int8'), "`teacher.dtype`: expected 'bf16', 'fp16' or 'fp32', got 'int8'"),
    (dict(channels_last=1), '`teacher.channels_last`: expected True or False, got 1'),
    (dict(compile='max'), '`teacher.compile`: expected True, False or a dict of arguments of torch.compile')])
def test_refusals(checkpoint, speed, message):
    with pytest.raises(ValueError, match=message):
        model_with(checkpoint, **speed)

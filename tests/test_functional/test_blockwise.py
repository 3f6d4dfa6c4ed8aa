"""Losses that sum over a channel or a batch before they know a gradient, against the plain forms in float64."""
import functools
from unittest import mock

import pytest
import torch
from scipy.special import rel_entr, softmax
from torch.nn import functional as F
from torch.testing import assert_close

from mmseg_kd.functional import Upsampled, coupling, cwd_loss, dgkd_loss, dkd_loss, evaluate, upsampled
from mmseg_kd.functional.evaluate import joined_batch

SIZE = 20, 28


def in_pytorch(*args, **settings):
    """DGKD where no operator computes it as a whole, as on a GPU: DKD's operator and the coupling's blocks."""
    with mock.patch.object(evaluate.cpu_operators(), 'COUPLES', False):
        return dgkd_loss(*args, **settings)


_SETTINGS = dict(dgkd={}, dgkd_capped=dict(cap=.5, beta=2., epsilon=-6.), dgkd_softened=dict(softening=1e-7),
                 dgkd_absolute=dict(coupling='absolute'))
BY_BLOCKS = {f'{name}_in_pytorch': functools.partial(in_pytorch, **settings) for name, settings in _SETTINGS.items()}
LOSSES = dict(cwd=cwd_loss, **{name: functools.partial(dgkd_loss, **settings) for name, settings in _SETTINGS.items()},
              **BY_BLOCKS)
each_loss = pytest.mark.parametrize('loss', LOSSES.values(), ids=LOSSES)


def problem(number=3, channels=5, small=(5, 7), seed=0):
    """Small logits of student and teacher, labels with ignored ones and one picture of nothing else, weights."""
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (3 * torch.randn(number, channels, *small, generator=generator) for _ in range(2))
    target = torch.randint(channels, (number, *SIZE), generator=generator)
    target[torch.rand(target.shape, generator=generator) < .3] = 255
    target[1] = 255
    weight = torch.rand(target.shape, generator=generator)
    weight[torch.rand(target.shape, generator=generator) < .2] = 0
    return student, teacher, target, weight


def resized(logits, align_corners=False):
    return F.interpolate(logits, SIZE, mode='bilinear', align_corners=align_corners)


def as_it_is(logits):
    return logits


def small(logits):
    return Upsampled(logits, SIZE)


def value_and_gradient(loss, leaf, logits_of, *args, **settings):
    leaf = leaf.detach().requires_grad_()
    value = loss(logits_of(leaf), *args, **settings)
    return value.detach(), torch.autograd.grad(-1.7 * value, leaf)[0]


def compare(got, expected):
    assert_close(got[0].double(), expected[0], rtol=2e-6, atol=1e-9)
    assert_close(got[1].double(), expected[1], rtol=1e-5, atol=2e-6 * expected[1].abs().max().item())


@pytest.fixture(autouse=True)
def blocks(monkeypatch):
    """The shapes that the operators' inner steps worked on."""
    seen = []
    inner, operators = coupling._of_positions, evaluate.cpu_operators()
    monkeypatch.setattr(coupling, '_of_positions', lambda z, *args: seen.append(tuple(z.shape)) or inner(z, *args))
    for name in ('channel_wise', 'coupled'):
        operator = getattr(operators, name)
        monkeypatch.setattr(operators, name, lambda loss, inputs, *args, operator=operator:
                            seen.append(tuple(inputs.student.shape)) or operator(loss, inputs, *args))
    return seen


@each_loss
@pytest.mark.parametrize('together', [1, 2, 5])
@pytest.mark.parametrize('with_weight', [False, True])
@pytest.mark.parametrize('temperature', [.5, 4.])
def test_as_the_plain_form_in_float64(loss, together, with_weight, temperature, blocks, monkeypatch):
    positions = SIZE[0] * SIZE[1]
    monkeypatch.setitem(upsampled.TOGETHER, 'cpu', together * positions)
    student, teacher, target, weight = problem()
    weight = weight if with_weight else None
    for reduction in ('mean', 'sum'):
        settings = dict(temperature=temperature, reduction=reduction)
        got = value_and_gradient(loss, resized(student), as_it_is, resized(teacher), target, weight, **settings)
        if loss not in BY_BLOCKS.values():
            assert blocks == [(3, 5, *SIZE)]
        else:
            assert blocks == 3 * [(1, 5, some) for some in {1: [112] * 5, 2: [224, 224, 112], 5: [560]}[together]]
        blocks.clear()
        expected = value_and_gradient(loss, resized(student).double(), as_it_is, resized(teacher).double(), target,
                                      weight, **settings)
        assert not blocks
        compare(got, expected)


@each_loss
@pytest.mark.parametrize('align_corners', [False, True])
def test_small_logits_of_other_strides(loss, align_corners, blocks):
    student, _, target, weight = problem()
    teacher = problem(small=(4, 3), seed=1)[1]
    got = value_and_gradient(loss, student, lambda z: Upsampled(z, SIZE, align_corners), Upsampled(teacher, SIZE),
                             target, weight)
    assert blocks
    expected = value_and_gradient(loss, student.double(), lambda z: resized(z, align_corners),
                                  resized(teacher.double()), target, weight)
    compare(got, expected)


@each_loss
def test_any_layout_and_half_precision(loss):
    student, teacher, target, _ = problem()
    expected = value_and_gradient(loss, student, small, small(teacher), target)
    got = value_and_gradient(loss, student.to(memory_format=torch.channels_last), small, small(teacher), target)
    assert_close(got, expected)
    half = student.bfloat16(), teacher.half()
    got = value_and_gradient(loss, half[0], small, small(half[1]), target)
    expected = value_and_gradient(loss, half[0].double(), resized, resized(half[1].double()), target)
    assert got[1].dtype == torch.bfloat16
    assert_close(got[0].double(), expected[0], rtol=1e-5, atol=0)
    assert_close(got[1].double(), expected[1], rtol=2**-8, atol=2e-6 * expected[1].abs().max().item())


@each_loss
@pytest.mark.parametrize('with_weight', [False, True])
def test_what_does_not_count_may_hold_anything(loss, with_weight):
    student, teacher, target, weight = problem()
    out = (target == 255).unsqueeze(1)
    if with_weight:
        out = out | (weight == 0).unsqueeze(1)
        weight[target == 255] = torch.nan
    args = (target, weight if with_weight else None)
    clean = value_and_gradient(loss, resized(student), as_it_is, resized(teacher), *args)
    dirty = value_and_gradient(loss, resized(student).masked_fill(out, torch.nan), as_it_is,
                               resized(teacher).masked_fill(out, torch.inf), *args)
    assert clean[0].isfinite() and clean[1].any()
    assert_close(dirty, clean, rtol=0, atol=0)
    assert not clean[1][out.expand_as(clean[1])].any()


@each_loss
def test_nothing_that_counts(loss):
    student, teacher, target, _ = problem()
    value, gradient = value_and_gradient(loss, student, small, small(teacher), torch.full_like(target, 255))
    assert value == 0 and not gradient.any()


@each_loss
def test_nan_reaches_value_and_gradient(loss):
    student, teacher, target, _ = problem()
    target[0, 0, 0] = 1
    for poisoned in (0, 1):
        full = [resized(logits) for logits in (student, teacher)]
        full[poisoned][0, 2, 0, 0] = torch.nan
        value, gradient = value_and_gradient(loss, full[0], as_it_is, full[1], target)
        assert value.isnan() and gradient[0, 2].isnan().any()


@pytest.mark.parametrize('shape', [(2, 3, 1), (1, 2, 4095), (1, 2, 4097), (2, 1, 100, 131)])
@pytest.mark.parametrize('with_weight', [False, True])
def test_channels_of_any_length(shape, with_weight, blocks):
    """One position, one less and one more than are worked on together, many more; and stretches where none counts."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = (3 * torch.randn(shape, generator=generator) for _ in range(2))
    # The largest logits come late.
    student[..., -1] += 20
    teacher[..., -1] += 15
    weight = torch.rand(shape[0], *shape[2:], generator=generator)
    weight.flatten(1)[:, 4200:8300] = 0
    args = (None, weight) if with_weight else (torch.where(weight == 0, 255, 0), None)
    got = value_and_gradient(cwd_loss, student, as_it_is, teacher, *args)
    assert blocks
    compare(got, value_and_gradient(cwd_loss, student.double(), as_it_is, teacher.double(), *args))


@pytest.mark.parametrize('logits_of', [as_it_is, small], ids=['full', 'small'])
def test_cwd_is_scipys_divergence(logits_of):
    """The paper's formula on the positions that count, by SciPy in float64."""
    student, teacher, target, _ = problem()
    full = [logits if logits_of is small else resized(logits) for logits in (student, teacher)]
    value = cwd_loss(*map(logits_of, full), target, temperature=2.)
    counts, expected = target.flatten(1) != 255, []
    for z, v, some in zip(resized(student.double()).flatten(2), resized(teacher.double()).flatten(2), counts,
                          strict=True):
        if some.any():
            q, p = (softmax(logits[:, some].numpy() / 2, axis=1) for logits in (z, v))
            expected.append(4 * rel_entr(p, q).sum(1).mean())
    assert len(expected) == 2
    assert value.item() == pytest.approx(sum(expected) / 2, rel=1e-5)


@pytest.mark.parametrize('name', ['cwd', 'dgkd_capped'])
@pytest.mark.parametrize('logits_of', [as_it_is, small], ids=['full', 'small'])
def test_the_same_bits_for_any_number_of_threads(logits_of, name):
    student, teacher, target, weight = problem(number=2, channels=7)
    target[1] = target[0]
    full = [logits if logits_of is small else resized(logits) for logits in (student, teacher)]
    threads, results = torch.get_num_threads(), []
    try:
        for number in (1, 2, 3, 8):
            torch.set_num_threads(number)
            results.append(
                value_and_gradient(LOSSES[name], full[0], logits_of, logits_of(full[1]), target, weight))
    finally:
        torch.set_num_threads(threads)
    for result in results[1:]:
        assert torch.equal(result[0], results[0][0]) and torch.equal(result[1], results[0][1])


def test_large_logits_of_one_place():
    """Nearly all of a channel's mass at one position, in teacher and student at others."""
    student, teacher, target, _ = problem()
    student, teacher = resized(student), resized(teacher)
    student[:, :, 3, 4] += 1e4
    teacher[:, :, 8, 9] += 1e4
    got = value_and_gradient(cwd_loss, student, as_it_is, teacher, target)
    compare(got, value_and_gradient(cwd_loss, student.double(), as_it_is, teacher.double(), target))


def test_gradients_below_what_the_arithmetic_resolves_are_not_driven_apart():
    """Student and teacher so sure of the target that their gradients differ by 1e-26: DGKD is DKD there."""
    target = torch.randint(5, (2, 3, 4), generator=torch.Generator().manual_seed(0))
    teacher = 61. * F.one_hot(target, 5).movedim(-1, 1)
    student, settings = teacher - teacher / 61, dict(temperature=1., beta=1.)
    got, expected = (value_and_gradient(loss, student, as_it_is, teacher, target, **settings)
                     for loss in (dgkd_loss, dkd_loss))
    assert 0 < expected[1].abs().max() < 1e-24
    assert_close(got, expected, rtol=1e-6, atol=0)


@each_loss
def test_a_second_pass_through_the_graph(loss):
    student, teacher, target, _ = problem()
    student.requires_grad_()
    value = loss(small(student), small(teacher), target)
    first, = torch.autograd.grad(value, student, retain_graph=True)
    assert first.any()
    assert_close(torch.autograd.grad(value, student)[0], first, rtol=0, atol=0)


@each_loss
def test_second_derivatives_are_those_of_the_plain_form(loss):
    student, teacher, target, _ = problem()
    second = []
    for dtype in (torch.float32, torch.float64):
        leaf = student.to(dtype).requires_grad_()
        value = loss(small(leaf), small(teacher.to(dtype)), target)
        first, = torch.autograd.grad(value, leaf, create_graph=True)
        second.append(torch.autograd.grad(first.square().sum(), leaf)[0].double())
    assert_close(*second, rtol=1e-4, atol=1e-5 * second[1].abs().max().item())


@each_loss
def test_a_batch_in_two_parts(loss):
    """The average of the parts is the loss of the whole, also on a second pass, and twice derived, after the batch."""
    student, teacher, target, weight = problem()
    shares = [slice(0, 1), slice(1, 3)]

    def run(part, combine):
        leaf = student[part].clone().requires_grad_()
        with joined_batch(combine, 2):
            value = loss(small(leaf), small(teacher[part]), target[part], weight[part])
            first, = torch.autograd.grad(value, leaf, retain_graph=True)
        again, = torch.autograd.grad(value, leaf, create_graph=True)
        return value.detach(), first, again.detach(), torch.autograd.grad(again.square().sum(), leaf)[0]

    # What a part gives may depend on what it was given before: repeat until both know the other's numbers.
    given = [{}, {}]
    for _ in range(6):
        results = []
        for index, part in enumerate(shares):
            calls = iter(range(100))

            def combine(value, op, index=index, calls=calls):
                call = next(calls)
                given[index][call] = value
                other = given[1 - index].get(call, torch.zeros_like(value))
                return value + other if op == 'sum' else torch.maximum(value, other)

            results.append(run(part, combine))
    leaf = student.double().requires_grad_()
    whole = loss(small(leaf), small(teacher.double()), target, weight.double())
    gradient, = torch.autograd.grad(whole, leaf, create_graph=True)
    second, = torch.autograd.grad(gradient.square().sum(), leaf)
    compare((sum(result[0] for result in results) / 2, torch.cat([result[1] for result in results]) / 2),
            (whole.detach(), gradient.detach()))
    assert_close(torch.cat([result[2] for result in results]) / 2, torch.cat([result[1] for result in results]) / 2,
                 rtol=1e-4, atol=1e-7)
    assert_close(torch.cat([result[3] for result in results]).double() / 4, second, rtol=1e-4,
                 atol=1e-5 * second.abs().max().item())


@each_loss
def test_the_switch(loss, blocks, monkeypatch):
    student, teacher, target, _ = problem()
    fast = value_and_gradient(loss, student, small, small(teacher), target)
    assert blocks
    blocks.clear()
    monkeypatch.setenv('MMSEG_KD_KERNELS', 'naive')
    plain = value_and_gradient(loss, student, small, small(teacher), target)
    assert not blocks
    assert_close(fast, plain, rtol=1e-5, atol=1e-6)


def test_no_backward_pass_waits_for_a_device():
    """A tensor on no device at all refuses to say what it is, as one on a GPU would wait for it."""
    student = torch.ones(3, device='meta', requires_grad=True)

    def compute():
        return student.detach().sum(), torch.ones_like(student)

    upsampled.with_gradient(student, compute, student.sum).backward()
    assert student.grad.shape == (3, )

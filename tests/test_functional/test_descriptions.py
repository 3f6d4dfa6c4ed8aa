"""A loss that is only described is checked, right and fast: the one that docs/adding_a_loss.md makes, and others."""
import importlib.util
import sys
from dataclasses import dataclass

import oracles
import pytest
import torch
from tiny import ROOT
from torch.nn import functional as F
from torch.testing import assert_close

from mmseg_kd.functional import (
    ByClass,
    ByLabel,
    ByRank,
    GroupedLoss,
    OneGroup,
    TargetAndRest,
    Upsampled,
    checked,
    dkd_loss,
    evaluate,
    gdkd3_loss,
    kd_loss,
    loss_of,
)
from mmseg_kd.functional.kinds import GIVEN, kind_of

CLASSES = 7


@dataclass(frozen=True)
class MoreThanMean:
    """Groups of one's own: what the teacher finds more probable than the mean, and the rest."""

    number = 2
    needs_target = False

    def map(self, teacher, target, temperature):
        return (teacher < teacher.mean(1, keepdim=True)).to(torch.int8)


KIN = tuple(tuple(0 if c == y else 1 if c % 3 == y % 3 else 2 for c in range(CLASSES)) for y in range(CLASSES))
DESCRIPTIONS = [
    GroupedLoss(ByClass((0, 0, 1, 2, 2, 1, 2)), .5, (1., 2., 3.), 2.),
    GroupedLoss(ByClass((0, 3, 1, 2, 2, 1, 2)), .5, (1., 2., 3., 4.), 2., 'both'),
    GroupedLoss(ByClass((1, 0, 1, 1, 0, 1, 1)), 1.5, (2., .5), 1., 'reverse'),
    GroupedLoss(ByLabel(KIN), 1., (0., 3., 2.), 4.),
    GroupedLoss(ByRank((2, 4)), 1., (2., 3., .5), 1.),
    GroupedLoss(ByRank((1, 2, 5)), 1., (2., 3., .5, 1.), 1., 'both'),
    GroupedLoss(MoreThanMean(), 1., (2., 3.), 2.)]
each_description = pytest.mark.parametrize(
    'loss', DESCRIPTIONS, ids=lambda loss: f'{type(loss.groups).__name__}-{loss.groups.number}')


def problem(shape=(2, 5, 17), scale=3., small=None, classes=CLASSES):
    generator = torch.Generator().manual_seed(0)
    student, teacher = (scale * torch.randn(shape[0], classes, *(small or shape[1:]), generator=generator)
                        for _ in range(2))
    target = torch.randint(classes, shape, generator=generator)
    target[torch.rand(shape, generator=generator) < .2] = 255
    weight = torch.rand(shape, generator=generator)
    weight[torch.rand(shape, generator=generator) < .2] = 0
    return student, teacher, target, weight


def value_and_gradient(loss, student, teacher, target, weight, logits_of=lambda z: z):
    leaf = student.detach().requires_grad_()
    inputs = checked(logits_of(leaf), logits_of(teacher), target, weight, 255, 'mean')
    value = loss_of(loss, inputs)
    return value.detach(), torch.autograd.grad(-1.7 * value, leaf)[0]


def compare(got, expected):
    assert_close(got[0].double(), expected[0], rtol=2e-6, atol=1e-9)
    assert_close(got[1].double(), expected[1], rtol=1e-5, atol=3e-6 * expected[1].abs().max().item())


@pytest.fixture(params=['auto', 'triton'])
def calls(request, monkeypatch):
    """How often an operator ran, on a CPU and as on a GPU."""
    if request.param == 'triton':
        pytest.importorskip('triton', reason='Triton is not installed (it is part of the extra "dev" on Linux)')
        if torch.cuda.is_available():
            pytest.skip('this test is about the interpreter')
    monkeypatch.setenv('MMSEG_KD_KERNELS', request.param)
    operators, calls = dict(auto=evaluate.cpu_operators, triton=evaluate.gpu_operators)[request.param](), []
    inner = operators.loss
    monkeypatch.setattr(operators, 'loss', lambda *args: calls.append(args[0]) or inner(*args))
    return calls


@each_description
def test_has_its_operators(loss, calls):
    student, teacher, target, weight = problem()
    exact = student.double(), teacher.double(), target, weight
    compare(value_and_gradient(loss, student, teacher, target, weight), value_and_gradient(loss, *exact))
    rows = [x.movedim(1, -1).flatten(0, -2) for x in (student, teacher)], [x.flatten() for x in (target, weight)]
    compare(value_and_gradient(loss, *rows[0], *rows[1]), (value_and_gradient(loss, *exact)[0], value_and_gradient(
        loss, *exact)[1].movedim(1, -1).flatten(0, -2)))
    assert calls == [loss, loss]  # float64 is the plain form's


@each_description
def test_upsamples_inside(loss, calls, monkeypatch):
    size = (7, 12)
    student, teacher, target, weight = problem((2, *size), small=(2, 3))
    expected = value_and_gradient(loss, student.double(), teacher.double(), target, weight,
                                  lambda z: F.interpolate(z, size, mode='bilinear'))
    interpolated, interpolate = [], F.interpolate
    monkeypatch.setattr(F, 'interpolate', lambda *args, **names: interpolated.append(1) or interpolate(*args, **names))
    compare(value_and_gradient(loss, student, teacher, target, weight, lambda z: Upsampled(z, size)), expected)
    # The student's map never exists; the teacher's only where groups of one's own, or of any ranks, look at it.
    assert calls == [loss] and len(interpolated) == isinstance(loss.groups, (MoreThanMean, ByRank))


@each_description
def test_as_the_formula_in_60_digits(loss):
    student, teacher, target, _ = problem((3, ), scale=2.)
    target = target.clamp(0, CLASSES - 1)
    groups = loss.groups.map(teacher, target, loss.temperature)
    values = loss.map(student.double(), teacher.double(), target)
    for value, z, v, of_class in zip(values.tolist(), student.tolist(), teacher.tolist(), groups.tolist(), strict=True):
        expected = oracles.grouped([oracles.mpf(x) for x in z], [oracles.mpf(x) for x in v], of_class, loss.w_between,
                                   loss.w_within[:max(of_class) + 1], loss.temperature, loss.divergence)
        assert value == pytest.approx(float(expected), rel=1e-10)


def test_the_same_groups_said_otherwise_are_the_same_loss(calls):
    student, teacher, target, weight = problem()
    own = tuple(tuple(int(c != y) for c in range(CLASSES)) for y in range(CLASSES))
    for description, function, settings in [
            (GroupedLoss(ByLabel(own), 1., (0., 8.), 4.), dkd_loss, {}),
            (GroupedLoss(ByClass((0, ) * CLASSES), 0., (1., ), 4.), kd_loss, {}),
            (GroupedLoss(ByRank((1, 3)), 1., (0., 2., 8.), 4.), gdkd3_loss, dict(k=3))]:
        leaf = student.detach().requires_grad_()
        value = function(leaf, teacher, target, weight, **settings)
        gradient, = torch.autograd.grad(-1.7 * value, leaf)
        got = value_and_gradient(description, student, teacher, target, weight)
        assert_close(got[0], value.detach(), rtol=2e-6, atol=0)
        assert_close(got[1], gradient, rtol=1e-5, atol=1e-6 * gradient.abs().max().item())


@pytest.mark.parametrize('lead', [20., 200., 1e4])
def test_given_groups_at_any_confidence(lead, calls):
    student, teacher, target, _ = problem((40, ), scale=1.)
    student[torch.arange(40), torch.arange(40) % CLASSES] += lead
    teacher[torch.arange(40), torch.arange(40) // 2 % CLASSES] += lead
    for loss in DESCRIPTIONS[:2]:
        exact = value_and_gradient(loss, student.double(), teacher.double(), target, None)
        got = value_and_gradient(loss, student, teacher, target, None)
        assert_close(got[0].double(), exact[0], rtol=1e-5, atol=0)
        assert (got[1] - exact[1]).abs().max() <= 1e-5 * exact[1].abs().max()
    student[0, 3], target[0] = torch.nan, 1
    value, gradient = value_and_gradient(DESCRIPTIONS[0], student, teacher, target, None)
    assert value.isnan() and gradient[0].isnan().any() and gradient[1:].isfinite().all()
    target[0] = 255
    value, gradient = value_and_gradient(DESCRIPTIONS[0], student, teacher, target, None)
    assert value.isfinite() and gradient.isfinite().all()


def test_descriptions_that_look_alike_differ():
    """They are keys of caches; as tuples an empty one would be every other."""
    assert len({OneGroup(), TargetAndRest(), ByRank((1, )), ByClass((1, ))}) == 4
    assert [kind_of(GroupedLoss(groups, 1., (1., ) * groups.number)) == GIVEN for groups in (
        OneGroup(), TargetAndRest(), ByRank((3, )), ByRank((1, 3)), ByRank((2, 3)), ByClass((0, 1)))] == [
            False, False, False, False, True, True]


@pytest.mark.parametrize('choice', ['auto', 'naive'])
@pytest.mark.parametrize('loss,message', [
    (GroupedLoss(ByClass((0, 1, 2)), 1., (1., 1., 1.)), r'`groups` must hold one group, 0 or above, for each of 7'),
    (GroupedLoss(ByClass((0, 1, -1, 0, 0, 0, 0)), 1., (1., 1.)), 'belongs nowhere is a group of its own with weight 0'),
    (GroupedLoss(ByLabel(KIN[:3]), 1., (1., 1., 1.)), 'one row for the label of each of 7 classes, got 3 rows'),
    (GroupedLoss(ByClass((0, 1, 1, 0, 0, 0, 0)), 1., (1., )), '`w_within` must hold one weight for each of 2 groups'),
])
def test_what_does_not_fit_is_refused(loss, message, choice, monkeypatch):
    monkeypatch.setenv('MMSEG_KD_KERNELS', choice)
    with pytest.raises(ValueError, match=message):
        value_and_gradient(loss, *problem())


def test_the_guide_s_loss_is_short_and_has_its_operators(calls, tmp_path, monkeypatch):
    sys.path.insert(0, str(ROOT / 'tests/test_docs'))
    try:
        from documents import File, steps
    finally:
        sys.path.pop(0)
    file = next(step for step in steps(ROOT / 'docs/adding_a_loss.md') if isinstance(step, File))
    assert file.name == 'kinds_loss.py'
    function = file.text[:file.text.index('@MODELS.register_module()')]
    assert len(function.strip().splitlines()) <= 40 and len(file.text.strip().splitlines()) <= 40
    (tmp_path / file.name).write_text(file.text.replace('@MODELS.register_module()\n', ''))  # one name, once
    spec = importlib.util.spec_from_file_location('kinds_loss', tmp_path / file.name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    student, teacher, target, weight = problem((2, 3, 17), classes=19)
    leaf = student.clone().requires_grad_()
    loss = module.KindsLoss(between=.5)
    got = loss(leaf, teacher, target, weight)
    gradient, = torch.autograd.grad(got, leaf)
    assert len(calls) == 1
    leaf = student.double().requires_grad_()
    expected = loss(leaf, teacher.double(), target, weight)
    compare((got.detach(), gradient), (expected.detach(), torch.autograd.grad(expected, leaf)[0]))

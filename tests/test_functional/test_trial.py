"""Before a kernel is used on a GPU it is tried there; one that is wrong costs speed and no training run."""
import types

import pytest
import torch
from test_kernels import problem
from torch.nn import functional as F
from torch.testing import assert_close

from mmseg_kd.functional import (
    ByClass,
    ByRank,
    GroupedLoss,
    OneGroup,
    RandomPart,
    TargetAndRest,
    Upsampled,
    cross_entropy,
    dkd_loss,
    evaluate,
    gdkd_loss,
    trial,
)
from mmseg_kd.functional.binary import BinaryKL, BinaryKLNorm
from mmseg_kd.functional.kinds import ChannelWise, CrossEntropy
from mmseg_kd.functional.trial import Variant, passes_trial

SPECS = [
    GroupedLoss(OneGroup(), temperature=4.), GroupedLoss(TargetAndRest(), 1., (0., 8.), 4.),
    GroupedLoss(ByRank((5, )), 1., (2., 8.), 1., 'both'),
    GroupedLoss(ByRank((3, ), 'worst'), 1., (2., 8.), 2., 'reverse'),
    GroupedLoss(ByRank((1, 4)), .5, (0., 1., 3.), 2.), GroupedLoss(ByRank((6, ), ratio=1.5), 1., (1., 1.), 1.),
    GroupedLoss(ByRank((5, ), of_label=(1, 2, 3, 4, 5, 4, 3)), 1., (2., 8.), 1.),
    GroupedLoss(RandomPart(.5), 1., (0., 0., 8.), 4.),
    GroupedLoss(ByClass((0, 0, 1, 2, 2, 1, 3)), .5, (1., 2., 3., 4.), 2., 'both'),
    BinaryKL(2.), BinaryKLNorm(2.), CrossEntropy(), ChannelWise(2.)]
each_spec = pytest.mark.parametrize('spec', SPECS, ids=repr)


def variant(upsamples=True, student=torch.float32, **settings):
    return Variant(**{**dict(device=torch.device('cpu'), num_classes=7, student=student, teacher=student,
                             upsamples=upsamples, with_weight=False), **settings})


def broken(**changes):
    """The CPU's operators with something changed."""
    operators, module = evaluate.cpu_operators(), types.ModuleType('changed')
    vars(module).update({name: getattr(operators, name) for name in operators.__all__} | changes)
    return module


@pytest.fixture(autouse=True)
def fresh():
    trial._found.clear()
    yield
    trial._found.clear()


@pytest.mark.parametrize('spec,upsamples', [
    (spec, upsamples) for spec in SPECS for upsamples in (False, True)
    # For the others there are no operators.
    if not (isinstance(spec, CrossEntropy) and not upsamples or 'RandomPart' in repr(spec) and upsamples)])
@pytest.mark.filterwarnings('error')
def test_what_is_right_passes(spec, upsamples):
    with_weight = not isinstance(spec, CrossEntropy)
    before = torch.get_rng_state()
    assert passes_trial(evaluate.cpu_operators(), spec, variant(upsamples, with_weight=with_weight))
    assert torch.equal(torch.get_rng_state(), before)


@each_spec
def test_triton_kernels_pass(spec):
    pytest.importorskip('triton', reason='Triton is not installed (it is part of the extra "dev" on Linux)')
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    for student in (torch.float32, torch.bfloat16):
        asked = variant('RandomPart' not in repr(spec), student, device=device)
        assert passes_trial(evaluate.gpu_operators(), spec, asked)


def _wrong_value(*args):
    return evaluate.cpu_operators().loss(*args) * 1.001


def _wrong_gradient(loss, inputs, *args):
    leaf = getattr(inputs.student, 'logits', inputs.student)
    value = evaluate.cpu_operators().loss(loss, inputs, *args)
    return value + 1e-3 * (leaf - leaf.detach()).square().sum() + 1e-3 * (leaf - leaf.detach()).sum()


def _not_a_number(*args):
    return evaluate.cpu_operators().loss(*args) * torch.nan


def _no_memory(*args):
    raise RuntimeError('out of resource: shared memory')


@pytest.mark.parametrize('loss,message', [
    (_wrong_value, 'differs from the plain form by 1.0e-03'), (_wrong_gradient, 'differs from the plain form by'),
    (_not_a_number, 'differs from the plain form by inf'), (_no_memory, 'raised RuntimeError.*shared memory')])
@pytest.mark.parametrize('spec', SPECS[:3], ids=repr)
def test_what_is_wrong_is_refused_once(loss, message, spec):
    operators = broken(loss=loss)
    with pytest.warns(UserWarning, match=f'the fast form of a loss is off: on cpu it {message}.*GroupedLoss.*report'):
        assert not passes_trial(operators, spec, variant())
    assert not passes_trial(operators, spec, variant())  # and says nothing more


def test_a_loss_goes_on_by_its_plain_form(monkeypatch):
    student, teacher, target, weight = problem(7, (2, 5, 17))
    expected = [loss(student.double(), teacher.double(), target, weight) for loss in (dkd_loss, gdkd_loss)]
    good = broken()
    operators = broken(loss=lambda *args: good.loss(*args) * 1.001)
    monkeypatch.setattr(evaluate, 'cpu_operators', lambda: operators)
    assert dkd_loss(student, teacher, target, weight).double() / expected[0] == pytest.approx(1.001)
    monkeypatch.setattr(evaluate, 'is_on_trial', lambda device: True)
    with pytest.warns(UserWarning, match='the fast form of a loss is off'):
        got = [loss(student, teacher, target, weight) for loss in (dkd_loss, gdkd_loss)]
    assert_close([value.double() for value in got], expected, rtol=1e-5, atol=0)
    small = Upsampled(student, (10, 34)), Upsampled(teacher, (10, 34))
    with pytest.warns(UserWarning, match='the fast form of a loss is off'):
        assert_close(gdkd_loss(*small), gdkd_loss(*(each.computed() for each in small)), rtol=1e-5, atol=0)


def test_so_does_the_supervised_loss(monkeypatch):
    student, _, target, _ = problem(7, (2, 5, 17))
    target = F.interpolate(target[:, None].float(), (10, 34))[:, 0].long()
    operators = broken(cross_entropy=_no_memory)
    monkeypatch.setattr(evaluate, 'cpu_operators', lambda: operators)
    monkeypatch.setattr(evaluate, 'is_on_trial', lambda device: True)
    with pytest.warns(UserWarning, match='raised RuntimeError.*CrossEntropy'):
        total, _ = cross_entropy.cross_entropy_sum(Upsampled(student, (10, 34)), target)
    full = F.interpolate(student, (10, 34), mode='bilinear')
    assert_close(total, F.cross_entropy(full, target, ignore_index=255, reduction='sum'))


def test_a_first_call_under_inference_mode_and_one_without_memory_spoil_nothing():
    with torch.inference_mode():
        assert passes_trial(evaluate.cpu_operators(), SPECS[1], variant())

    def no_room(*args):
        raise torch.OutOfMemoryError('CUDA out of memory')

    operators = broken(loss=no_room)
    with pytest.raises(torch.OutOfMemoryError):
        passes_trial(operators, SPECS[1], variant())
    operators.loss = evaluate.cpu_operators().loss
    assert passes_trial(operators, SPECS[1], variant())


def test_the_cpu_needs_no_trial():
    assert not evaluate.is_on_trial(torch.device('cpu'))

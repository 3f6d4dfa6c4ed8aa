"""Before a kernel is used on a GPU it is tried there; one that is wrong costs speed and no training run."""
import types

import pytest
import torch
from test_kernels import problem
from torch.nn import functional as F
from torch.testing import assert_close

from mmseg_kd.functional import Upsampled, cross_entropy, dkd_loss, gdkd_loss
from mmseg_kd.functional.kernels import LossSpec, dispatch
from mmseg_kd.functional.kernels.trial import Variant, passes_trial

SPECS = [
    LossSpec('all', 4.), LossSpec('target', 4., 1., (0., 8.)), LossSpec('rank', 1., 1., (2., 8.), 'both', (5, )),
    LossSpec('rank', 2., 1., (2., 8.), 'reverse', (3, ), 'worst'),
    LossSpec('rank', 2., .5, (0., 1., 3.), 'forward', (1, 4)),
    LossSpec('rank', 1., 1., (1., 1.), 'forward', (6, ), 'best', 1.5),
    LossSpec('random', 4., 1., (0., 0., 8.), keep=.5),
    LossSpec('binary', 2.), LossSpec('binary_norm', 2.), LossSpec('cross_entropy', 1.)]
each_spec = pytest.mark.parametrize('spec', SPECS, ids=lambda spec: f'{spec.kind}-{spec.divergence}-{spec.boundaries}')


def variant(upsamples=True, student=torch.float32, **settings):
    return Variant(**{**dict(device=torch.device('cpu'), num_classes=7, student=student, teacher=student,
                             upsamples=upsamples, with_weight=False, with_rank=False), **settings})


def broken(**changes):
    """The CPU's operators with something changed."""
    operators, module = dispatch.cpu_operators(), types.ModuleType('changed')
    vars(module).update({name: getattr(operators, name) for name in operators.__all__} | changes)
    return module


@pytest.fixture(autouse=True)
def fresh():
    passes_trial.cache_clear()
    yield
    passes_trial.cache_clear()


@pytest.mark.parametrize('spec,upsamples', [
    (spec, upsamples) for spec in SPECS for upsamples in (False, True)
    if (spec.kind, upsamples) not in (('cross_entropy', False), ('random', True))])  # for which there are no operators
@pytest.mark.filterwarnings('error')
def test_what_is_right_passes(spec, upsamples):
    with_weight = spec.kind != 'cross_entropy'
    before = torch.get_rng_state()
    assert passes_trial(dispatch.cpu_operators(), spec, variant(upsamples, with_weight=with_weight))
    if len(spec.boundaries) == 1 and not spec.ratio:
        assert passes_trial(dispatch.cpu_operators(), spec, variant(upsamples, with_rank=True))
    assert torch.equal(torch.get_rng_state(), before)


@each_spec
def test_triton_kernels_pass(spec):
    pytest.importorskip('triton', reason='Triton is not installed (it is part of the extra "dev" on Linux)')
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    for student in (torch.float32, torch.bfloat16):
        assert passes_trial(dispatch.gpu_operators(), spec, variant(spec.kind != 'random', student, device=device))


def _wrong_value(*args):
    return dispatch.cpu_operators().loss(*args) * 1.001


def _wrong_gradient(student, *args):
    leaf = getattr(student, 'logits', student)
    value = dispatch.cpu_operators().loss(student, *args)
    return value + 1e-3 * (leaf - leaf.detach()).square().sum() + 1e-3 * (leaf - leaf.detach()).sum()


def _not_a_number(*args):
    return dispatch.cpu_operators().loss(*args) * torch.nan


def _no_memory(*args):
    raise RuntimeError('out of resource: shared memory')


@pytest.mark.parametrize('loss,message', [
    (_wrong_value, 'differs from the plain form by 1.0e-03'), (_wrong_gradient, 'differs from the plain form by'),
    (_not_a_number, 'differs from the plain form by inf'), (_no_memory, 'raised RuntimeError.*shared memory')])
@pytest.mark.parametrize('spec', SPECS[:3], ids=lambda spec: spec.kind)
def test_what_is_wrong_is_refused_once(loss, message, spec):
    operators = broken(loss=loss)
    with pytest.warns(UserWarning, match=f'the fast form of a loss is off: on cpu it {message}.*LossSpec.*report'):
        assert not passes_trial(operators, spec, variant())
    assert not passes_trial(operators, spec, variant())  # and says nothing more


def test_a_loss_goes_on_by_its_plain_form(monkeypatch):
    student, teacher, target, weight = problem(7, (2, 5, 17))
    expected = [loss(student.double(), teacher.double(), target, weight) for loss in (dkd_loss, gdkd_loss)]
    monkeypatch.setattr(dispatch, 'operators_for', lambda *_: broken(loss=_wrong_value))
    assert dkd_loss(student, teacher, target, weight).double() / expected[0] == pytest.approx(1.001)
    monkeypatch.setattr(dispatch, 'is_on_trial', lambda device: True)
    with pytest.warns(UserWarning, match='the fast form of a loss is off'):
        got = [loss(student, teacher, target, weight) for loss in (dkd_loss, gdkd_loss)]
    assert_close([value.double() for value in got], expected, rtol=1e-5, atol=0)
    small = Upsampled(student, (10, 34)), Upsampled(teacher, (10, 34))
    with pytest.warns(UserWarning, match='the fast form of a loss is off'):
        assert_close(gdkd_loss(*small), gdkd_loss(*(each.computed() for each in small)), rtol=1e-5, atol=0)


def test_so_does_the_supervised_loss(monkeypatch):
    student, _, target, _ = problem(7, (2, 5, 17))
    target = F.interpolate(target[:, None].float(), (10, 34))[:, 0].long()
    monkeypatch.setattr(cross_entropy, 'operators_for', lambda *_: broken(cross_entropy=_no_memory))
    monkeypatch.setattr(dispatch, 'is_on_trial', lambda device: True)
    with pytest.warns(UserWarning, match='raised RuntimeError.*cross_entropy'):
        total, _ = cross_entropy.cross_entropy_sum(Upsampled(student, (10, 34)), target)
    full = F.interpolate(student, (10, 34), mode='bilinear')
    assert_close(total, F.cross_entropy(full, target, ignore_index=255, reduction='sum'))


def test_the_cpu_needs_no_trial():
    assert not dispatch.is_on_trial(torch.device('cpu'))

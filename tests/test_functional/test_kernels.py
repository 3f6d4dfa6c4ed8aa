"""The CPU's operators against the plain forms in float64, which define the losses."""
import os
import subprocess
import sys

import pytest
import torch
from loss_cases import VARIANTS
from torch.testing import assert_close

from mmseg_kd.functional import ByLabel, ByRank, OneGroup, RandomPart, TargetAndRest, evaluate, gdkd_loss, kd_loss

pytestmark = pytest.mark.filterwarnings('ignore:.*by construction:UserWarning')

#: What has an operator; a draw in float64 would be another one, so that all classes are kept.
CASES = [case._replace(settings=dict(keep=1.)) if case.name == 'stochastic_gdkd' else case for case in VARIANTS
         if case.function.__name__.startswith(('kd', 'dkd', 'gdkd', 'stochastic', 'binary'))
         and not {'standardize', 'by_mass'} & set(case.settings)]
each_case = pytest.mark.parametrize('case', CASES, ids=lambda case: case.name)


@pytest.fixture
def calls(monkeypatch):
    """How often an operator ran."""
    operators, calls = evaluate.cpu_operators(), []
    loss = operators.loss
    monkeypatch.setattr(operators, 'loss', lambda *args: calls.append(args[-2]) or loss(*args))
    return calls


def settings_for(case, num_classes):
    """A table has one entry per class."""
    settings = dict(case.settings)
    if isinstance(settings.get('k'), (list, tuple)):
        settings['k'] = [1 + index % 3 for index in range(num_classes)]
    return settings


def problem(num_classes, shape, seed=0, scale=3.):
    """Logits, labels and weights; some labels ignored, some weights 0, some teachers' logits equal."""
    generator = torch.Generator().manual_seed(seed)
    student = scale * torch.randn(shape[0], num_classes, *shape[1:], generator=generator)
    teacher = (scale * torch.randn(student.shape, generator=generator)).bfloat16().float()
    target = torch.randint(num_classes, shape, generator=generator)
    target[torch.rand(shape, generator=generator) < .2] = 255
    weight = torch.rand(shape, generator=generator)
    weight[torch.rand(shape, generator=generator) < .2] = 0
    return student, teacher, target, weight


def by_operator(case, student, *args, upstream=1., **settings):
    student = student.detach().requires_grad_()
    value = case.function(student, *args, **settings)
    return value.detach(), torch.autograd.grad(value, student, torch.tensor(upstream).to(value))[0]


def compare(case, student, teacher, target, weight, upstream=1., **settings):
    settings = {**settings_for(case, student.shape[1]), **settings}
    got = by_operator(case, student, teacher, target, weight, upstream=upstream, **settings)
    expected = by_operator(case, student.double(), teacher.double(), target, weight, upstream=upstream, **settings)
    assert_close(got[0].double(), expected[0], rtol=2e-6, atol=1e-9)
    largest = expected[1].abs().max().item()
    assert_close(got[1].double(), expected[1], rtol=1e-5, atol=2e-6 * largest)


@pytest.mark.parametrize('num_classes,shape', [(7, (2, 5, 17)), (19, (1, 3, 333)), (33, (3, 1, 1)), (171, (2, 40)),
                                               (8, (129, ))])
@each_case
def test_as_the_plain_form_in_float64(case, num_classes, shape, calls):
    student, teacher, target, weight = problem(num_classes, shape)
    compare(case, student, teacher, target, weight, upstream=-1.7)
    assert len(calls) == 1  # float64 is the plain form's


@each_case
def test_every_setting_of_the_reduction(case, calls):
    student, teacher, target, weight = problem(7, (2, 4, 9), seed=3)
    for reduction in ('mean', 'sum'):
        compare(case, student, teacher, target, None, reduction=reduction)
        compare(case, student, teacher, target, weight, reduction=reduction)
    assert len(calls) == 4


@pytest.mark.parametrize('function', ['kd', 'dkd', 'stochastic_gdkd', 'binary_kl', 'binary_kl_norm'])
def test_two_classes(function):
    case = next(case for case in CASES if case.function.__name__ == f'{function}_loss')
    compare(case, *problem(2, (2, 3, 17)))


@pytest.mark.parametrize('strategy', ['best', 'worst'])
@pytest.mark.parametrize('k', [1, 3, 6])
def test_equal_logits_rank_in_the_order_of_the_classes(strategy, k):
    student, _, target, _ = problem(7, (2, 50))
    teacher = torch.randint(3, student.shape, generator=torch.Generator().manual_seed(1)).float()
    case = next(case for case in CASES if case.function is gdkd_loss)
    compare(case, student, teacher, target, None, k=k, strategy=strategy, divergence='both')


@pytest.mark.parametrize('ratio,k_max,scale,temperature', [(1.1, 3, .3, 1.), (1.5, 6, 3., 4.), (3., 4, 10., 1.),
                                                           (2., 12, 300., 1.)])
def test_k_of_each_position(ratio, k_max, scale, temperature):
    case = next(case for case in CASES if case.function is gdkd_loss)
    for seed in range(5):
        student, teacher, target, _ = problem(13, (2, 64), seed, scale)
        settings = dict(k=5, ratio=ratio, k_max=k_max, temperature=temperature)
        compare(case._replace(settings={}), student, teacher, target, None, **settings)


def test_the_draw_is_that_of_the_plain_form(monkeypatch):
    case = next(case for case in CASES if 'stochastic' in case.name)
    student, teacher, target, _ = problem(19, (2, 5, 33))
    values = []
    for choice in ('auto', 'naive'):
        monkeypatch.setenv('MMSEG_KD_KERNELS', choice)
        torch.manual_seed(7)
        values.append(by_operator(case, student, teacher, target, keep=.4))
    assert_close(values[0], values[1], rtol=1e-5, atol=1e-5)


@each_case
def test_what_does_not_count_may_hold_anything(case):
    student, teacher, target, weight = problem(7, (2, 4, 9))
    settings = settings_for(case, 7)
    clean = by_operator(case, student, teacher, target, weight, **settings)
    out = ((target == 255) | (weight == 0)).unsqueeze(1)
    dirty = by_operator(case, student.masked_fill(out, torch.nan), teacher.masked_fill(out, torch.inf), target, weight,
                        **settings)
    assert_close(dirty, clean, rtol=0, atol=0)


@pytest.mark.parametrize('poisoned', ['student', 'teacher'])
@each_case
def test_nan_is_not_swallowed(case, poisoned):
    student, teacher, target, _ = problem(7, (2, 4, 9))
    target[0, 0, 0] = 2
    dict(student=student, teacher=teacher)[poisoned][0, 4, 0, 0] = torch.nan
    value, gradient = by_operator(case, student, teacher, target, **settings_for(case, 7))
    assert value.isnan()
    assert gradient[0, :, 0, 0].isnan().any() and gradient[1].isfinite().all()


def test_layouts_of_memory():
    student, teacher, target, _ = problem(19, (2, 6, 10))
    case = next(case for case in CASES if case.name == 'dkd')
    expected = by_operator(case, student, teacher, target)
    student, teacher = student.mT.contiguous().mT, teacher.contiguous(memory_format=torch.channels_last)
    assert_close(by_operator(case, student, teacher, target), expected, rtol=0, atol=0)


def test_any_number_of_threads_gives_the_same_bits():
    student, teacher, target, _ = problem(19, (2, 61, 47))
    case = next(case for case in CASES if case.name == 'dkd')
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(by_operator(case, student, teacher, target))
    finally:
        torch.set_num_threads(before)
    assert_close(results[0], results[1], rtol=0, atol=0)
    assert_close(results[0], results[2], rtol=0, atol=0)


def test_a_second_backward_pass_gives_the_same():
    student, teacher, target, _ = problem(7, (2, 30))
    for name in ('dkd', 'stochastic_gdkd'):
        function = next(case.function for case in CASES if case.name == name)
        student.requires_grad_()
        loss = function(student, teacher, target)
        first, *others = (torch.autograd.grad(loss, student, torch.tensor(upstream), retain_graph=True)[0] / upstream
                          for upstream in (1., 3., -2.))
        for other in others:
            assert_close(other, first)


def second_derivative(function, student, *args):
    student = student.detach().requires_grad_()
    gradient, = torch.autograd.grad(3 * function(student, *args), student, create_graph=True)
    return torch.autograd.grad(gradient.square().sum(), student)[0]


def test_second_derivatives_are_the_plain_form_s():
    student, teacher, target, weight = problem(7, (2, 30))
    case = next(case for case in CASES if case.name == 'dkd')
    got = second_derivative(case.function, student, teacher, target, weight)
    expected = second_derivative(case.function, student.double(), teacher.double(), target, weight)
    assert expected.abs().max() > 0
    assert_close(got.double(), expected, rtol=1e-4, atol=1e-6)


def test_a_draw_has_no_second_derivative():
    student, teacher, target, _ = problem(7, (2, 30))
    case = next(case for case in CASES if 'stochastic' in case.name)
    with pytest.raises(RuntimeError, match='MMSEG_KD_KERNELS=naive'):
        second_derivative(case.function, student, teacher, target)


def test_no_graph_where_none_is_asked_for(calls):
    student, teacher, _, _ = problem(7, (2, 30))
    assert not kd_loss(student, teacher).requires_grad
    with torch.no_grad():
        assert not kd_loss(student.requires_grad_(), teacher).requires_grad
    assert len(calls) == 2


def test_plain_where_it_must_be(calls, monkeypatch):
    student, teacher, target, weight = problem(7, (2, 30))
    assert kd_loss(student, teacher, reduction='none').shape == target.shape
    kd_loss(student, teacher, target, weight.requires_grad_()).backward()
    assert weight.grad.abs().max() > 0
    torch.vmap(lambda z, v: kd_loss(z[None], v[None]))(student, teacher)
    kd_loss(student, teacher, standardize='whole')
    monkeypatch.setenv('MMSEG_KD_KERNELS', 'naive')
    kd_loss(student, teacher)
    assert not calls


def test_the_switch_refuses_other_words(monkeypatch):
    student, teacher, _, _ = problem(7, (2, 30))
    monkeypatch.setenv('MMSEG_KD_KERNELS', 'fast')
    with pytest.raises(ValueError, match="MMSEG_KD_KERNELS must be 'auto', 'naive' or 'triton', got 'fast'"):
        kd_loss(student, teacher)


def test_without_numba_the_plain_forms_work_and_say_so():
    program = ('import sys, warnings; sys.modules["numba"] = None; import torch\n'
               'from mmseg_kd.functional import kd_loss\n'
               'with warnings.catch_warnings(record=True) as said:\n'
               '    warnings.simplefilter("always")\n'
               '    print(round(float(kd_loss(torch.zeros(2, 3), torch.tensor([[4., 0., 0.], [0., 0., 0.]]))), 4))\n'
               '    kd_loss(torch.zeros(2, 3), torch.zeros(2, 3))\n'
               'print(sum("numba does not work" in str(one.message) for one in said))')
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, env=os.environ)
    assert done.stdout.split() == ['0.9863', '1'], done.stderr


def test_numba_is_not_imported_before_it_is_needed():
    program = 'import sys, mmseg_kd.functional, mmseg_kd.losses; print("numba" in sys.modules)'
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
    assert done.stdout.strip() == 'False', done.stderr


def test_which_groups_need_labels():
    groups = (OneGroup(), TargetAndRest(), ByRank((2, )), ByRank((2, ), of_label=(1, 2)), RandomPart(.5),
              ByLabel(((0, 1), )))
    assert [each.needs_target for each in groups] == [False, True, False, True, True, True]

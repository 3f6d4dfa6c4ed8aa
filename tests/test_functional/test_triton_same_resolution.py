"""The GPU's operators on logits of one resolution against the plain forms in float64, which define the losses."""
import pytest
import torch
from on_triton import DEVICE, moved, poisoned, triton_kernels  # noqa: F401
from test_extremes import _leading
from test_kernels import CASES, by_operator, compare, each_case, problem, second_derivative, settings_for
from torch.testing import assert_close

from mmseg_kd.functional import binary_kl_loss, dkd_loss, evaluate, gdkd3_loss, gdkd_loss, kd_loss

pytestmark = pytest.mark.filterwarnings('ignore:.*by construction:UserWarning')


def case_of(name):
    return next(case for case in CASES if case.name == name)


KINDS = 'kd', 'dkd', 'gdkd-k=3-divergence=both', 'gdkd3', 'stochastic_gdkd', 'binary_kl'
each_kind = pytest.mark.parametrize('case', [case_of(kind) for kind in KINDS], ids=KINDS)


@each_case
def test_as_the_plain_form_in_float64(case, triton_kernels):  # noqa: F811
    compare(case, *moved(*problem(7, (2, 17))), upstream=-1.7)
    assert len(triton_kernels) == 1  # float64 is the plain form's


@pytest.mark.parametrize('num_classes,shape', [(2, (1, 1, 1)), (19, (1, 2, 333)), (33, (1, 17)), (171, (1, 40))])
def test_sizes(num_classes, shape):
    compare(case_of('dkd'), *moved(*problem(num_classes, shape)))
    if num_classes > 2:
        compare(case_of('gdkd-k=3-divergence=both'), *moved(*problem(num_classes, shape)), k=num_classes // 2)


@pytest.mark.parametrize('function', ['kd', 'stochastic_gdkd', 'binary_kl', 'binary_kl_norm'])
def test_two_classes(function):
    compare(case_of(function), *moved(*problem(2, (1, 3, 17))))


def test_one_class():
    student, teacher, target, _ = moved(*problem(2, (1, 3, 17)))
    compare(case_of('binary_kl'), student[:, :1], teacher[:, :1], target.clamp(max=0), None)


@each_kind
def test_every_element_is_written(case, poisoned):  # noqa: F811
    compare(case, *moved(*problem(19, (2, 17))))


@each_kind
def test_what_does_not_count_may_hold_anything(case):
    student, teacher, target, weight = moved(*problem(7, (1, 4, 9)))
    settings = settings_for(case, 7)
    clean = by_operator(case, student, teacher, target, weight, **settings)
    out = ((target == 255) | (weight == 0)).unsqueeze(1)
    dirty = by_operator(case, student.masked_fill(out, torch.nan), teacher.masked_fill(out, torch.inf), target, weight,
                        **settings)
    assert_close(dirty, clean, rtol=0, atol=0)
    assert not dirty[1].masked_select(out).any()


def test_nothing_that_counts(poisoned):  # noqa: F811
    student, teacher, target, _ = moved(*problem(7, (1, 4, 9)))
    for labels, weight in ((torch.full_like(target, 255), None), (None, torch.zeros_like(target).float())):
        value, gradient = by_operator(case_of('gdkd-k=3'), student, teacher, labels, weight)
        assert value == 0 and not gradient.any()


@pytest.mark.parametrize('poison', ['student', 'teacher'])
@each_kind
def test_nan_is_not_swallowed(case, poison):
    student, teacher, target, _ = problem(7, (2, 9))
    target[0, 0] = 2
    dict(student=student, teacher=teacher)[poison][0, 4, 0] = torch.nan
    value, gradient = by_operator(case, *moved(student, teacher, target), **settings_for(case, 7))
    assert value.isnan()
    assert gradient[0, :, 0].isnan().any() and gradient[1].isfinite().all()


@pytest.mark.parametrize('lead', [(5., 5., 1, 1e4), (110., 110., 0), (110., 110., 1), (0., 1000., 0)])
@each_kind
def test_confident_logits(case, lead):
    """As far as float32 goes: the formula in float64 of the same numbers."""
    student, teacher, target = moved(*_leading(lead))
    settings = dict(case.settings, temperature=1.)
    value, gradient = by_operator(case, student, teacher, target, **settings)
    expected = by_operator(case, student.double(), teacher.double(), target, **settings)
    assert value.isfinite() and gradient.isfinite().all()
    assert_close(value.double(), expected[0], rtol=1e-5, atol=1e-30)
    assert (gradient - expected[1]).abs().max() <= 1e-5 * expected[1].abs().max() + 1e-30


@pytest.mark.parametrize('strategy', ['best', 'worst'])
@pytest.mark.parametrize('k', [1, 3, 6])
def test_equal_logits_rank_in_the_order_of_the_classes(strategy, k):
    student, _, target, _ = problem(7, (1, 50))
    teacher = torch.randint(3, student.shape, generator=torch.Generator().manual_seed(1)).float()
    compare(case_of('gdkd'), *moved(student, teacher, target, None), k=k, strategy=strategy)


@pytest.mark.parametrize('ratio,k_max,scale,temperature', [(1.1, 3, .3, 1.), (1.5, 6, 3., 4.), (3., 4, 10., 1.),
                                                           (2., 12, 300., 1.)])
def test_k_of_each_position(ratio, k_max, scale, temperature):
    student, teacher, target, _ = moved(*problem(13, (1, 100), 1, scale))
    compare(case_of('gdkd')._replace(settings={}), student, teacher, target, None, k=5, ratio=ratio, k_max=k_max,
            temperature=temperature)


# A GPU rounds to bfloat16; the interpreter cuts off, which takes a digit more.
@pytest.mark.parametrize('dtype,digits', [(torch.bfloat16, 8 if DEVICE == 'cuda' else 7), (torch.float16, 11)],
                         ids=['bfloat16', 'float16'])
def test_half_precision(dtype, digits):
    """Arithmetic in float32: the gradient is that of the rounded logits in float64, rounded once to the type."""
    student, teacher, target, weight = moved(*problem(19, (2, 40)))
    student, teacher = student.to(dtype), teacher.to(dtype)
    for function in (dkd_loss, gdkd_loss):
        case = case_of('dkd')._replace(function=function)
        value, gradient = by_operator(case, student, teacher, target, weight, upstream=4096.)
        expected = by_operator(case, student.double(), teacher.double(), target, weight, upstream=4096.)
        assert gradient.dtype == dtype and value.dtype == torch.float32
        assert_close(value.double(), expected[0], rtol=2e-6, atol=0)
        largest = expected[1].abs().max().item()
        assert_close(gradient.double(), expected[1], rtol=1.01 * 2.**-digits, atol=1e-5 * largest)


def test_a_gradient_below_float16_is_scaled_before_it_is_rounded():
    student, teacher, target, _ = moved(*problem(7, (1, 60)))
    student, teacher = (.01 * student).half(), (.01 * teacher).half()
    weight = torch.full(target.shape, 1e-5, device=DEVICE)
    _, gradient = by_operator(case_of('kd'), student, teacher, target, weight, upstream=65536.)
    _, expected = by_operator(case_of('kd'), student.double(), teacher.double(), target, weight, upstream=65536.)
    assert_close(gradient.double(), expected, rtol=2e-3, atol=1e-7)


def test_types_may_differ():
    student, teacher, target, _ = moved(*problem(7, (1, 40)))
    got = by_operator(case_of('dkd'), student, teacher.bfloat16(), target)  # its logits are numbers of bfloat16
    assert_close(got, by_operator(case_of('dkd'), student, teacher, target), rtol=0, atol=0)


def test_layouts_of_memory():
    student, teacher, target, _ = moved(*problem(19, (2, 5, 8)))
    expected = by_operator(case_of('dkd'), student, teacher, target)
    student, teacher = student.mT.contiguous().mT, teacher.contiguous(memory_format=torch.channels_last)
    assert_close(by_operator(case_of('dkd'), student, teacher, target), expected, rtol=1e-6, atol=1e-9)
    rows = [logits.permute(0, 2, 3, 1).reshape(-1, 19) for logits in (student, teacher)]
    value, gradient = by_operator(case_of('dkd'), *rows, target.flatten())
    assert_close(value, expected[0], rtol=1e-6, atol=0)
    assert_close(gradient, expected[1].permute(0, 2, 3, 1).reshape(-1, 19), rtol=1e-6, atol=1e-9)


def test_two_runs_give_the_same_bits():
    student, teacher, target, weight = moved(*problem(19, (2, 5, 33)))
    first, second = (by_operator(case_of('gdkd3'), student, teacher, target, weight) for _ in range(2))
    assert_close(first, second, rtol=0, atol=0)


def test_the_draw_is_that_of_the_plain_form(monkeypatch):
    student, teacher, target, _ = moved(*problem(19, (2, 33)))
    values = []
    for choice in ('triton', 'naive'):
        monkeypatch.setenv('MMSEG_KD_KERNELS', choice)
        torch.manual_seed(7)
        values.append(by_operator(case_of('stochastic_gdkd'), student, teacher, target, keep=.4))
    assert_close(values[0], values[1], rtol=1e-5, atol=1e-5)


def test_a_second_backward_pass_and_a_second_derivative():
    student, teacher, target, weight = moved(*problem(7, (2, 30)))
    student.requires_grad_()
    loss = dkd_loss(student, teacher, target)
    first, *others = (torch.autograd.grad(loss, student, factor * torch.ones_like(loss), retain_graph=True)[0] / factor
                      for factor in (1., 3., -2.))
    for other in others:
        assert_close(other, first)
    got = second_derivative(dkd_loss, student, teacher, target, weight)
    expected = second_derivative(dkd_loss, student.double(), teacher.double(), target, weight)
    assert_close(got.double(), expected, rtol=1e-4, atol=1e-6)


def test_plain_where_it_must_be(triton_kernels, monkeypatch):  # noqa: F811
    student, teacher, target, weight = moved(*problem(7, (2, 30)))
    assert kd_loss(student, teacher, reduction='none').shape == target.shape
    kd_loss(student, teacher, target, weight.requires_grad_()).backward()
    torch.vmap(lambda z, v: kd_loss(z[None], v[None]))(student, teacher)
    kd_loss(student, teacher, standardize='whole')
    kd_loss(student.double(), teacher)
    many = torch.zeros(1, 257, 2, device=DEVICE)
    binary_kl_loss(many, many)
    with monkeypatch.context() as inside_torch_compile:
        inside_torch_compile.setattr(torch.compiler, 'is_compiling', lambda: True)
        kd_loss(student, teacher)
    assert not triton_kernels


def test_no_graph_and_no_gradient_where_none_is_asked_for(triton_kernels, monkeypatch):  # noqa: F811
    student, teacher, _, _ = moved(*problem(7, (2, 30)))
    monkeypatch.setattr(torch, 'empty_like', None)  # what a gradient would be written to
    value = gdkd3_loss(student, teacher)
    with torch.no_grad():
        again = gdkd3_loss(student.requires_grad_(), teacher)
    assert not value.requires_grad and not again.requires_grad and value == again
    assert len(triton_kernels) == 2


def test_under_autocast():
    student, teacher, target, _ = moved(*problem(7, (2, 30)))
    expected = by_operator(case_of('dkd'), student, teacher, target)
    with torch.autocast(DEVICE, torch.bfloat16):
        got = by_operator(case_of('dkd'), student, teacher, target)
    assert_close(got, expected, rtol=0, atol=0)


@pytest.mark.skipif(DEVICE != 'cpu', reason='about tensors on the CPU')
def test_without_the_interpreter_tensors_on_the_cpu_are_refused(monkeypatch):
    monkeypatch.delenv('TRITON_INTERPRET')
    with pytest.raises(ValueError, match="MMSEG_KD_KERNELS='triton' takes tensors on the CPU through Triton's interp"):
        kd_loss(torch.zeros(1, 3), torch.zeros(1, 3))


def test_where_triton_does_not_work_the_plain_forms_do_and_say_so(monkeypatch, triton_kernels):  # noqa: F811
    from mmseg_kd.functional.gpu import operators
    student, teacher, _, _ = moved(*problem(7, (2, 30)))
    with monkeypatch.context() as broken:
        def fail(*args):
            raise RuntimeError('Failed to find C compiler')

        broken.setattr(operators, 'scaled', fail)
        operators.runs_on.cache_clear()
        with pytest.warns(UserWarning, match='Triton does not work here .*Failed to find C compiler'):
            value = kd_loss(student, teacher)
    operators.runs_on.cache_clear()
    assert not triton_kernels
    assert_close(value, kd_loss(student, teacher))
    assert evaluate.gpu_operators() is not None and len(triton_kernels) == 1


@pytest.mark.skipif(DEVICE != 'cuda', reason='memory is measured on a GPU')
def test_memory_on_a_gpu():
    student, teacher = (torch.randn(2, 19, 256, 512, device=DEVICE) for _ in range(2))
    student.requires_grad_()
    dkd_target = torch.randint(19, (2, 256, 512), device=DEVICE)
    dkd_loss(student, teacher, dkd_target).backward()
    student.grad = None
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    dkd_loss(student, teacher, dkd_target).backward()
    assert torch.cuda.max_memory_allocated() - before <= 1.15 * student.numel() * 4


@pytest.mark.parametrize('size', [1, 1024, 3000, 5 * 1024 + 1])
def test_a_factor_reaches_every_element_once(size, monkeypatch):
    """Also where the programs take several turns each."""
    operators = evaluate.gpu_operators()
    monkeypatch.setattr(operators, '_MOST_PROGRAMS', 2)
    values = torch.arange(1., size + 1, device=DEVICE)
    beyond = torch.full((size + 2048, ), 5., device=DEVICE)
    beyond[:size] = values
    for factor in (1., -2.5):
        got = operators.scaled(beyond[:size].clone(), torch.tensor(factor, device=DEVICE))
        assert_close(got, factor * values, rtol=0, atol=0)
    operators.scaled(beyond[:size], torch.tensor(3., device=DEVICE))
    assert (beyond[size:] == 5).all()

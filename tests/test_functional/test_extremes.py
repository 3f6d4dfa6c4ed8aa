"""Finite and right where the formulas of the papers' code overflow, underflow or divide by zero."""
import oracles
import pytest
import torch
from loss_cases import FAMILY, NUM_CLASSES, each_loss, each_variant, labels, logits, maps, value_and_gradient
from torch.testing import assert_close

from mmseg_kd import functional
from mmseg_kd.functional.binary import log_cosh

pytestmark = pytest.mark.filterwarnings('ignore:.*by construction:UserWarning')

LEADS = {
    'all logits at 10000': (5., 5., 1, 1e4),
    'both 20, other classes': (20., 20., 1),
    'both 110, same class': (110., 110., 0),
    'both 1000, other classes': (1000., 1000., 1),
    'student 1000, teacher flat': (1000., 0., 0),
    'student flat, teacher 1000': (0., 1000., 0),
    'both 10000, other classes': (1e4, 1e4, 1),
    'both -10000, other classes': (-1e4, -1e4, 1),
}


def _leading(lead, dtype=torch.float32):
    """Logits near 0 with one class ahead; the target is the student's, the teacher's, or neither's leader."""
    student_lead, teacher_lead, apart, *level = LEADS[lead] if isinstance(lead, str) else lead
    student, teacher = (logits(6, NUM_CLASSES, seed=seed, scale=1., dtype=dtype) for seed in (0, 1))
    student[:, 2] += student_lead
    teacher[:, 2 + apart] += teacher_lead
    student, teacher = (x + sum(level) for x in (student, teacher))
    return student, teacher, torch.tensor([2, 2 + apart, 5, 2, 0, 2 + apart])


def _image(case, *rows):
    """For CWD, whose leaders are positions, one image of the rows; for the others the rows themselves."""
    return [x.T.unsqueeze(0) if x.dim() == 2 else x.unsqueeze(0) for x in rows] if case.name.startswith('cwd') else rows


@pytest.mark.parametrize('lead', LEADS)
@each_loss
def test_float32_is_finite_and_as_float64(case, lead):
    student, teacher, target = _image(case, *_leading(lead))
    for settings in [{}] if case.name == 'logit_mse' else [{}, dict(temperature=1.)]:
        value, gradient = value_and_gradient(case, student, teacher, target, **settings)
        assert value.isfinite() and gradient.isfinite().all()
        if case.name == 'stochastic_gdkd':
            return  # its draw is another one in float64
        expected, expected_gradient = value_and_gradient(case, student.double(), teacher.double(), target, **settings)
        assert_close(value.double(), expected, rtol=1e-5, atol=1e-30)
        assert (gradient - expected_gradient).abs().max() <= 1e-5 * expected_gradient.abs().max() + 1e-30


HARDEST = [
    pytest.param(case, lead, id=f'{case.name}-{lead}')
    for case in FAMILY if case.oracle and case.name not in ('cwd', 'dist')
    for lead in [(20., 21., 0), (60., 1000., 0), (1000., 1000., 1), (1e4, 1e4, 1)]
    if case.name != 'dgkd' or lead == (60., 1000., 0)]  # whose oracle differentiates twice


@pytest.mark.parametrize('dtype, tolerance', [(torch.float64, 1e-10), (torch.float32, 1e-5)], ids=['64', '32'])
@pytest.mark.parametrize('case, lead', HARDEST)
def test_hardest_against_60_digits(case, lead, dtype, tolerance):
    student, teacher, target = (x[:2] for x in _leading(lead, dtype))
    value, gradient = value_and_gradient(case, student, teacher, target)
    expected, expected_gradient = oracles.value_and_gradient(case.oracle, student, teacher, target, **case.settings)
    expected_gradient = torch.tensor(expected_gradient, dtype=torch.float64)
    assert abs(value.item() - expected) <= tolerance * abs(expected)
    assert (gradient.double() - expected_gradient).abs().max() <= tolerance * expected_gradient.abs().max()


def test_confident_and_agreeing_keeps_its_digits():
    """The target leads by 25 in both: all there is to learn lies in 1e-11 of probability mass, which 1 - p loses."""
    student = torch.tensor([[25., 0., 0.5]], requires_grad=True)
    teacher = torch.tensor([[26., 0.5, 0.]])
    target = torch.tensor([0])
    for function, oracle in ((functional.kd_loss, oracles.kd), (functional.dkd_loss, oracles.dkd)):
        settings = dict(alpha=1., beta=0.) if oracle is oracles.dkd else {}
        value = function(student, teacher, target, temperature=1., **settings)
        gradient, = torch.autograd.grad(value, student)
        expected, expected_gradient = oracles.value_and_gradient(
            oracle, student.detach(), teacher, target, temperature=1., **settings)
        assert 0 < expected < 1e-10
        assert value.item() == pytest.approx(expected, rel=1e-5)
        assert_close(gradient.double(), torch.tensor(expected_gradient, dtype=torch.float64), rtol=1e-5, atol=1e-17)


@pytest.mark.parametrize('temperature', [1., 4.])
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@each_loss
def test_half_precision_at_a_lead_of_100(case, dtype, temperature):
    student, teacher, target = _image(case, *_leading((100., 100., 1), dtype))
    settings = {} if case.name == 'logit_mse' else dict(temperature=temperature)
    value, gradient = value_and_gradient(case, student, teacher, target, **settings)
    assert value.dtype == torch.float32 and gradient.dtype == dtype
    assert value.isfinite() and gradient.isfinite().all() and gradient.abs().max() > 0
    expected, expected_gradient = value_and_gradient(case, student.float(), teacher.float(), target, **settings)
    assert_close(value, expected)
    assert_close(gradient, expected_gradient.to(dtype))


@pytest.mark.parametrize('student_dtype, teacher_dtype', [
    (torch.float16, torch.float32), (torch.float32, torch.bfloat16), (torch.float32, torch.float64)])
@each_loss
def test_mixed_precisions_meet_in_the_better(case, student_dtype, teacher_dtype):
    student, teacher, target = maps(case)
    student, teacher = student.to(student_dtype), teacher.to(teacher_dtype)
    better = torch.float64 if torch.float64 in (student_dtype, teacher_dtype) else torch.float32
    value = case.call(student, teacher, target)
    assert value.dtype == better
    if case.name != 'stochastic_gdkd':
        assert_close(value, case.call(student.to(better), teacher.to(better), target))


@each_loss
def test_autocast_changes_nothing(case):
    student, teacher, target = maps(case, dtype=torch.float32)
    expected = case.call(student, teacher, target)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        value = case.call(student, teacher, target)
    assert value.dtype == torch.float32
    assert value == expected


@each_variant
def test_no_nan_even_on_the_way(case):
    """As torch's anomaly detection sees it: masked infinities must not meet in the backward pass."""
    student, teacher, target = _image(case, *_leading('both 110, same class'))
    student = student.clone().requires_grad_()
    with pytest.warns(UserWarning, match='Anomaly Detection'), torch.autograd.detect_anomaly(check_nan=True):
        case.call(student, teacher, target).backward()


@each_loss
def test_all_positions_ignored_is_zero_with_a_graph(case):
    student, teacher, _ = maps(case)
    value, gradient = value_and_gradient(case, student, teacher, torch.full((2, 2, 3), 255))
    assert value == 0 and (gradient == 0).all()
    value, gradient = value_and_gradient(case, student, teacher, labels(2, 2, 3), torch.zeros(2, 2, 3))
    assert value == 0 and (gradient == 0).all()


@pytest.mark.parametrize('kernels', ['auto', 'naive'])
@pytest.mark.parametrize('junk', [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize('name', [*(case.name for case in FAMILY), 'feature_mse', 'attention_transfer',
                                  'hierarchical_context'])
def test_what_does_not_count_reaches_no_gradient(name, junk, kernels, monkeypatch):
    """Neither through the student nor the teacher nor the weight; the other positions learn what they learn without."""
    monkeypatch.setenv('MMSEG_KD_KERNELS', kernels)
    settings = next((case.settings for case in FAMILY if case.name == name), {})
    function = getattr(functional, f'{name.split("-")[0]}_loss')
    student, teacher, target = maps(None, ignored=[1, 9], dtype=torch.float32)
    weight = torch.rand(target.shape, generator=torch.Generator().manual_seed(0)) + .5
    weight[0, 1, 1] = 0
    nothing = ((target == 255) | (weight == 0)).unsqueeze(1)

    def learned(student, teacher, weight, **changes):
        leaf = student.clone().requires_grad_()
        torch.manual_seed(0)
        loss = function(leaf, teacher, target, weight, **settings, **changes)
        loss.sum().backward()
        return loss.detach(), leaf.grad

    for changes in (dict(reduction='mean'), dict(reduction='none')):
        clean = learned(student, teacher, weight, **changes)
        assert all(each.isfinite().all() and each.any() for each in clean)
        dirty = learned(student.masked_fill(nothing, junk), teacher.masked_fill(nothing, junk),
                        weight.masked_fill(target == 255, junk), **changes)
        assert_close(dirty, clean, rtol=0, atol=0)


@pytest.mark.parametrize('kernels', ['auto', 'naive'])
@each_loss
def test_labels_that_are_not_read_may_be_any(case, kernels, monkeypatch):
    monkeypatch.setenv('MMSEG_KD_KERNELS', kernels)
    student, teacher, target = maps(case, ignored=[2])
    if case.needs_target:
        with pytest.raises(ValueError, match='`target` must hold classes 0 .. 6 or ignore_index = None, got .255.'):
            case.call(student, teacher, target, ignore_index=None)
    else:
        assert_close(case.call(student, teacher, target, ignore_index=None), case.call(student, teacher))
    if case.name == 'gdkd':
        with pytest.raises(ValueError, match='`target` must hold classes 0 .. 6 or ignore_index = None, got .255.'):
            case.call(student, teacher, target, ignore_index=None, k=(1, 2, 3, 4, 5, 6, 1))


@pytest.mark.parametrize('shape', [(0, NUM_CLASSES), (0, NUM_CLASSES, 2, 3), (2, NUM_CLASSES, 0, 3)], ids=str)
@each_loss
def test_no_positions_is_zero_with_a_graph(case, shape):
    if case.name == 'cwd' and len(shape) == 2:
        pytest.skip('needs a dimension of positions')
    target = torch.zeros(shape[0], *shape[2:], dtype=torch.int64)
    value, gradient = value_and_gradient(case, torch.zeros(shape), torch.zeros(shape), target)
    assert value == 0 and gradient.shape == shape
    assert case.call(torch.zeros(shape), torch.zeros(shape), target, reduction='none').shape == target.shape


@each_loss
def test_memory_layout_does_not_matter(case):
    student, teacher, target = maps(case, ignored=[2])
    value, gradient = value_and_gradient(case, student, teacher, target)
    last = [x.contiguous(memory_format=torch.channels_last) for x in (student, teacher)]
    strided = [x.repeat_interleave(2, -1)[..., ::2] for x in (student, teacher, target)]
    transposed = [x.transpose(-1, -2).contiguous().transpose(-1, -2) for x in (student, teacher, target)]
    for inputs in ((*last, target), strided, transposed):
        assert not inputs[0].is_contiguous()
        if case.name == 'stochastic_gdkd':
            inputs = [*inputs]
            case = case._replace(settings=dict(keep=1.))
            value, gradient = value_and_gradient(case, student, teacher, target)
        other, other_gradient = value_and_gradient(case, *inputs)
        assert_close(other, value)
        assert_close(other_gradient, gradient)


@each_loss
def test_two_classes(case):
    student, teacher = (logits(4, 2, 3, seed=seed) for seed in (0, 1))
    settings = dict(k=1) if 'gdkd' in case.name and case.name.startswith('g') else {}
    value, gradient = value_and_gradient(case, student, teacher, labels(4, 3, num_classes=2), **settings)
    assert value.isfinite() and gradient.isfinite().all() and gradient.abs().max() > 0
    if settings:
        assert_close(value, value_and_gradient(case, student, teacher, w1=0., w2=0., **settings)[0])


def test_a_target_to_which_the_teacher_gives_nothing():
    """Its probability underflows even in float64; all the mass lies in the rest."""
    student, teacher = logits(1, 4, scale=1.), torch.tensor([[-1e4, 0., 1., 2.]], dtype=torch.float64)
    target = torch.tensor([0])
    for function, oracle in ((functional.dkd_loss, oracles.dkd), (functional.dgkd_loss, None)):
        logit = student.clone().requires_grad_()
        value = function(logit, teacher, target)
        gradient, = torch.autograd.grad(value, logit)
        assert gradient.isfinite().all()
        if oracle:
            expected, expected_gradient = oracles.value_and_gradient(oracle, student, teacher, target)
            assert value.item() == pytest.approx(expected, rel=1e-10)
            assert_close(gradient, torch.tensor(expected_gradient, dtype=torch.float64))


@pytest.mark.parametrize('temperature', [1e-3, 1e3])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16])
@each_loss
def test_the_bounds_of_the_temperature(case, dtype, temperature):
    if case.name == 'logit_mse':
        pytest.skip('has no temperature')
    student, teacher, target = maps(case, dtype=dtype)
    value, gradient = value_and_gradient(case, student, teacher, target, temperature=temperature)
    assert value.isfinite() and gradient.isfinite().all()
    if case.name not in ('stochastic_gdkd', 'dist') and dtype == torch.float32:
        expected = case.call(student.double(), teacher.double(), target, temperature=temperature)
        assert_close(value.double(), expected, rtol=1e-4, atol=0)
    for beyond in (1e20, 1e6, 1e-9):
        with pytest.raises(ValueError, match='`temperature` must be a positive number from 0.001 to 1000, got 1'):
            case.call(student, teacher, target, temperature=beyond)


@pytest.mark.parametrize('distance', [1e-6, 1e-4, 1e-2, .3, .499, .501, .7, 2.])
def test_binary_kl_s_operator_keeps_its_digits_near_the_teacher(distance):
    for level in (-20., -5., -.3, 0., .01, .7, 8., 30.):
        teacher = torch.tensor([[level]])
        for student in (teacher + distance, teacher - distance):
            expected = oracles.binary_kl([[oracles.mpf(student.item())]], [[oracles.mpf(teacher.item())]], 0, 1.)
            got = functional.binary_kl_loss(student, teacher, temperature=1.).item()
            assert got == pytest.approx(float(expected), rel=3e-6)


def test_log_cosh_near_zero_and_far():
    x = torch.tensor([0., 1e-12, 1e-4, 0.5, 1., 1.5, 34., 1e4], requires_grad=True)
    value = log_cosh(x)
    gradient, = torch.autograd.grad(value.sum(), x)
    expected = [float(oracles.mp.log(oracles.mp.cosh(oracles.mpf(entry)))) for entry in x.tolist()]
    assert value.tolist() == pytest.approx(expected, rel=1e-6)
    assert gradient.tolist() == pytest.approx([float(oracles.mp.tanh(oracles.mpf(entry))) for entry in x.tolist()])

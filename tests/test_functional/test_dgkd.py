"""The coupling term of DGKD: closed forms, independence of the batch, cap, diagnostics."""
import pytest
import torch
from loss_cases import NUM_CLASSES, labels, logits, maps
from torch.testing import assert_close

from mmseg_kd.functional import dgkd_diagnostics, dgkd_loss, dkd_loss
from mmseg_kd.functional.coupling import CouplingSettings, part_gradients
from mmseg_kd.functional.dgkd import dgkd_map
from mmseg_kd.losses import DGKDLoss

ALL = dict(alpha=1., beta=1., temperature=4.)


def _double_backward(student, teacher, target, temperature=4.):
    """Both gradients by autograd, of formulas written out anew; they can be differentiated again."""
    q, p = (student / temperature).softmax(1), (teacher / temperature).softmax(1)
    hot = torch.nn.functional.one_hot(target, student.shape[1]).bool()
    qt, pt = q[hot], p[hot]
    tckd = pt * (pt / qt).log() + (1 - pt) * ((1 - pt) / (1 - qt)).log()
    rows = (len(student), -1)
    inner = [(x / temperature)[~hot].view(rows).log_softmax(1) for x in (teacher, student)]
    nckd = (inner[0].exp() * (inner[0] - inner[1])).sum(1)
    return [temperature**2 * torch.autograd.grad(part.sum(), student, create_graph=True)[0] for part in (tckd, nckd)]


def _inputs(n=5):
    return logits(n, NUM_CLASSES, seed=0).requires_grad_(), logits(n, NUM_CLASSES, seed=1), labels(n)


def test_closed_forms_are_the_double_backward():
    student, teacher, target = _inputs()
    expected = _double_backward(student, teacher, target)
    gradients = part_gradients(student, teacher, target, 4.)
    assert_close(gradients.target, expected[0])
    assert_close(gradients.non_target, expected[1])
    for m, m_expected in [((gradients.target - gradients.non_target), (expected[0] - expected[1]))]:
        closed, = torch.autograd.grad(m.square().sum(), student, retain_graph=True)
        double, = torch.autograd.grad(m_expected.square().sum(), student)
        assert_close(closed, double)
        assert_close(2 * gradients.direction, double)  # what the cap measures


def test_gradients_of_a_confident_target_keep_their_digits():
    """Two target probabilities near 1 differ by 1e-11, which their difference in float32 does not show."""
    student, teacher = torch.tensor([[25., 0., 0.5]]), torch.tensor([[26., 0.5, 0.]])
    for target in (torch.tensor([0]), torch.tensor([1])):
        single = part_gradients(student, teacher, target, 1.).target
        double = part_gradients(student.double(), teacher.double(), target, 1.).target
        assert 0 < double.abs().max() < 1e-10
        assert_close(single.double(), double, rtol=1e-5, atol=0)


def test_gradient_of_the_loss_is_the_double_backward():
    student, teacher, target = _inputs()
    value = dgkd_loss(student, teacher, target)
    gradient, = torch.autograd.grad(value, student)
    first, second = _double_backward(student, teacher, target)
    m = (first - second).square().mean()
    expected_value = dkd_loss(student, teacher, target, alpha=1., beta=1.) - 6 * m / m.detach()
    expected, = torch.autograd.grad(expected_value, student)
    assert_close(value, expected_value)
    assert_close(gradient, expected)


def _as_published(student, teacher, target, alpha=1., beta=1., epsilon=6., temperature=4.):
    """The code's formula: gradients of the batch means by autograd, their mean square over itself, detached, + 1e-8."""
    parts = _double_backward(student, teacher, target, temperature)
    square = torch.nn.functional.mse_loss(*(part / len(student) for part in parts))
    dkd = dkd_loss(student, teacher, target, alpha=alpha, beta=beta, temperature=temperature, ignore_index=None)
    return dkd - epsilon * square / (square.detach() + 1e-8)


@pytest.mark.parametrize('n, classes', [(64, 100), (64, 1000), (512, 1000)])
def test_softened_it_is_the_published_term_at_any_size_of_batch(n, classes):
    student, teacher = logits(n, classes, seed=0, scale=2.).requires_grad_(), logits(n, classes, seed=1, scale=2.)
    target = labels(n, num_classes=classes)
    settings = dict(beta=8., epsilon=6., temperature=4.)
    published = _as_published(student, teacher, target, **settings)
    settings['ignore_index'] = None  # 255 is a class here
    value = dgkd_loss(student, teacher, target, softening=1e-8, **settings)
    assert_close(value, published, rtol=1e-12, atol=0)
    gradient, expected = (torch.autograd.grad(each, student)[0] for each in (value, published))
    assert_close(gradient, expected, rtol=1e-9, atol=1e-15)

    # How much of the term is left, which the diagnostics tell: little where all the batch's gradients are small.
    dkd, = torch.autograd.grad(dkd_loss(student, teacher, target, beta=8., ignore_index=None), student)
    told = [dgkd_diagnostics(student.detach(), teacher, target, softening=softening, **settings)['coupling_to_dkd']
            for softening in (1e-8, 0.)]
    assert_close(told[0], (expected - dkd).norm() / dkd.norm())
    share = told[0] / told[1]
    assert share > 0.9 if n * classes == 6400 else share < 0.6 if n == 64 else share < 0.05


def test_absolute_it_is_the_form_that_the_text_prints():
    student, teacher, target = _inputs()
    value = dgkd_loss(student, teacher, target, coupling='absolute', epsilon=0.5)
    first, second = _double_backward(student, teacher, target)
    expected = dkd_loss(student, teacher, target, beta=1.) - 0.5 * (first - second).norm(dim=1).square().mean()
    assert_close(value, expected)
    assert_close(*(torch.autograd.grad(each, student)[0] for each in (value, expected)))
    figures = dgkd_diagnostics(student.detach(), teacher, target, coupling='absolute', epsilon=0.5)
    whole, dkd = (torch.autograd.grad(dgkd_loss(student, teacher, target, coupling='absolute', epsilon=epsilon),
                                      student)[0] for epsilon in (0.5, 0.))
    assert_close(figures['coupling_to_dkd'], (whole - dkd).norm() / dkd.norm())
    capped, = torch.autograd.grad(
        dgkd_loss(student, teacher, target, coupling='absolute', epsilon=50., cap=0.5), student)
    assert_close((capped - dkd).norm() / dkd.norm(), torch.tensor(0.5, dtype=torch.float64))


def test_softening_of_a_term_that_divides_by_nothing_is_refused():
    student, teacher, target = _inputs()
    for call in (lambda **kw: DGKDLoss(**kw), lambda **kw: dgkd_loss(student, teacher, target, **kw),
                 lambda **kw: dgkd_diagnostics(student, teacher, target, **kw)):
        with pytest.raises(ValueError, match="`softening` must be left out where `coupling` is 'absolute'"):
            call(coupling='absolute', softening=1e-8)
        with pytest.raises(ValueError, match='`softening` must be a finite number of at least 0, got -1'):
            call(softening=-1)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_the_mean_of_the_term_is_minus_epsilon_at_any_number_of_positions(dtype):
    for positions in (1, 64, 16384):
        student, teacher, target = (logits(1, NUM_CLASSES, positions, dtype=dtype),
                                    logits(1, NUM_CLASSES, positions, seed=1, dtype=dtype), labels(1, positions))
        target[0, 1:positions // 2] = 255
        terms = dgkd_map(student, teacher, target, target != 255, CouplingSettings(epsilon=6., **ALL))
        assert terms.coupling[target != 255].mean().item() == pytest.approx(-6., rel=1e-5)
        assert (terms.coupling[target == 255] == 0).all()
        if dtype == torch.float64:
            assert_close(dgkd_loss(student, teacher, target), dkd_loss(student, teacher, target, beta=1.) - 6.)


def _coupling_gradient(distance, cap=None, epsilon=6.):
    teacher = logits(8, NUM_CLASSES, seed=1)
    student = (teacher + distance * logits(8, NUM_CLASSES, seed=0, scale=1.)).requires_grad_()
    target = labels(8)
    dkd, = torch.autograd.grad(dkd_loss(student, teacher, target, beta=1.), student)
    whole, = torch.autograd.grad(dgkd_loss(student, teacher, target, cap=cap, epsilon=epsilon), student)
    figures = dgkd_diagnostics(student.detach(), teacher, target, epsilon=epsilon)
    return (whole - dkd).norm() / dkd.norm(), figures['coupling_to_dkd']


def test_the_term_is_unbounded_near_the_teacher_and_the_diagnostics_show_it():
    ratios = []
    for distance in (1., 0.1, 0.01):
        ratio, shown = _coupling_gradient(distance)
        assert_close(ratio, shown)
        ratios.append(ratio)
    assert ratios[0] < ratios[1] < ratios[2] and ratios[2] > 100


@pytest.mark.parametrize('epsilon', [6., -6.])
def test_the_cap_bounds_it(epsilon):
    for distance in (0.1, 1e-3):
        ratio, uncapped = _coupling_gradient(distance, cap=0.5, epsilon=epsilon)
        assert uncapped > 0.5
        assert ratio.item() == pytest.approx(0.5, rel=1e-6)
    ratio, _ = _coupling_gradient(1., cap=1e6)
    assert_close(ratio, _coupling_gradient(1.)[0])  # a cap that is not reached changes nothing


def test_close_to_the_teacher_value_and_gradient_stay_finite():
    teacher = logits(4, NUM_CLASSES, seed=1, dtype=torch.float32)
    for distance in (1e-3, 1e-6, 1e-7, 0.):
        student = (teacher * (1 + distance)).requires_grad_()
        for cap in (None, 1.):
            value = dgkd_loss(student, teacher, labels(4), cap=cap)
            gradient, = torch.autograd.grad(value, student)
            assert value.isfinite() and gradient.isfinite().all()


def test_diagnostics_in_explicit_loops():
    student, teacher, target = maps(None, ignored=[0, 5])
    figures = dgkd_diagnostics(student, teacher, target)
    rows = [(s, v, t) for s, v, t in zip(
        student.movedim(1, -1).reshape(-1, NUM_CLASSES), teacher.movedim(1, -1).reshape(-1, NUM_CLASSES),
        target.flatten(), strict=True) if t != 255]
    collected = dict(gradient_cosine=[], gradient_covariance=[], target_gradient_norm=[], non_target_gradient_norm=[],
                     target_logit_norm=[], non_target_logit_norm=[])
    pairs = []
    for s, v, t in rows:
        first, second = (g[0] for g in _double_backward(s[None].clone().requires_grad_(), v[None], t[None]))
        other = torch.cat([s[:t], s[t + 1:]])
        collected['gradient_cosine'].append(torch.cosine_similarity(first, second, dim=0))
        collected['gradient_covariance'].append(torch.cov(torch.stack([first, second]), correction=0)[0, 1])
        collected['target_gradient_norm'].append(first.norm())
        collected['non_target_gradient_norm'].append(second.norm())
        collected['target_logit_norm'].append(s[t].abs())
        collected['non_target_logit_norm'].append(other.norm())
        pairs.append(torch.stack([s[t], other.mean()]))
    expected = {name: torch.stack(values).mean().detach() for name, values in collected.items()}
    # The published code's: of the gradients of the batch, each without its mean over all entries, as (N, N) products.
    first, second = (torch.cat(each) for each in zip(*[
        [g.detach() for g in _double_backward(s[None].clone().requires_grad_(), v[None], t[None])] for s, v, t in rows],
        strict=True))
    first, second = first - first.mean(), second - second.mean()
    covariance, *own = ((a @ b.T).sum() for a, b in ((first, second), (first, first), (second, second)))
    expected['batch_covariance'] = covariance / (own[0] * own[1]).sqrt()
    expected['logit_covariance'] = torch.cov(torch.stack(pairs).T, correction=0)[0, 1]
    for name, value in expected.items():
        assert_close(figures[name], value, msg=name)
    assert set(figures) == set(expected) | {'coupling_to_dkd'}
    assert not any('loss' in name for name in figures)  # mmengine would add it to the objective


def test_diagnostics_are_linear_in_memory():
    """40,000 positions: a matrix of positions by positions would take 6.4 GB."""
    student, teacher = (logits(1, 3, 200, 200, seed=seed, dtype=torch.float32) for seed in (0, 1))
    figures = dgkd_diagnostics(student, teacher, labels(1, 200, 200, num_classes=3))
    assert all(value.dim() == 0 and value.isfinite() for value in figures.values())

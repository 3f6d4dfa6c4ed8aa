"""Each loss and its gradient against the formula of its paper."""
import oracles
import pytest
import torch
from loss_cases import FAMILY, NUM_CLASSES, VARIANTS, each_variant, labels, logits, value_and_gradient

from mmseg_kd.functional import stochastic_gdkd_loss
from mmseg_kd.functional.grouped import random_groups

pytestmark = pytest.mark.filterwarnings('ignore:.*by construction:UserWarning')

WITH_ORACLE = [case for case in VARIANTS if case.oracle]
POSITIONS = 4


def _inputs(case, dtype):
    """Logits of a few positions, (N, C)."""
    positions = 2 if case and case.name.startswith('dgkd') else POSITIONS  # its oracle differentiates twice
    student, teacher = (logits(positions, NUM_CLASSES, seed=seed, dtype=dtype) for seed in (0, 1))
    return student, teacher, labels(positions)


def _as_image(rows):
    return rows.T.unsqueeze(0)


@pytest.mark.parametrize('dtype, tolerance', [(torch.float64, 1e-10), (torch.float32, 1e-5)], ids=['64', '32'])
@pytest.mark.parametrize('case', WITH_ORACLE, ids=lambda case: case.name)
def test_value_and_gradient_of_the_paper(case, dtype, tolerance):
    student, teacher, target = _inputs(case, dtype)
    expected, expected_gradient = oracles.value_and_gradient(case.oracle, student, teacher, target, **case.settings)
    if case.name.startswith('cwd'):
        value, gradient = value_and_gradient(case, _as_image(student), _as_image(teacher), target.unsqueeze(0))
        gradient = gradient[0].T
    else:
        value, gradient = value_and_gradient(case, student, teacher, target)
    expected_gradient = torch.tensor(expected_gradient, dtype=torch.float64)
    assert value.dtype == dtype
    assert abs(value.item() - expected) <= tolerance * abs(expected)
    assert (gradient.double() - expected_gradient).abs().max() <= tolerance * expected_gradient.abs().max()


@pytest.mark.parametrize('case', [case for case in WITH_ORACLE if not case.name.startswith('cwd')],
                         ids=lambda case: case.name)
def test_a_map_is_its_positions(case):
    """(N, C, H, W) is the (N, C) loss of all pixels, value and gradient."""
    student, teacher = (logits(2, NUM_CLASSES, 2, 3, seed=seed) for seed in (0, 1))
    target = labels(2, 2, 3)
    value, gradient = value_and_gradient(case, student, teacher, target)
    rows = [x.movedim(1, -1).reshape(-1, NUM_CLASSES) for x in (student, teacher)]
    expected, expected_gradient = value_and_gradient(case, *rows, target.flatten())
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        gradient.movedim(1, -1).reshape(-1, NUM_CLASSES), expected_gradient, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize('divergence', ['forward', 'reverse', 'both'])
@pytest.mark.parametrize('standardize', [None, 'whole', 'group', 'rest'])
def test_stochastic_gdkd_is_the_grouped_formula_on_its_draw(divergence, standardize):
    student, teacher, target = _inputs(None, torch.float64)
    torch.manual_seed(5)
    groups = random_groups(student, target, 0.5).tolist()
    torch.manual_seed(5)
    student.requires_grad_()
    value = stochastic_gdkd_loss(
        student, teacher, target, keep=0.5, w0=0.7, w1=3., temperature=2., divergence=divergence,
        standardize=standardize)
    gradient, = torch.autograd.grad(value, student)

    def oracle(z, v, target):
        return oracles.mean([oracles.grouped(a, b, g, 0.7, [0, 0, 3.], 2., divergence, standardize)
                             for a, b, g in zip(z, v, groups, strict=True)])

    expected, expected_gradient = oracles.value_and_gradient(oracle, student.detach(), teacher, None, by_row=False)
    assert value.item() == pytest.approx(expected, rel=1e-10)
    torch.testing.assert_close(gradient, torch.tensor(expected_gradient, dtype=torch.float64), rtol=1e-10, atol=1e-12)


@each_variant
def test_reductions_agree(case):
    student, teacher = (logits(2, NUM_CLASSES, 2, 3, seed=seed) for seed in (0, 1))
    target, weight = labels(2, 2, 3, ignored=[0, 7]), torch.arange(12.).view(2, 2, 3)
    values = case.call(student, teacher, target, weight, reduction='none')
    assert values.shape == target.shape
    assert (values[target == 255] == 0).all() and (values[weight == 0] == 0).all()
    torch.testing.assert_close(values.sum(), case.call(student, teacher, target, weight, reduction='sum'))
    units = 2 if case.name.startswith('cwd') else 10  # images, else the positions neither ignored nor of weight 0
    torch.testing.assert_close(values.sum() / units, case.call(student, teacher, target, weight))


def test_the_family_is_complete():
    from mmseg_kd import losses
    # Those of features alone have tests of their own, test_feature_losses.py.
    of_features = {'AttentionTransferLoss', 'FeatureMSELoss', 'HierarchicalContextLoss'}
    assert {case.module.__name__ for case in FAMILY} | of_features | {'DistillationLoss'} == set(losses.__all__)

"""What must hold between the losses, and for each of them whatever its logits."""
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_cases import NUM_CLASSES, each_loss, each_variant, labels, logits, maps, value_and_gradient
from torch.testing import assert_close

from mmseg_kd.functional import (
    binary_kl_norm_loss,
    dkd_loss,
    gdkd3_loss,
    gdkd_loss,
    grouped_kl,
    kd_loss,
    stochastic_gdkd_loss,
)
from mmseg_kd.functional.grouped import GroupedLoss, TargetAndRest, by_rank, target_and_rest

pytestmark = pytest.mark.filterwarnings('ignore:.*by construction:UserWarning')

SOFTMAX = ('kd', 'dkd', 'gdkd', 'gdkd3', 'stochastic_gdkd', 'dgkd', 'dist')


def _family(case):
    return case.name.split('-')[0]


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@each_variant
def test_zero_with_zero_gradient_at_the_teacher(case, dtype):
    student, _, target = maps(case, dtype=dtype)
    value, gradient = value_and_gradient(case, student, student.clone(), target)
    assert value == 0
    assert (gradient == 0).all()


@each_variant
def test_never_negative_elsewhere(case):
    if _family(case) == 'dgkd':
        pytest.skip('its coupling term is maximised')
    for distance in (1., 1e-2, 1e-4, 1e-6):
        student, teacher, target = maps(case, dtype=torch.float32)
        values = case.call(student + distance * teacher, student, target, reduction='none')
        assert (values >= -1e-12).all()


@each_loss
def test_invariant_to_ignored_pixels(case):
    """Padding a batch with ignored pixels, whatever their logits, changes neither value nor gradient."""
    student, teacher, target = maps(case)
    value, gradient = value_and_gradient(case, student, teacher, target)
    padded = [torch.cat([x, logits(2, NUM_CLASSES, 2, 5, seed=9, scale=100.)], 3) for x in (student, teacher)]
    padded_target = torch.cat([target, torch.full((2, 2, 5), 255)], 2)
    if case.name == 'stochastic_gdkd':  # another shape is another draw: keep everything
        value, gradient = value_and_gradient(case, student, teacher, target, keep=1.)
        padded_value, padded_gradient = value_and_gradient(case, *padded, padded_target, keep=1.)
    else:
        padded_value, padded_gradient = value_and_gradient(case, *padded, padded_target)
    assert_close(padded_value, value)
    assert_close(padded_gradient[..., :3], gradient)
    assert (padded_gradient[..., 3:] == 0).all()


@each_loss
def test_invariant_to_the_batch_and_the_crop(case):
    """The same content twice, as more images or as a larger crop."""
    if case.name == 'stochastic_gdkd':
        case = case._replace(settings=dict(keep=1.))
    student, teacher, target = maps(case, ignored=[1, 8])
    value = case.call(student, teacher, target)
    assert_close(case.call(*(torch.cat([x, x]) for x in (student, teacher, target))), value)
    crop = case.call(*(torch.cat([x, x], -1) for x in (student, teacher, target)))
    assert_close(crop, value)


@each_loss
def test_zero_weights_are_ignored_pixels(case):
    student, teacher, target = maps(case)
    ignored = target.clone()
    ignored[0, 0, 1], ignored[1, 1, 2] = 255, 255
    weight = (ignored != 255).double()
    assert_close(case.call(student, teacher, target, weight), case.call(student, teacher, ignored))
    assert_close(case.call(student, teacher, target, 2 * weight), 2 * case.call(student, teacher, ignored))


@each_variant
def test_temperature_scales_by_its_square(case):
    """L(T z, T v; T) = T^2 L(z, v; 1)."""
    if _family(case) == 'logit_mse':
        pytest.skip('has no temperature')
    if 'standardize' in case.settings:
        pytest.skip('standardised logits do not follow the scale')
    student, teacher, target = maps(case)
    if _family(case) == 'dgkd':  # the mean of the coupling term is -epsilon at any temperature
        case = case._replace(settings=dict(case.settings, epsilon=0.))
    expected = 9 * case.call(student, teacher, target, temperature=1.)
    assert_close(case.call(3 * student, 3 * teacher, target, temperature=3.), expected)


@each_variant
def test_invariant_to_the_order_of_the_classes(case):
    if _family(case) == 'stochastic_gdkd' or isinstance(case.settings.get('k'), tuple):
        pytest.skip('its draw, or its table, is by class')
    student, teacher, target = maps(case)
    order = torch.randperm(NUM_CLASSES, generator=torch.Generator().manual_seed(3))
    value, gradient = value_and_gradient(case, student, teacher, target)
    permuted, permuted_gradient = value_and_gradient(
        case, student[:, order], teacher[:, order], order.argsort()[target])
    assert_close(permuted, value)
    assert_close(permuted_gradient, gradient[:, order])


@each_variant
def test_a_constant_added_to_all_logits_of_a_position(case):
    student, teacher, target = maps(case)
    shift = logits(2, 1, 2, 3, seed=4)
    value, gradient = value_and_gradient(case, student, teacher, target)
    shifted, shifted_gradient = value_and_gradient(case, student + shift, teacher, target)
    if _family(case) in SOFTMAX:
        assert_close(shifted, value)
        assert_close(shifted_gradient, gradient)
    else:
        assert abs(shifted - value) > 1e-3 * value  # these see the level of the logits (CWD: of the positions)


@each_loss
def test_gradients_over_the_classes_sum_to_zero_for_softmax_losses(case):
    if case.name not in SOFTMAX:
        pytest.skip('sees the level of the logits')
    _, gradient = value_and_gradient(case, *maps(case))
    assert gradient.sum(1).abs().max() < 1e-12


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), num_classes=st.integers(2, 12), groups=st.integers(1, 4),
       temperature=st.floats(0.25, 8.))
def test_any_groups_re_add_to_kd(seed, num_classes, groups, temperature):
    """w_between = 1 and w_g = b^v_g give the plain divergence, whatever the groups: empty and single ones too."""
    student, teacher = (logits(3, num_classes, 2, seed=seed + i) for i in (0, 1))
    assignment = torch.randint(groups, (3, num_classes, 2), generator=torch.Generator().manual_seed(seed))
    mass = [(teacher / temperature).softmax(1).masked_fill(assignment != g, 0).sum(1) for g in range(groups)]
    values, gradients = [], []
    for logit in (student.clone().requires_grad_(), student.clone().requires_grad_()):
        if not values:
            value = grouped_kl(logit, teacher, assignment, groups, temperature=temperature, w_within=mass).total
        else:
            value = kd_loss(logit, teacher, temperature=temperature, reduction='none')
        values.append(value)
        gradients.append(torch.autograd.grad(value.sum(), logit)[0])
    assert_close(*values, rtol=1e-9, atol=1e-11)
    assert_close(*gradients, rtol=1e-9, atol=1e-11)


def test_dkd_parts_re_add_to_kd():
    """KD = TCKD + (1 - p^v_target) NCKD, eq. 5 of DKD."""
    student, teacher, target = maps(None)
    parts = GroupedLoss(TargetAndRest(), 1., (0., 8.), 4.).parts(student, teacher, target)
    other = 1 - (teacher / 4.).softmax(1).gather(1, target.unsqueeze(1)).squeeze(1)
    assert_close(parts.between + other * parts.within[1], kd_loss(student, teacher, reduction='none'))
    assert_close(parts.total, parts.between + 8 * parts.within[1])
    assert (parts.within[0] == 0).all()


def test_gdkd_with_the_target_on_top_is_dkd():
    student, teacher, _ = maps(None)
    target = teacher.argmax(1)
    assert_close(gdkd_loss(student, teacher, k=1, w0=0.3, w1=7., w2=2.),
                 dkd_loss(student, teacher, target, alpha=0.3, beta=2.))


@pytest.mark.parametrize('divergence', ['forward', 'reverse', 'both'])
def test_gdkd_and_gdkd3_agree_with_one_top_class(divergence):
    student, teacher, _ = maps(None)
    weights = dict(k=1, w0=0.3, w1=7., w2=2., divergence=divergence)
    assert_close(gdkd3_loss(student, teacher, **weights), gdkd_loss(student, teacher, **weights))


def test_both_divergences_average():
    student, teacher, _ = maps(None)
    forward, reverse, both = (
        gdkd_loss(student, teacher, k=3, w0=0., divergence=name) for name in ('forward', 'reverse', 'both'))
    assert_close((forward + reverse) / 2, both)
    swapped = gdkd_loss(teacher, student, k=3, w0=0.)
    assert not torch.isclose(forward, reverse) and not torch.isclose(reverse, swapped)  # the groups are the teacher's


def test_one_k_is_a_table_of_equal_k():
    student, teacher, target = maps(None, ignored=[5])
    expected = gdkd_loss(student, teacher, target, k=3)
    assert_close(gdkd_loss(student, teacher, target, k=[3] * NUM_CLASSES), expected)
    assert_close(gdkd_loss(student, teacher, target, k=torch.full((NUM_CLASSES, ), 3)), expected)
    expected = gdkd_loss(student, teacher, k=3)
    assert_close(gdkd_loss(student, teacher, ratio=1e-9, k_max=3), expected)  # everything leads by that ratio


def test_bottom_k_is_the_complement_of_the_top():
    student, teacher, _ = maps(None)
    assert_close(gdkd_loss(student, teacher, k=3, w1=2., w2=8., strategy='worst'),
                 gdkd_loss(student, teacher, k=NUM_CLASSES - 3, w1=8., w2=2.))


def test_stochastic_gdkd_that_keeps_all_is_dkd():
    student, teacher, target = maps(None, ignored=[3])
    assert_close(stochastic_gdkd_loss(student, teacher, target, keep=1., w0=0.3, w1=2.),
                 dkd_loss(student, teacher, target, alpha=0.3, beta=2.))


def test_gdkd_with_both_weights_by_mass_is_kd():
    student, teacher, target = maps(None, ignored=[3])
    assert_close(gdkd_loss(student, teacher, target, k=3, w1=1., w2=1., by_mass='both'),
                 kd_loss(student, teacher, target))


def test_standardised_losses_see_no_scale():
    student, teacher, target = maps(None)
    stretched = 5 * student + 2
    assert_close(kd_loss(stretched, teacher, standardize='whole'), kd_loss(student, teacher, standardize='whole'))
    assert not torch.isclose(kd_loss(stretched, teacher), kd_loss(student, teacher))


def test_binary_kl_norm_has_the_gradient_of_the_docstring():
    student, teacher, _ = maps(None)
    student.requires_grad_()
    gradient, = torch.autograd.grad(binary_kl_norm_loss(student, teacher, temperature=2., reduction='sum'), student)
    assert_close(gradient, ((student - teacher) / 4.).tanh())


def test_groups_do_not_move_with_the_student():
    """The closed-form gradient of the core: T [w_b p (b^z - b^v) + w_g (p^z - p^v)]."""
    student, teacher, _ = maps(None)
    student.requires_grad_()
    groups, T = by_rank(teacher, [2, 4]), 2.
    total = grouped_kl(student, teacher, groups, 3, temperature=T, w_between=0.5, w_within=[1., 2., 3.]).total
    gradient, = torch.autograd.grad(total.sum(), student)
    expected = torch.zeros_like(gradient)
    q, p = (student.detach() / T).softmax(1), (teacher / T).softmax(1)
    for g, weight in enumerate([1., 2., 3.]):
        member = (groups == g).double()
        b_z, b_v = (q * member).sum(1, keepdim=True), (p * member).sum(1, keepdim=True)
        expected += member * T * (0.5 * q / b_z * (b_z - b_v) + weight * (q / b_z - p / b_v))
    assert_close(gradient, expected)


def test_a_target_of_no_class_leaves_its_group_empty():
    assert target_and_rest(torch.zeros(1, 2), torch.tensor([255])).tolist() == [[1, 1]]


@each_loss
def test_a_target_only_ignores_where_none_is_needed(case):
    if case.needs_target:
        pytest.skip('needs it')
    student, teacher, target = maps(case)
    assert_close(case.call(student, teacher, target), case.call(student, teacher))
    target[0, 0, 0] = 255
    assert not torch.isclose(case.call(student, teacher, target), case.call(student, teacher))
    assert_close(case.call(student, teacher, labels(2, 2, 3), ignore_index=None), case.call(student, teacher))

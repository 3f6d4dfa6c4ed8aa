"""The pieces that the losses are made of: groups, k, z-scores, the core's parts and the reduction."""
import pytest
import torch
from loss_cases import logits
from torch.testing import assert_close

from mmseg_kd.functional import ByRank, GroupedLoss, OneGroup, dist_loss, grouped_kl, k_by_mass, k_by_ratio
from mmseg_kd.functional.checks import valid_positions
from mmseg_kd.functional.evaluate import reduce_map
from mmseg_kd.functional.grouped import by_rank, random_groups
from mmseg_kd.functional.standardize import z_score


def test_ranks_of_equal_logits_follow_the_classes():
    assert by_rank(torch.zeros(1, 4), [1, 3]).tolist() == [[0, 1, 1, 2]]
    assert by_rank(torch.tensor([[1., 0., 1., 0.]]), [2], 'worst').tolist() == [[1, 0, 1, 0]]


def test_a_boundary_of_each_position():
    teacher = torch.tensor([[[3., 0.], [2., 1.], [1., 2.]]])
    assert by_rank(teacher, [torch.tensor([[1, 2]])]).tolist() == [[[0, 1], [1, 0], [1, 0]]]


def test_random_groups_hold_target_and_a_fair_draw():
    target = torch.full((4000, ), 2)
    torch.manual_seed(0)
    groups = random_groups(torch.zeros(4000, 6), target, 0.3)
    assert (groups[:, 2] == 0).all() and ((groups == 0).sum(1) == 1).all()
    share = (groups == 2).double().mean(0)
    assert_close(share[[0, 1, 3, 4, 5]], torch.full((5, ), 0.3, dtype=torch.float64), atol=0.04, rtol=0)
    together = ((groups[:, 0] == 2) & (groups[:, 1] == 2)).double().mean()
    assert abs(together - 0.09) < 0.02  # each by itself
    assert ((random_groups(torch.zeros(40, 6), target[:40], 1.) == 2).sum(1) == 5).all()


def test_one_class_is_never_kept():
    """Drawn evenly from six, and where that is the target it is the next: that one is out twice as often."""
    torch.manual_seed(0)
    for t in (2, 5):
        groups = random_groups(torch.zeros(6000, 6), torch.full((6000, ), t), 1., one_out=True)
        assert (groups[:, t] == 0).all() and ((groups == 1).sum(1) == 1).all() and ((groups == 2).sum(1) == 4).all()
        out = (groups == 1).double().mean(0)
        for c in range(6):
            expected = 0 if c == t else 2 / 6 if c == (t + 1) % 6 else 1 / 6
            assert out[c].item() == pytest.approx(expected, abs=0.03)
    kept = (random_groups(torch.zeros(6000, 6), torch.full((6000, ), 2), 0.75, one_out=True) == 2).double().mean(0)
    assert kept[0].item() == pytest.approx(0.75 * 5 / 6, abs=0.03)
    assert kept[3].item() == pytest.approx(0.75 * 4 / 6, abs=0.03)


@pytest.mark.parametrize('lead, ratio, expected', [
    ([5., 4., 0., 0., 0.], 2., 2), ([9., 0., 0., 0., 0.], 2., 1), ([0., 0., 0., 0., 0.], 1.5, 1),
    ([1e4, 5e3, 0., -5e3, -1e4], 1.9, 3), ([1e4, 0., 0., 0., 0.], 2., 1)])
def test_k_by_ratio(lead, ratio, expected):
    for dtype in (torch.float32, torch.float64):
        assert k_by_ratio(torch.tensor([lead], dtype=dtype), ratio, k_max=3).tolist() == [expected]


def test_k_is_at_most_k_max_and_leaves_a_rest():
    teacher = torch.tensor([[4., 3., 2., 1.]])
    assert k_by_ratio(teacher, 1.2, k_max=9).tolist() == [3]
    assert k_by_ratio(teacher, 0.9, k_max=9).tolist() == [3]
    assert k_by_ratio(teacher, 1.2, k_max=2).tolist() == [2]
    assert k_by_mass(teacher, 1., k_max=9).tolist() == [3]
    assert k_by_mass(teacher, 0.9999, k_max=2).tolist() == [2]


def test_k_by_mass_counts_until_the_mass_is_there():
    teacher = torch.tensor([[[.5, .97], [.3, .01], [.2, .01], [1e-9, .01]]]).log()
    for mass, expected in ((.49, [1, 1]), (.79, [2, 1]), (.95, [3, 1]), (.975, [3, 2])):
        assert k_by_mass(teacher, mass, k_max=3).tolist() == [expected]


def test_z_scores_of_some_classes():
    logit = logits(2, 6, 3) * 10 + 5
    member = torch.tensor([True, True, True, False, True, False]).view(1, 6, 1).expand(2, 6, 3)
    scores = z_score(logit, member)
    inside = scores[:, [0, 1, 2, 4]]
    assert_close(inside.mean(1), torch.zeros(2, 3, dtype=torch.float64), atol=1e-12, rtol=0)
    assert_close(inside.std(1, correction=0), torch.ones(2, 3, dtype=torch.float64))
    assert (scores[:, [3, 5]] == logit[:, [3, 5]]).all()


def test_equal_members_have_no_spread_though_their_mean_is_rounded():
    for count in range(2, 20):
        for value in (0.1, 0.7, 1.1, 100.1):
            row = torch.full((1, count), value)
            assert (z_score(row, torch.ones(1, count, dtype=torch.bool)) == 0).all()


def test_the_deviations_of_the_published_code():
    """Over all classes divided by C - 1, over a part of them by their number."""
    logit = logits(3, 6, seed=4)
    everything = torch.ones_like(logit, dtype=torch.bool)
    centred = logit - logit.mean(1, keepdim=True)
    assert_close(z_score(logit, everything, correction=1), centred / logit.std(1, keepdim=True))  # torch's own: C - 1
    assert_close(z_score(logit, everything), centred / (centred.square().sum(1, keepdim=True) / 6).sqrt())
    plain = GroupedLoss(OneGroup()).map(*(x / x.std(1, keepdim=True) for x in (logit, logit.flip(1))))
    assert_close(GroupedLoss(OneGroup(), standardize='whole').map(logit, logit.flip(1)), plain)


def test_parts_of_a_standardised_loss():
    """Group by group the masses stay those of the logits; as a whole they are those of the z-scores."""
    student, teacher = (logits(2, 6, seed=seed) for seed in (0, 1))
    plain, whole, group, rest = (
        GroupedLoss(ByRank((2, )), 3., (1., 2.), standardize=mode).parts(student, teacher)
        for mode in (None, 'whole', 'group', 'rest'))
    for parts in (plain, whole, group, rest):
        assert_close(parts.total, 3 * parts.between + parts.within[0] + 2 * parts.within[1])
    for parts in (group, rest):
        assert_close(parts.between, plain.between)
    assert_close(rest.within[0], plain.within[0])
    assert_close(rest.within[1], group.within[1])
    assert not torch.isclose(rest.within[1], plain.within[1]).any()
    assert not torch.isclose(whole.between, plain.between).any()


@pytest.mark.parametrize('row', [[0.1, 0.1, 0.1], [7., 0., 0.], [1e4, -1e4, 0.], [1e-30, 0., 0.], [0., 0., 0.]])
def test_z_scores_without_spread_or_with_any(row):
    logit = torch.tensor([row], requires_grad=True)
    member = torch.tensor([[True, row[0] != 7., row[0] != 7.]])  # 7: one member alone
    scores = z_score(logit, member)
    gradient, = torch.autograd.grad(scores.square().sum() + scores[0, 0], logit)
    assert scores.isfinite().all() and gradient.isfinite().all()
    if row[0] in (0.1, 7., 0.):
        assert (scores[member] == 0).all()
        assert (gradient[member] == 0).all()


def test_empty_and_single_groups_add_nothing_and_spoil_nothing():
    student, teacher = (logits(2, 4, seed=seed, dtype=torch.float32) for seed in (0, 1))
    student.requires_grad_()
    groups = torch.tensor([[0, 2, 2, 2], [2, 2, 2, 2]])  # group 1 empty, group 0 single or empty
    with torch.autograd.set_detect_anomaly(True):  # no NaN even on the way
        parts = grouped_kl(student, teacher, groups, 3, temperature=2.)
        gradient, = torch.autograd.grad(parts.total.sum(), student)
    assert parts.within[0].tolist() == [0, 0] and parts.within[1].tolist() == [0, 0]
    assert parts.between[1] == 0 and parts.between[0] > 0
    assert gradient.isfinite().all() and gradient.abs().max() > 0


def test_left_out_classes_might_as_well_not_exist():
    student, teacher = (logits(2, 5, seed=seed) for seed in (0, 1))
    for x in (student, teacher):
        x[:, 4] = 1e4  # and would outweigh all others
    student.requires_grad_()
    groups = torch.tensor([[0, 0, 1, 1, -1]]).expand(2, 5)
    with_it = grouped_kl(student, teacher, groups, 2, temperature=2.).total
    without = grouped_kl(student[:, :4], teacher[:, :4], groups[:, :4], 2, temperature=2.).total
    assert_close(with_it, without)
    gradient, = torch.autograd.grad(with_it.sum(), student)
    assert (gradient[:, 4] == 0).all()
    nothing = grouped_kl(student, teacher, torch.full((2, 5), -1), 2).total
    assert (nothing == 0).all()


def test_weights_of_positions_and_groups():
    student, teacher = (logits(3, 4, seed=seed) for seed in (0, 1))
    groups = by_rank(teacher, [2])
    parts = grouped_kl(student, teacher, groups, 2)
    w = torch.tensor([0., 1., 2.], dtype=torch.float64)
    total = grouped_kl(student, teacher, groups, 2, w_between=w, w_within=(3., 2 * w)).total
    assert_close(total, w * parts.between + 3 * parts.within[0] + 2 * w * parts.within[1])


def test_the_core_refuses_what_it_does_not_know():
    x, groups = torch.zeros(1, 3), torch.zeros(1, 3, dtype=torch.int64)
    with pytest.raises(ValueError, match="`divergence` must be 'forward', 'reverse' or 'both', got 'kl'"):
        grouped_kl(x, x, groups, 1, divergence='kl')
    with pytest.raises(ValueError, match='`w_within` must hold one weight for each of 1 groups, got 2'):
        grouped_kl(x, x, groups, 1, w_within=(1., 2.))
    with pytest.raises(ValueError, match='`standardize` must be'):
        GroupedLoss(OneGroup(), standardize='all').parts(x, x)
    with pytest.raises(ValueError, match='`reduction` must be'):
        reduce_map(x[0], torch.ones(3, dtype=torch.bool), reduction='batchmean')


def test_the_mean_counts_valid_positions_and_not_weights():
    values = torch.tensor([[1., 2., 4., float('inf')]], requires_grad=True)
    target, weight = torch.tensor([[0, 1, 2, 255]]), torch.tensor([[0., 3., 1., 1.]])
    valid = valid_positions(torch.Size((1, 3, 4)), 'cpu', target, weight, 255)
    assert valid.tolist() == [[False, True, True, False]]
    mean = reduce_map(values, valid, weight)
    assert mean.item() == (3 * 2 + 4) / 2
    assert torch.autograd.grad(mean, values)[0].tolist() == [[0., 1.5, 0.5, 0.]]
    assert valid_positions(torch.Size((1, 3, 4)), 'cpu', target, None, None).all()
    assert reduce_map(values, valid, weight, 'sum').item() == 10
    assert reduce_map(values, valid, weight, 'none').tolist() == [[0., 6., 4., 0.]]


def test_dist_where_a_row_has_no_spread():
    """A flat student has correlation 0 with any teacher; a flat teacher has nothing to match."""
    flat, spread = torch.zeros(3, 4), logits(3, 4, dtype=torch.float32)
    assert dist_loss(flat, spread, gamma=0., temperature=2.).item() == pytest.approx(4.)
    assert dist_loss(spread, flat).item() == 0
    student = flat.clone().requires_grad_()
    gradient, = torch.autograd.grad(dist_loss(student, spread), student)
    assert (gradient == 0).all()

"""The parts of the losses: each against its formula, and together the loss."""
import oracles
import pytest
import torch
from loss_cases import VARIANTS, maps
from torch.testing import assert_close

pytestmark = pytest.mark.filterwarnings('ignore:.*by construction:UserWarning')

#: What each part is weighed by, by the loss's own settings.
WEIGHTS = dict(
    KDLoss=dict(target=1., non_target=1.), DKDLoss=dict(target='alpha', non_target='beta'),
    GDKDLoss=dict(between='w0', within_top='w1', within_rest='w2'),
    GDKD3Loss=dict(between='w0', within_top='w1', within_rest='w2'),
    StochasticGDKDLoss=dict(between='w0', within_rest='w1'),
    DISTLoss=dict(inter_class='beta', intra_class='gamma'))
WHOLE = [case for case in VARIANTS if case.module.__name__ in WEIGHTS]


@pytest.mark.parametrize('case', WHOLE, ids=lambda case: case.name)
@pytest.mark.parametrize('reduction', ['mean', 'none'])
def test_weighed_they_add_up_to_the_loss(case, reduction):
    student, teacher, target = maps(case, ignored=[3])
    loss = case.build(loss_weight=5.)
    torch.manual_seed(3)
    parts = loss.part_values(student, teacher, target, reduction=reduction)
    torch.manual_seed(3)
    whole = case.build(reduction=reduction)(student, teacher, target)
    weights = {name: getattr(loss, weight) if isinstance(weight, str) else weight
               for name, weight in WEIGHTS[case.module.__name__].items()}
    assert set(parts) == set(weights)
    assert_close(sum(weights[name] * parts[name] for name in parts), whole.detach(), rtol=1e-5, atol=1e-6)


def rows(number=5, classes=6):
    generator = torch.Generator().manual_seed(1)
    student, teacher = (2 * torch.randn(number, classes, generator=generator, dtype=torch.float64) for _ in range(2))
    return student, teacher, torch.arange(number) % classes


@pytest.mark.parametrize('kind', ['DKDLoss', 'DGKDLoss', 'KDLoss'])
def test_target_and_non_target(kind):
    from mmseg_kd import losses
    student, teacher, target = rows()
    parts = getattr(losses, kind)(temperature=3.).part_values(student, teacher, target)
    expected = [oracles.tckd_and_nckd(z, v, t, 3) for z, v, t in zip(
        student.tolist(), teacher.tolist(), target.tolist(), strict=True)]
    # In KD the non-target part counts as much as the teacher doubts (DKD, eq. 6).
    doubt = [1 - (v / 3).softmax(0)[t].item() if kind == 'KDLoss' else 1. for v, t in zip(teacher, target, strict=True)]
    assert float(parts['target']) == pytest.approx(sum(float(tckd) for tckd, _ in expected) / 5)
    assert float(parts['non_target']) == pytest.approx(
        sum(share * float(nckd) for share, (_, nckd) in zip(doubt, expected, strict=True)) / 5)


def test_between_and_within():
    from mmseg_kd.losses import GDKDLoss
    student, teacher, target = rows()
    parts = GDKDLoss(k=2, temperature=3.).part_values(student, teacher)
    for name, weights in dict(between=(1, 0, 0), within_top=(0, 1, 0), within_rest=(0, 0, 1)).items():
        w0, w1, w2 = weights
        expected = oracles.gdkd(student.tolist(), teacher.tolist(), target.tolist(), k=2, w0=w0, w1=w1, w2=w2,
                                temperature=3)
        assert float(parts[name]) == pytest.approx(float(expected))


def test_without_labels_kd_has_no_parts():
    from mmseg_kd.losses import KDLoss
    student, teacher, _ = rows()
    assert KDLoss().part_values(student, teacher) == {}


def test_they_draw_no_random_number():
    from mmseg_kd.losses import StochasticGDKDLoss
    torch.manual_seed(0)
    before = torch.get_rng_state()
    StochasticGDKDLoss().part_values(*rows())
    assert torch.equal(torch.get_rng_state(), before)

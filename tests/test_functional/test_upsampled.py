"""Losses of logits that are upsampled inside, against torch's interpolation before the loss in float64."""
import pytest
import torch
from test_kernels import CASES, settings_for
from torch.nn import functional as F
from torch.testing import assert_close

from mmseg_kd.functional import Upsampled, cwd_loss, dgkd_loss, dkd_loss, evaluate, kd_loss

pytestmark = pytest.mark.filterwarnings('ignore:.*by construction:UserWarning')

#: (h, w) of student and teacher, (H, W) of the labels: every stride, odd ratios, other strides of the teacher, maps of
#: one column, a map as large as the labels or larger, more rows and columns than a band and a block hold.
SIZES = [((5, 6), (5, 6), (20, 24)), ((5, 6), (3, 3), (40, 48)), ((2, 3), (4, 6), (32, 48)), ((9, 5), (4, 7), (31, 17)),
         ((1, 1), (2, 1), (7, 9)), ((4, 4), (12, 12), (12, 12)), ((7, 9), (3, 4), (5, 6)),
         ((19, 101), (10, 51), (39, 333))]


def problem(num_classes, student, teacher, size, number=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    z = 3 * torch.randn(number, num_classes, *student, generator=generator)
    v = 3 * torch.randn(number, num_classes, *teacher, generator=generator)
    target = torch.randint(num_classes, (number, *size), generator=generator)
    target[torch.rand(target.shape, generator=generator) < .2] = 255
    weight = torch.rand(target.shape, generator=generator)
    return z, v, target, weight


def resized(logits, size, align_corners):
    return F.interpolate(logits, size=size, mode='bilinear', align_corners=align_corners)


def value_and_gradient(function, student, size, align_corners, teacher, *args, inside, upstream=1., **settings):
    student = student.detach().requires_grad_()
    form = Upsampled if inside else resized
    value = function(form(student, size, align_corners[0]), form(teacher, size, align_corners[1]), *args, **settings)
    return value.detach(), torch.autograd.grad(value, student, torch.tensor(upstream).to(value))[0]


def compare(function, student, teacher, target, weight, align_corners=(False, False), **settings):
    size = tuple(target.shape[1:])
    got = value_and_gradient(function, student, size, align_corners, teacher, target, weight, inside=True, **settings)
    expected = value_and_gradient(function, student.double(), size, align_corners, teacher.double(), target, weight,
                                  inside=False, **settings)
    assert_close(got[0].double(), expected[0], rtol=5e-6, atol=1e-9)
    assert_close(got[1].double(), expected[1], rtol=1e-5, atol=5e-6 * expected[1].abs().max().item())


@pytest.fixture
def interpolated(monkeypatch):
    """How often a full map was computed."""
    calls, interpolate = [], F.interpolate
    monkeypatch.setattr(F, 'interpolate', lambda *args, **kwargs: calls.append(1) or interpolate(*args, **kwargs))
    return calls


@pytest.mark.parametrize('case', CASES, ids=lambda case: case.name)
def test_every_loss(case, interpolated):
    student, teacher, target, weight = problem(7, (5, 6), (3, 3), (33, 48))
    compare(case.function, student, teacher, target, weight, upstream=-1.7, **settings_for(case, 7))
    assert len(interpolated) == (4 if 'stochastic' in case.name else 2)  # the float64 side computes its two maps


@pytest.mark.parametrize('align_corners', [(False, False), (True, True), (False, True)])
@pytest.mark.parametrize('sizes', SIZES)
def test_every_size(sizes, align_corners):
    student, teacher, target, weight = problem(5, *sizes)
    compare(dkd_loss, student, teacher, target, None, align_corners)
    compare(kd_loss, student, teacher, target, weight, align_corners, reduction='sum')


@pytest.mark.parametrize('num_classes', [2, 19, 33, 171])
def test_every_number_of_classes(num_classes):
    compare(dkd_loss, *problem(num_classes, (3, 17), (3, 17), (24, 136), number=1))


def test_a_teacher_at_full_size():
    student, teacher, target, _ = problem(7, (4, 4), (16, 16), (16, 16))
    student.requires_grad_()
    got = dkd_loss(Upsampled(student, (16, 16)), resized(teacher, (16, 16), False), target)
    expected = dkd_loss(Upsampled(student, (16, 16)), Upsampled(teacher, (16, 16)), target)
    assert_close(got, expected)


def test_equal_bits_twice_and_with_any_number_of_threads():
    student, teacher, target, _ = problem(19, (19, 21), (10, 11), (76, 84))
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 1, 2, 3):
            torch.set_num_threads(threads)
            results.append(value_and_gradient(dkd_loss, student, (76, 84), (False, False), teacher, target,
                                              inside=True))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert_close(other, results[0], rtol=0, atol=0)


def test_nothing_that_counts():
    student, teacher, target, _ = problem(7, (4, 4), (4, 4), (16, 16))
    value, gradient = value_and_gradient(dkd_loss, student, (16, 16), (False, False), teacher,
                                         torch.full_like(target, 255), inside=True)
    assert value == 0 and not gradient.any()


def test_nan_reaches_value_and_gradient():
    student, teacher, target, _ = problem(7, (4, 4), (4, 4), (16, 16))
    student[0, 2, 1, 1] = torch.nan
    value, gradient = value_and_gradient(kd_loss, student, (16, 16), (False, False), teacher, target, inside=True)
    assert value.isnan() and gradient[0, :, 1, 1].isnan().any() and gradient[1].isfinite().all()


def test_losses_without_an_operator_compute_the_map():
    student, teacher, target, _ = problem(7, (4, 4), (2, 2), (16, 16))
    for function in (dgkd_loss, cwd_loss):
        compare(function, student.double(), teacher.double(), target, None)


def test_the_switch(monkeypatch, interpolated):
    student, teacher, target, _ = problem(7, (4, 4), (2, 2), (16, 16))
    fast = value_and_gradient(dkd_loss, student, (16, 16), (False, False), teacher, target, inside=True)
    assert not interpolated
    monkeypatch.setenv('MMSEG_KD_KERNELS', 'naive')
    plain = value_and_gradient(dkd_loss, student, (16, 16), (False, False), teacher, target, inside=True)
    assert len(interpolated) == 2
    assert_close(fast, plain, rtol=1e-5, atol=1e-6)


def test_what_it_refuses():
    student, teacher, target, _ = problem(7, (4, 4), (2, 2), (16, 16))
    with pytest.raises(ValueError, match=r'`student`: Upsampled needs logits of shape \(N, C, h, w\), got \(2, 7\)'):
        kd_loss(Upsampled(student[:, :, 0, 0], (16, 16)), Upsampled(teacher, (16, 16)))
    with pytest.raises(ValueError, match=r'`teacher`: Upsampled needs size=\(H, W\), two positive integers'):
        kd_loss(Upsampled(student, (16, 16)), Upsampled(teacher, (0, 16)))
    with pytest.raises(ValueError, match=r'`teacher` must have the shape of `student`, \(2, 7, 16, 16\), got'):
        kd_loss(Upsampled(student, (16, 16)), Upsampled(teacher, (8, 8)))
    assert evaluate.cpu_operators() is not None

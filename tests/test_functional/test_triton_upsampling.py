"""The GPU's operators that upsample inside, against torch's interpolation before the loss in float64."""
import pytest
import torch
from on_triton import DEVICE, moved, poisoned, triton_kernels  # noqa: F401
from test_cross_entropy import compare as compare_cross_entropy
from test_cross_entropy import value_and_gradient as cross_entropy_and_gradient
from test_kernels import CASES, settings_for
from test_upsampled import SIZES, compare, interpolated, problem, value_and_gradient  # noqa: F401
from torch.testing import assert_close

from mmseg_kd.functional import Upsampled, dkd_loss, kd_loss

pytestmark = pytest.mark.filterwarnings('ignore:.*by construction:UserWarning')
KINDS = [case for case in CASES if case.name in ('kd', 'gdkd-k=3-divergence=both', 'gdkd-ratio=1.5-k_max=4', 'gdkd3',
                                                 'gdkd-k=(1,2,3,4,5,6,1)', 'binary_kl', 'stochastic_gdkd')]


@pytest.mark.parametrize('case', KINDS, ids=lambda case: case.name)
def test_every_kind(case, interpolated, triton_kernels):  # noqa: F811
    compare(case.function, *moved(*problem(7, (2, 3), (2, 2), (5, 6), 1)), upstream=-1.7, **settings_for(case, 7))
    assert len(interpolated) == (4 if 'stochastic' in case.name else 2)  # the float64 side computes its two maps
    assert len(triton_kernels) == 1


#: Bands of one and of several rows, several programs along both axes, maps of one row, a map larger than the labels.
@pytest.mark.parametrize('sizes,align_corners', [
    (((4, 17), (4, 17), (8, 136)), (False, False)), (((5, 6), (5, 6), (10, 24)), (False, False)),
    (((4, 5), (3, 3), (16, 20)), (False, False)),
    (((2, 3), (4, 6), (8, 24)), (True, True)), (((9, 5), (4, 7), (11, 17)), (False, True)),
    (((1, 1), (2, 1), (7, 9)), (True, True)), (((6, 5), (3, 4), (4, 3)), (False, False)),
    (((2, 41), (2, 41), (1, 333)), (False, False)), (((2, 3), (2, 3), (9, 17)), (True, True))])
def test_sizes(sizes, align_corners, poisoned):  # noqa: F811
    compare(dkd_loss, *moved(*problem(5, *sizes, 1)), align_corners)


@pytest.mark.parametrize('num_classes', [2, 19, 33, 171])
def test_every_number_of_classes(num_classes, poisoned):  # noqa: F811
    compare(dkd_loss, *moved(*problem(num_classes, (1, 5), (1, 5), (3, 20), 1)))


@pytest.mark.parametrize('weighted,align_corners,sizes', [(False, False, SIZES[0]), (3, True, SIZES[3]),
                                                          (True, False, ((2, 3), (2, 3), (8, 12)))])
def test_cross_entropy(weighted, align_corners, sizes, triton_kernels, poisoned):  # noqa: F811
    logits, _, target, _ = moved(*problem(7, *sizes, 1))
    compare_cross_entropy(logits, target, align_corners, weighted)
    assert len(triton_kernels) == 1


def test_confident_and_wrong():
    logits, = moved(torch.tensor([[[[200.]], [[0.]], [[-200.]]]]))
    total, gradient, correct = cross_entropy_and_gradient(logits, torch.tensor([[[2]]], device=DEVICE), False, None)
    assert total == 400 and correct == 0
    assert_close(gradient.flatten().cpu(), -.7 * torch.tensor([1., 0., -1.]))


def test_two_runs_give_the_same_bits():
    student, teacher, target, _ = moved(*problem(5, (3, 11), (2, 5), (6, 88), 1))
    first, second = (value_and_gradient(dkd_loss, student, (6, 88), (False, False), teacher, target, inside=True)
                     for _ in range(2))
    assert_close(first, second, rtol=0, atol=0)


def test_half_precision_strides_and_a_teacher_at_full_size():
    student, teacher, target, _ = moved(*problem(7, (2, 3), (8, 12), (8, 12), 1))
    student = student.bfloat16()
    expected = value_and_gradient(dkd_loss, student.float(), (8, 12), (False, False), teacher, target, inside=True)
    other = student.contiguous(memory_format=torch.channels_last).requires_grad_()
    value = dkd_loss(Upsampled(other, (8, 12)), teacher, target)
    gradient, = torch.autograd.grad(value, other)
    assert gradient.dtype == torch.bfloat16
    assert_close(value.detach(), expected[0], rtol=1e-6, atol=0)
    # Torch rounds this gradient, which the kernel gives in float32.
    assert_close(gradient.float(), expected[1], rtol=1.01 * 2.**-8, atol=1e-5 * expected[1].abs().max().item())


def test_nothing_that_counts(poisoned):  # noqa: F811
    student, teacher, target, _ = moved(*problem(7, (2, 2), (2, 2), (4, 4), 1))
    value, gradient = value_and_gradient(dkd_loss, student, (4, 4), (False, False), teacher,
                                         torch.full_like(target, 255), inside=True)
    assert value == 0 and not gradient.any()


def test_nan_reaches_value_and_gradient():
    student, teacher, target, _ = moved(*problem(7, (2, 2), (2, 2), (4, 4)))
    student[0, 2, 1, 1] = torch.nan
    value, gradient = value_and_gradient(kd_loss, student, (4, 4), (False, False), teacher, target, inside=True)
    assert value.isnan() and gradient[0, :, 1, 1].isnan().any() and gradient[1].isfinite().all()


def test_cells_of_too_many_outputs_compute_the_map(interpolated):  # noqa: F811
    compare(kd_loss, *moved(*problem(3, (1, 1), (1, 1), (1, 140), 1)))
    assert len(interpolated) == 4


@pytest.mark.skipif(DEVICE != 'cuda', reason='memory is measured on a GPU')
@pytest.mark.parametrize('stride', [4, 8, 16])
def test_memory_on_a_gpu(stride):
    size = (512, 1024)
    student, teacher = (torch.randn(1, 19, size[0] // stride, size[1] // stride, device=DEVICE) for _ in range(2))
    target = torch.randint(19, (1, *size), device=DEVICE)
    student.requires_grad_()
    for _ in range(2):
        student.grad = None
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        dkd_loss(Upsampled(student, size), Upsampled(teacher, size), target).backward()
        extra = torch.cuda.max_memory_allocated() - before
    assert extra <= .1 * 19 * size[0] * size[1] * 4

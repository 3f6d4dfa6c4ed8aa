"""The GPU's operator of CWD against the plain form in float64, which defines the loss."""
import pytest
import torch
from on_triton import DEVICE, moved, poisoned, triton_kernels  # noqa: F401
from test_blockwise import SIZE, as_it_is, compare, problem, resized, small, value_and_gradient
from torch.testing import assert_close

from mmseg_kd.functional import Upsampled, cwd_loss


def run(student, logits_of, teacher, *args, **settings):
    return tuple(each.cpu() for each in value_and_gradient(cwd_loss, *moved(student), logits_of, teacher, *moved(*args),
                                                           **settings))


def expected_of(student, teacher, *args, **settings):
    return value_and_gradient(cwd_loss, resized(student).double(), as_it_is, resized(teacher).double(), *args,
                              **settings)


@pytest.mark.parametrize('with_weight', [False, True])
@pytest.mark.parametrize('temperature', [.5, 4.])
def test_as_the_plain_form_in_float64(with_weight, temperature, triton_kernels, poisoned):  # noqa: F811
    student, teacher, target, weight = problem()
    weight, settings = weight if with_weight else None, dict(temperature=temperature)
    got = run(resized(student), as_it_is, *moved(resized(teacher)), target, weight, **settings)
    assert len(triton_kernels) == 1
    compare(got, expected_of(student, teacher, target, weight, **settings))


@pytest.mark.parametrize('with_weight', [False, True])
@pytest.mark.parametrize('align_corners', [False, True])
def test_small_logits_of_other_strides(with_weight, align_corners, triton_kernels, poisoned):  # noqa: F811
    student, _, target, weight = problem()
    teacher, weight = problem(small=(4, 3), seed=1)[1], weight if with_weight else None
    got = run(student, lambda z: Upsampled(z, SIZE, align_corners), Upsampled(*moved(teacher), SIZE), target, weight)
    assert len(triton_kernels) == 1
    expected = value_and_gradient(cwd_loss, student.double(), lambda z: resized(z, align_corners),
                                  resized(teacher.double()), target, weight)
    compare(got, expected)


def test_a_channel_in_many_parts(triton_kernels):  # noqa: F811
    """More positions than one program has, the largest logits in the last part, and a part in which none counts."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = (3 * torch.randn(1, 2, 9000, generator=generator) for _ in range(2))
    student[..., -1] += 20
    teacher[..., -1] += 15
    target = torch.zeros(1, 9000, dtype=torch.int64)
    target[:, 2000:5000] = 255
    got = run(student, as_it_is, *moved(teacher), target)
    assert len(triton_kernels) == 1
    compare(got, value_and_gradient(cwd_loss, student.double(), as_it_is, teacher.double(), target))


def test_more_channels_than_there_are_classes(triton_kernels):  # noqa: F811
    """Features have many channels, and are not always in the order of channels."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = (3 * torch.randn(1, 300, 2, 3, generator=generator) for _ in range(2))
    student = student.to(memory_format=torch.channels_last)
    got = run(student, as_it_is, *moved(teacher))
    assert len(triton_kernels) == 1
    compare(got, value_and_gradient(cwd_loss, student.double(), as_it_is, teacher.double()))


@pytest.mark.parametrize('dtype,digits', [(torch.bfloat16, 8 if DEVICE == 'cuda' else 7), (torch.float16, 11)])
def test_half_precision(dtype, digits):
    student, teacher, target, _ = problem()
    student, teacher = resized(student).to(dtype), resized(teacher).to(dtype)
    got = run(student, as_it_is, *moved(teacher), target)
    expected = value_and_gradient(cwd_loss, student.double(), as_it_is, teacher.double(), target)
    assert got[0].dtype == torch.float32 and got[1].dtype == dtype
    assert_close(got[0].double(), expected[0], rtol=2e-6, atol=0)
    # bfloat16 is rounded again when the factor from above is in it; float16 has its smallest number at 6e-8.
    roundings = 2 if dtype == torch.bfloat16 else 1
    assert_close(got[1].double(), expected[1], rtol=roundings * 2.**-digits, atol=6e-8)


@pytest.mark.parametrize('logits_of', [as_it_is, small], ids=['full', 'small'])
def test_what_does_not_count_and_what_is_not_a_number(logits_of):
    student, teacher, target, weight = problem()
    if logits_of is as_it_is:
        student, teacher = resized(student), resized(teacher)
        out = ((target == 255) | (weight == 0)).unsqueeze(1)
        clean = run(student, as_it_is, *moved(teacher), target, weight)
        dirty = run(student.masked_fill(out, torch.nan), as_it_is, *moved(teacher.masked_fill(out, torch.inf)), target,
                    weight)
        assert_close(dirty, clean, rtol=0, atol=0)
        assert clean[1].any() and not clean[1].masked_select(out).any()
    target[0, :2, :2] = 1
    for poisoned_one in (0, 1):
        both = [student.clone(), teacher.clone()]
        both[poisoned_one][0, 2, 0, 0] = torch.nan
        value, gradient = run(both[0], logits_of, logits_of(*moved(both[1])), target)
        assert value.isnan() and gradient[0, 2].isnan().any() and gradient[2].isfinite().all()

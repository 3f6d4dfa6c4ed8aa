"""Cross-entropy that upsamples inside, against torch's on interpolated logits in float64."""
import pytest
import torch
from test_upsampled import SIZES, problem, resized
from torch.nn import functional as F
from torch.testing import assert_close

from mmseg_kd.functional import Upsampled
from mmseg_kd.functional.cross_entropy import cross_entropy_sum


def value_and_gradient(logits, target, align_corners, class_weight):
    logits = logits.detach().requires_grad_()
    total, correct = cross_entropy_sum(
        Upsampled(logits, tuple(target.shape[1:]), align_corners), target, class_weight=class_weight)
    return total.detach(), torch.autograd.grad(total, logits, torch.tensor(-.7).to(total))[0], correct


def compare(logits, target, align_corners, weighted):
    """``weighted``: False, True, or the class that has the weight 0."""
    class_weight = torch.linspace(.5, 3., logits.shape[1], device=logits.device) if weighted else None
    if weighted and weighted is not True:
        class_weight[weighted] = 0
    total, gradient, correct = value_and_gradient(logits, target, align_corners, class_weight)
    exact = logits.double().requires_grad_()
    full = resized(exact, target.shape[1:], align_corners)
    expected = F.cross_entropy(
        full, target, None if class_weight is None else class_weight.double(), ignore_index=255, reduction='sum')
    expected_gradient, = torch.autograd.grad(-.7 * expected, exact)
    assert_close(total.double(), expected.detach(), rtol=2e-6, atol=0)
    assert_close(gradient.double(), expected_gradient, rtol=1e-5, atol=3e-6 * expected_gradient.abs().max().item())
    assert correct == ((full.argmax(1) == target) & (target != 255)).sum()


@pytest.mark.parametrize('weighted', [False, True])
@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('sizes', SIZES)
def test_as_torch_in_float64(sizes, align_corners, weighted):
    logits, _, target, _ = problem(7, *sizes)
    compare(logits, target, align_corners, weighted)


@pytest.mark.parametrize('kernels', ['auto', 'naive'])
def test_a_class_of_weight_0_is_classified_all_the_same(kernels, monkeypatch):
    monkeypatch.setenv('MMSEG_KD_KERNELS', kernels)
    logits, _, target, _ = problem(7, *SIZES[0])
    for weight_0 in (1, 4):
        compare(logits, target, False, weight_0)
    compare(logits, torch.full_like(target, 4), False, 4)


def test_the_plain_form_is_the_same(monkeypatch):
    logits, _, target, _ = problem(19, (5, 6), (5, 6), (40, 48))
    fast = value_and_gradient(logits, target, False, None)
    monkeypatch.setenv('MMSEG_KD_KERNELS', 'naive')
    assert_close(value_and_gradient(logits, target, False, None), fast, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize('label', [7, -1, 254])
def test_labels_that_are_no_class_are_refused(label):
    logits, _, target, _ = problem(7, (4, 4), (4, 4), (16, 16))
    target[0, 3, 3] = label
    with pytest.raises(ValueError, match=rf'`target` must hold classes 0 .. 6 or ignore_index = 255, got \[{label}\]'):
        value_and_gradient(logits, target, False, None)


def test_confident_and_wrong():
    logits = torch.tensor([[[[200.]], [[0.]], [[-200.]]]])
    total, gradient, correct = value_and_gradient(logits, torch.tensor([[[2]]]), False, None)
    assert total == 400 and correct == 0
    assert_close(gradient.flatten(), -.7 * torch.tensor([1., 0., -1.]))


def test_nan_is_seen():
    logits, _, target, _ = problem(7, (4, 4), (4, 4), (16, 16))
    logits[0, 3, 0, 0] = torch.nan
    total, gradient, _ = value_and_gradient(logits, target, False, None)
    assert total.isnan() and gradient[0].isnan().any() and gradient[1].isfinite().all()

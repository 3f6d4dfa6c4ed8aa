"""Analytic gradients against finite differences, with ignored pixels inside."""
import pytest
import torch
from loss_cases import NUM_CLASSES, VARIANTS, labels, logits


# The coupling term stops a gradient, which finite differences cannot know: test_dgkd.
@pytest.mark.parametrize(
    'case', [case for case in VARIANTS if not case.name.startswith('dgkd')], ids=lambda case: case.name)
def test_gradcheck_with_ignored_pixels(case):
    student, teacher = (logits(1, NUM_CLASSES, 2, 2, seed=seed) for seed in (0, 1))
    target = labels(1, 2, 2, ignored=[1])
    weight = torch.tensor([[[0.5, 2.], [0., 1.]]], dtype=torch.float64)
    for reduction in ('mean', 'none'):
        assert torch.autograd.gradcheck(
            lambda student, reduction=reduction: case.call(student, teacher, target, weight, reduction=reduction),
            student.clone().requires_grad_())

"""Classes that are sums of others, against probabilities in float64."""
import numpy as np
import pytest
import torch
from scipy.special import softmax

from mmseg_kd.functional import Upsampled
from mmseg_kd.functional.merged_classes import merge_classes, select_classes

GROUPS = [[4], [0, 2, 5], [], [1]]


def test_probabilities_are_sums():
    logits = 10 * torch.randn(2, 7, 3, 5, generator=torch.Generator().manual_seed(0))
    merged = merge_classes(logits, GROUPS)
    p = softmax(logits.double().numpy(), axis=1)
    sums = np.stack([p[:, group].sum(1) for group in GROUPS if group], 1)
    assert merged.classes == (0, 1, 3) and merged.shape == (2, 3, 3, 5)
    np.testing.assert_allclose(softmax(merged.logits.double().numpy(), axis=1), sums / sums.sum(1, keepdims=True),
                               rtol=1e-5, atol=1e-12)
    wanted, others = sums.sum(1), p[:, [3, 6]].sum(1)
    lead = merged.lead[:, 0].double().numpy()
    np.testing.assert_allclose(lead, np.log(wanted) - np.log(others), rtol=1e-5, atol=1e-4)


def test_far_apart_and_all_wanted():
    """Sums of probabilities that underflow one by one; and no lead where nothing is left over."""
    logits = torch.tensor([[-500., -500., 300., 300.5]])
    merged = merge_classes(logits, [[0, 1], [2, 3]])
    assert merged.lead is None
    np.testing.assert_allclose(merged.logits.double().numpy(),
                               [[-500 + np.log(2), 300 + np.log(1 + np.exp(0.5))]], rtol=1e-6)
    assert merge_classes(logits.half(), [[0], [1]]).logits.dtype == torch.float32


def test_a_selection_is_the_same_before_and_behind_upsampling():
    small = torch.randn(1, 7, 3, 5)
    merged = merge_classes(Upsampled(small, (9, 20)), [[4], [], [1]])
    full = merge_classes(Upsampled(small, (9, 20)).computed(), [[4], [], [1]])
    torch.testing.assert_close(merged.logits.computed(), full.logits)
    assert merged.lead.size == (9, 20)


@pytest.mark.parametrize('logits', [torch.randn(2, 3, 4), torch.randn(2, 3)])
def test_selected(logits):
    assert select_classes(logits, (0, 1, 2)) is logits
    assert torch.equal(select_classes(logits, (2, 0)), torch.stack([logits[:, 2], logits[:, 0]], 1))

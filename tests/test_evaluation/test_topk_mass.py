"""How many classes hold the teacher's mass, by sorting."""
import numpy as np
import pytest
import torch

from mmseg_kd.evaluation.topk_mass import TopKMass


@pytest.mark.parametrize('temperature', [1., 4.])
def test_against_sorted_probabilities(temperature):
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(2, 6, 20, generator=generator)
    labels = torch.randint(5, (2, 20), generator=generator)
    labels[0, :4] = 255
    metric = TopKMass(6, 0.9, temperature)
    metric.update(logits[:1], labels[:1])
    metric.update(logits[1:], labels[1:])
    needed = {c: [] for c in range(5)}
    for n, i in np.ndindex(2, 20):
        if labels[n, i] != 255:
            p = np.exp(logits[n, :, i].double().numpy() / temperature)
            held = np.cumsum(np.sort(p / p.sum())[::-1])
            needed[labels[n, i].item()].append(min(1 + int((held < 0.9).sum()), 5))
    everything = np.array(sum(needed.values(), []))
    assert len(set(everything)) > 1
    np.testing.assert_allclose(metric.share, [(everything == k).mean() for k in range(1, 6)])
    np.testing.assert_allclose(metric.mean_k_of_class[:5], [np.mean(needed[c]) for c in range(5)])
    assert metric.mean_k_of_class[5].isnan()
    for share in (0.2, 0.5, 1.):
        assert metric.quantile(share) == next(k for k in range(1, 6) if (everything <= k).mean() >= share - 1e-12)

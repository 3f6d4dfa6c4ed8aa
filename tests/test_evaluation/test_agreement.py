"""Agreement and logit distance against loops."""
import numpy as np
import pytest
import torch

from mmseg_kd.evaluation.agreement import Agreement


def test_against_loops():
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(2, 4, 3, 5, generator=generator) for _ in range(2))
    labels = torch.randint(4, (2, 3, 5), generator=generator)
    labels[labels == 3] = 255
    metric = Agreement(4)
    for one in range(2):
        metric.update(student[one:one + 1], teacher[one:one + 1], labels[one:one + 1])
    distances, agree = {c: [] for c in range(4)}, {c: [] for c in range(4)}
    for n, y, x in np.ndindex(2, 3, 5):
        if labels[n, y, x] != 255:
            z, v = student[n, :, y, x].double().numpy(), teacher[n, :, y, x].double().numpy()
            c = labels[n, y, x].item()
            distances[c].append(np.sqrt(np.mean(((z - z.mean()) - (v - v.mean()))**2)))
            agree[c].append(z.argmax() == v.argmax())
    assert metric.distance == pytest.approx(np.mean(sum(distances.values(), [])))
    assert metric.agreement == pytest.approx(np.mean(sum(agree.values(), [])))
    assert 0 < metric.agreement < 1
    for c in range(3):
        assert metric.distance_of_class[c].item() == pytest.approx(np.mean(distances[c]))
        assert metric.agreement_of_class[c].item() == pytest.approx(np.mean(agree[c]))
    assert metric.distance_of_class[3].isnan()


def test_a_constant_over_the_classes_is_no_distance():
    logits = torch.randn(1, 5, 4)
    metric = Agreement(5)
    metric.update(logits + 3., logits, torch.zeros(1, 4, dtype=torch.long))
    assert metric.distance == pytest.approx(0, abs=1e-6) and metric.agreement == 1

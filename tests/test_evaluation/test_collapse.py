"""Neural collapse: a collapsed layer made by hand, and the definitions in loops of NumPy."""
import numpy as np
import pytest
import torch

from mmseg_kd.evaluation.collapse import balanced_sample, neural_collapse


def simplex(classes, dimensions, generator):
    """The vertices of a simplex (classes, dimensions), centred, in a random rotation."""
    rotation = np.linalg.qr(generator.normal(size=(dimensions, dimensions)))[0]
    return (np.eye(classes) - 1 / classes) @ rotation[:classes]


def test_full_collapse_is_zero():
    generator = np.random.default_rng(0)
    vertices = simplex(4, 7, generator)
    labels = np.repeat(np.arange(4), [3, 9, 5, 1])
    features = 2.5 * vertices[labels] + generator.normal(size=7)
    found = neural_collapse(torch.tensor(features), torch.tensor(labels), torch.tensor(0.3 * vertices))
    for name in ('nc1', 'nc1_trace', 'nc2_norm', 'nc2_angle', 'nc3'):
        assert getattr(found, name) == pytest.approx(0, abs=1e-9), name
    assert found.nc1_of_class.tolist() == pytest.approx([0] * 4, abs=1e-9)
    assert found.nc3_of_class.tolist() == pytest.approx([0] * 4, abs=1e-9)


def test_against_the_definitions():
    generator = np.random.default_rng(1)
    # Five classes of a classifier with six; class 2 has no features.
    labels = generator.choice([0, 1, 3, 4, 5], size=60, p=[.5, .2, .1, .1, .1])
    centres = generator.normal(size=(6, 8))
    features = centres[labels] + 0.8 * generator.normal(size=(60, 8))
    weight, bias = centres + 0.5 * generator.normal(size=(6, 8)), generator.normal(size=6)
    found = neural_collapse(*(torch.tensor(each) for each in (features, labels, weight, bias)))

    classes = [0, 1, 3, 4, 5]
    means = {c: features[labels == c].mean(0) for c in classes}
    overall = sum(means.values()) / 5
    between = sum(np.outer(means[c] - overall, means[c] - overall) for c in classes) / 5
    within = {c: np.mean([np.outer(h - means[c], h - means[c]) for h in features[labels == c]], axis=0)
              for c in classes}
    inverse = np.linalg.pinv(between, rcond=1e-10)
    assert np.linalg.matrix_rank(between) == 4
    assert found.nc1 == pytest.approx(np.trace(sum(within.values()) / 5 @ inverse) / 5)
    for c in classes:
        assert found.nc1_of_class[c].item() == pytest.approx(np.trace(within[c] @ inverse) / 5)
        assert found.nc1_trace_of_class[c].item() == pytest.approx(np.trace(within[c]) / np.trace(between))
    assert found.nc1_trace == pytest.approx(np.trace(sum(within.values())) / 5 / np.trace(between))
    lengths = [np.linalg.norm(means[c] - overall) for c in classes]
    assert found.nc2_norm == pytest.approx(np.std(lengths) / np.mean(lengths))
    angles = [abs((means[a] - overall) @ (means[b] - overall) / np.linalg.norm(means[a] - overall)
                  / np.linalg.norm(means[b] - overall) + 1 / 4) for a in classes for b in classes if a != b]
    assert found.nc2_angle == pytest.approx(np.mean(angles))
    m, w = np.array([means[c] - overall for c in classes]), weight[classes]
    assert found.nc3 == pytest.approx(np.linalg.norm(w / np.linalg.norm(w) - m / np.linalg.norm(m))**2)
    differ = {c: [] for c in classes}
    for h, c in zip(features, labels, strict=True):
        nearest = min(classes, key=lambda other: np.linalg.norm(h - means[other]))
        differ[c].append(np.argmax(weight @ h + bias) != nearest)
    assert found.nc4 == pytest.approx(np.mean([np.mean(differ[c]) for c in classes])) and 0 < found.nc4 < 1
    assert found.nc4_of_class[0].item() == pytest.approx(np.mean(differ[0]))
    assert found.nc1_of_class[2].isnan() and found.nc4_of_class[2].isnan()


def test_one_class_cannot_collapse():
    with pytest.raises(ValueError, match='at least 2'):
        neural_collapse(torch.randn(5, 3), torch.zeros(5, dtype=torch.long), torch.randn(4, 3))


def test_a_balanced_sample_takes_as_many_of_each_class():
    labels = torch.tensor([0] * 50 + [1] * 3 + [255] * 20 + [-1] * 5 + [7] * 10)
    chosen = balanced_sample(labels, 6, torch.Generator().manual_seed(0), ignore_index=255)
    assert len(set(chosen.tolist())) == len(chosen)
    assert torch.bincount(labels[chosen]).tolist() == [6, 3, 0, 0, 0, 0, 0, 6]
    other = balanced_sample(labels, 6, torch.Generator().manual_seed(1), ignore_index=255)
    assert set(other.tolist()) != set(chosen.tolist())


def test_a_class_255_is_a_class_where_no_label_is_ignored():
    """ImageNet has one."""
    labels = torch.tensor([254] * 4 + [255] * 4 + [999] * 4)
    assert sorted(labels[balanced_sample(labels, 2)].tolist()) == [254, 254, 255, 255, 999, 999]

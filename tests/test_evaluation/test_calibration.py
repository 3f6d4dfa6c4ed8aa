"""Calibration against hand-made bins and a loop over positions."""
import math

import numpy as np
import pytest
import torch

from mmseg_kd.evaluation.calibration import Calibration


def test_by_hand():
    calibration = Calibration(bins=2)
    # The lower bin ends at 0.5 and holds it: confidences 0.4, 0.5, one of two right; the upper 0.9, right.
    calibration.update(torch.tensor([0.4, 0.9]), torch.tensor([True, True]))
    calibration.update(torch.tensor([[0.5]]), torch.tensor([[False]]))
    assert calibration.count.tolist() == [2, 1]
    assert calibration.confidence.tolist() == pytest.approx([0.45, 0.9])
    assert calibration.accuracy.tolist() == [0.5, 1.]
    assert calibration.error == pytest.approx((2 * 0.05 + 1 * 0.1) / 3)


def test_against_a_loop():
    generator = np.random.default_rng(0)
    confidence = generator.random(500)**0.3
    correct = generator.random(500) < confidence**2
    calibration = Calibration()
    for part in np.array_split(np.arange(500), 3):
        calibration.update(torch.from_numpy(confidence[part]), torch.from_numpy(correct[part]))
    expected = 0.
    for m in range(15):
        inside = [i for i in range(500) if m / 15 < confidence[i] <= (m + 1) / 15]
        if inside:
            expected += abs(sum(correct[inside]) - sum(confidence[inside])) / 500
    assert calibration.error == pytest.approx(expected) and expected > 0.1


def test_without_positions():
    assert math.isnan(Calibration().error)


def test_the_ends_are_in_a_bin():
    calibration = Calibration(bins=4)
    calibration.update(torch.tensor([0., 1.]), torch.tensor([False, True]))
    assert calibration.count.tolist() == [1, 0, 0, 1] and calibration.error == 0

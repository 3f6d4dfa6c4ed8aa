"""Confusion and IoU against mmseg's IoUMetric and a hand count."""
import numpy as np
import pytest
import torch

from mmseg_kd.evaluation.confusion import accuracy, confusion_matrix, iou, row_shares


def test_by_hand():
    labels, predicted = torch.tensor([[0, 0, 1], [2, 255, 1]]), torch.tensor([[0, 1, 1], [0, 2, 1]])
    matrix = confusion_matrix(predicted, labels, 4)
    assert matrix.tolist() == [[1, 1, 0, 0], [0, 2, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert accuracy(matrix) == 3 / 5
    np.testing.assert_allclose(iou(matrix), [1 / 3, 2 / 3, 0, np.nan])
    assert row_shares(matrix)[0].tolist() == [0.5, 0.5, 0, 0] and row_shares(matrix)[3].sum() == 0


def test_iou_is_that_of_mmseg():
    from mmseg.evaluation.metrics import IoUMetric
    generator = torch.Generator().manual_seed(0)
    labels, predicted = (torch.randint(5, (20, 30), generator=generator) for _ in range(2))
    labels[:3] = 255
    areas = IoUMetric.intersect_and_union(predicted, labels, 5, 255)
    expected = (areas[0] / areas[1]).numpy()
    np.testing.assert_allclose(iou(confusion_matrix(predicted, labels, 5)), expected)
    assert accuracy(confusion_matrix(predicted, labels, 5)) == pytest.approx(
        ((predicted == labels).sum() / (labels != 255).sum()).item())

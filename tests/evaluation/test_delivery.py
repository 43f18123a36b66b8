"""Requested against delivered, and Dice against its definition."""

import numpy as np
import pytest
import torch

from oneprior.core import InputError, Rows
from oneprior.evaluation import amount_agreement, dice, label_accuracy


def test_labels_by_class() -> None:
    found = label_accuracy(torch.tensor([0, 0, 1, 1, 1, 2]), torch.tensor([0, 1, 1, 1, 2, 2]), classes=4)
    assert found.value == pytest.approx(4 / 6)
    assert found.by_class.tolist()[:3] == pytest.approx([1 / 2, 2 / 3, 1])
    assert torch.isnan(found.by_class[3])
    assert found.confusion[0].tolist() == [1, 1, 0, 0]


def test_slope_and_its_error_are_those_of_least_squares() -> None:
    requested = Rows(50, seed=1).normal(dtype=torch.float64)
    delivered = 0.8 * requested + 0.1 + 0.05 * Rows(50, seed=2).normal(dtype=torch.float64)
    found = amount_agreement(requested, delivered)
    (slope, intercept), covariance = np.polyfit(requested.numpy(), delivered.numpy(), 1, cov=True)
    assert found.slope == pytest.approx(slope, rel=1e-9)
    assert found.intercept == pytest.approx(intercept, rel=1e-9)
    assert found.slope_error == pytest.approx(covariance[0, 0] ** 0.5, rel=1e-6)
    assert found.correlation == pytest.approx(np.corrcoef(requested, delivered)[0, 1], rel=1e-9)


def test_one_amount_has_no_slope() -> None:
    with pytest.raises(InputError, match="more than one requested amount"):
        amount_agreement(torch.ones(5), torch.arange(5.0))


def test_dice_of_volumes_by_class() -> None:
    a = Rows(3, seed=1).integers(3, 4, 5, 6)
    b = Rows(3, seed=2).integers(3, 4, 5, 6)
    found = dice(a, b, 3)
    for row in range(3):
        for k in (1, 2):
            both = int(((a[row] == k) & (b[row] == k)).sum())
            assert float(found[row, k - 1]) == 2 * both / int((a[row] == k).sum() + (b[row] == k).sum())
    assert torch.isnan(dice(torch.zeros(1, 4).bool(), torch.zeros(1, 4).bool())).all()

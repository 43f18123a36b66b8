"""Modes are counted as a person would count them."""

import math

import pytest
import torch

from oneprior.core import InputError, Rows, ShapeError
from oneprior.evaluation import label_modes, modes_recovered


def test_a_ring_with_one_mode_missing():
    angle = torch.arange(8) * (2 * math.pi / 8)
    centres = torch.stack([angle.cos(), angle.sin()], 1)
    x = centres[:7].repeat(100, 1) + 0.02 * Rows(700, seed=1).normal(2)
    far = torch.full((100, 2), 5.0)
    result = modes_recovered(torch.cat([x, far]), centres, radius=0.12)
    assert (result.recovered, result.total) == (7, 8)
    assert result.near == pytest.approx(7 / 8)
    assert result.divergence == pytest.approx(math.log(8 / 7))


def test_label_frequencies():
    assert label_modes(torch.arange(10).repeat(3), 10).divergence == pytest.approx(0.0, abs=1e-12)
    one = label_modes(torch.zeros(30, dtype=torch.int64), 10)
    assert (one.recovered, one.divergence) == (1, pytest.approx(math.log(10)))
    rare = label_modes(torch.tensor([0, 0, 0, 1]), 2, frequencies=torch.tensor([3.0, 1.0]), at_least=2)
    assert (rare.recovered, rare.divergence) == (1, pytest.approx(0.0, abs=1e-12))
    assert label_modes(torch.zeros(0, dtype=torch.int64), 3).divergence == math.inf


def test_errors():
    with pytest.raises(ShapeError, match="one shape"):
        modes_recovered(torch.zeros(3, 2), torch.zeros(3, 3), 1.0)
    with pytest.raises(InputError, match="needed 0 to 2"):
        label_modes(torch.tensor([3]), 3)


def test_a_class_that_is_not_in_the_data_and_not_drawn_costs_nothing():
    found = label_modes(torch.tensor([0, 1, 0, 1]), 3, frequencies=torch.tensor([0.5, 0.5, 0.0]))
    assert found.divergence == 0.0

"""Numbers that can hardly be meant as they stand are told before the work; those that can be are not."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch

from oneprior.core import AffineMap
from oneprior.tasks.measurement import measured
from oneprior.tasks.plausible import doubt_values

LEVELS = AffineMap.from_range(0, 255)
PICTURE = torch.linspace(0, 255, 64).round().reshape(1, 1, 8, 8)


def doubts(y, noise, units=LEVELS, operator="identity", shape=(1, 8, 8)):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        doubt_values(measured(y, operator, noise, torch.Size(shape), units))
    return [str(one.message) for one in told]


@pytest.mark.parametrize("noise", ["5%", "0", "0.3", "unknown", "poisson:20"])
def test_usual_levels_are_not_doubted(noise):
    assert doubts(PICTURE, noise) == []


def test_a_share_written_as_a_number_is_told():
    (said,) = doubts(PICTURE, "0.05")
    assert said.startswith("the noise, 0.05, is less than the rounding of the measurement to whole numbers, 0.29")
    assert "a share of the range is written 5%" in said
    assert doubts(PICTURE + 0.25, "0.05") == []  # not whole numbers
    assert doubts(PICTURE / 255, "0.05", AffineMap.from_range(0, 1)) == []
    assert doubts((PICTURE > 99).float(), "0.05", AffineMap.from_range(0, 1)) == []  # yes and no


def test_noise_above_all_values_is_told():
    (said,) = doubts(PICTURE, "9000")
    assert said.startswith("the noise, 9e+03, is more than any value of the measurement, 255 at most")
    assert doubts(PICTURE, torch.tensor([600.0]))


def test_numbers_of_numpy_are_taken():
    import oneprior
    from oneprior.priors.gaussian import LowRankGaussian

    prior = LowRankGaussian(torch.zeros(1, 4, 4), torch.eye(16)[:, :1], torch.ones(1), 0.3)
    y: Any = np.zeros((1, 1, 4, 4), np.float32)
    found = oneprior.restore(prior, y, operator="identity", noise=0.1, samples=3)
    assert found.mean.shape == (1, 1, 4, 4)

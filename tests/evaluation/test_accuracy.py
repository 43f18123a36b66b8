"""Accuracy against closed forms, brute force and scikit-image."""

import math

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio

from oneprior.core import InputError, Rows, ShapeError
from oneprior.evaluation import crps, mse, psnr


def test_psnr_is_that_of_scikit_image():
    rows = Rows(5, seed=1)
    x, y = rows.uniform(3, 8, 9) * 2 - 1, rows.uniform(3, 8, 9) * 2 - 1
    expected = [peak_signal_noise_ratio(b, a, data_range=2.0) for a, b in zip(x.numpy(), y.numpy(), strict=True)]
    np.testing.assert_allclose(psnr(x, y).numpy(), expected, rtol=1e-6)
    assert psnr(x, y).dtype == torch.float64


def test_psnr_of_a_known_error():
    x = torch.zeros(2, 1, 4, 4)
    assert torch.allclose(psnr(x, x + 0.2), torch.full((2,), 20.0, dtype=torch.float64), atol=1e-5)
    assert bool(torch.isinf(psnr(x, x)).all())
    assert torch.allclose(mse(x, x + 0.5), torch.full((2,), 0.25, dtype=torch.float64))


def test_wrong_inputs_are_named():
    x = torch.zeros(2, 1, 4)
    with pytest.raises(ShapeError, match="Compare row by row"):
        psnr(x, x[:1])
    with pytest.raises(InputError, match="data_range > 0"):
        psnr(x, x, data_range=0.0)
    with pytest.raises(InputError, match="at least 2 draws"):
        crps(x[None], x)
    with pytest.raises(ShapeError):
        crps(x, x)


def test_crps_is_its_double_sum():
    rows = Rows(6, seed=2)
    draws, x = rows.normal(4, 2, 3).movedim(1, 0), rows.normal(2, 3)
    d = draws.double()
    pairs = (d[:, None] - d[None]).abs().sum((0, 1)) / (4 * 3)
    expected = ((d - x.double()).abs().mean(0) - pairs / 2).flatten(1).mean(1)
    assert torch.allclose(crps(draws, x), expected, atol=1e-7)


@pytest.mark.parametrize("count", [2, 5, 19])
def test_fair_crps_is_unbiased_for_any_number_of_draws(count):
    """E CRPS(N(0, 1), N(0, 1)) = 1 / sqrt(pi): the expected absolute difference of two draws, halved."""
    rows = Rows(4000, seed=3)
    score = crps(rows.normal(count, 1).movedim(1, 0), rows.normal(1))
    error = float(score.std()) / math.sqrt(len(score))
    assert abs(float(score.mean()) - 1 / math.sqrt(math.pi)) < 4 * error


def test_crps_prefers_the_truth():
    rows = Rows(2000, seed=4)
    u, x = rows.normal(19, 1).movedim(1, 0), rows.normal(1)
    exact = crps(u, x)
    for other in (0.5 * u, 2.0 * u, u + 0.5):
        gap = crps(other, x) - exact
        assert float(gap.mean()) > 4 * float(gap.std()) / math.sqrt(len(gap))


def test_inside_a_region_only_its_entries_count() -> None:
    rows = Rows(3, seed=1)
    x, y = rows.normal(2, 6, 5), rows.normal(2, 6, 5)
    mask = torch.zeros(1, 1, 6, 5, dtype=torch.bool)
    mask[..., 1:4, 2:] = True
    assert torch.allclose(mse(x, y, mask), mse(x[..., 1:4, 2:], y[..., 1:4, 2:]), rtol=1e-12)
    assert torch.allclose(psnr(x, y, mask=mask), psnr(x[..., 1:4, 2:], y[..., 1:4, 2:]), rtol=1e-12)
    assert torch.isnan(mse(x, y, torch.zeros_like(mask))).all()

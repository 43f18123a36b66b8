"""Bits per dimension: closed forms, and the bound that dequantisation promises."""

import math

import pytest
import torch

from oneprior.core import AffineMap, InputError, Rows, ShapeError
from oneprior.evaluation.bits import bin_width, bits_per_dimension, dequantise


def test_a_uniform_law_over_the_levels_has_log2_levels_bits():
    for levels in (2, 256, 65536):
        density = 1 / (levels * bin_width(levels))  # over all bins, the outer ones reaching beyond [-1, 1]
        log_prob = torch.full((5,), 12 * math.log(density), dtype=torch.float64)
        bits = bits_per_dimension(log_prob, (3, 4), levels)
        assert bits.mean == pytest.approx(math.log2(levels), rel=1e-12)
        assert bits.standard_error == 0.0


def test_a_map_to_whole_units_is_the_same_as_the_number_of_levels():
    log_prob = Rows(20, seed=1).normal(dtype=torch.float64)
    units = AffineMap.from_range(-1000.0, 3095.0)
    a, b = (bits_per_dimension(log_prob, (1, 7), levels) for levels in (units, 4096))
    torch.testing.assert_close(a.each, b.each)
    assert a.standard_error == pytest.approx(float(a.each.std()) / math.sqrt(20))


def test_continuous_bits_are_the_density_s_own():
    log_prob = torch.tensor([math.log(2.0) * 6])
    assert bits_per_dimension(log_prob, (6,), None).mean == pytest.approx(-1.0)


def test_dequantised_events_fill_their_bins_evenly():
    value = Rows(4000, seed=2).integers(8, 5)
    x = value.float() * 2 / 7 - 1
    noisy = dequantise(x, Rows(4000, seed=3), 8)
    place = (noisy.double() - x.double()) / bin_width(8)
    assert float(place.abs().max()) <= 0.5
    assert abs(float(place.mean())) < 4 * math.sqrt(1 / 12 / place.numel())
    assert abs(float(place.square().mean()) - 1 / 12) < 4 * math.sqrt(1 / 180 / place.numel())
    torch.testing.assert_close(noisy[5:9], dequantise(x[5:9], Rows(range(5, 9), seed=3), 8), rtol=0, atol=0)


def test_the_bits_bound_those_of_the_discrete_data():
    """Coins of 4 levels under a Gaussian: -log2 of the mass in each bin is exact, and the bits lie above it."""
    levels, width = 4, bin_width(4)
    value = Rows(20_000, seed=4).integers(levels, 1)
    x = value.double() * width - 1
    law = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), 0.5)
    exact = -(law.cdf(x + width / 2) - law.cdf(x - width / 2)).log2().flatten()
    bits = bits_per_dimension(law.log_prob(dequantise(x, Rows(20_000, seed=5), levels)).flatten(), (1,), levels)
    gap = bits.each - exact
    # the gap is Jensen's: log of the mean of the density in a bin, less the mean of its log
    u = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000 - 0.5
    density = law.log_prob((torch.arange(levels).double() * width - 1)[:, None] + width * u)
    expected = (torch.logsumexp(density, 1) - math.log(2000) - density.mean(1)) / math.log(2)
    expected = expected[value.flatten()]
    assert float(expected.min()) > 0
    error = float((gap - expected).std()) / math.sqrt(len(gap))
    assert abs(float((gap - expected).mean())) < 4 * error


def test_errors():
    with pytest.raises(InputError, match="off their levels"):
        dequantise(torch.tensor([[0.1]]), Rows(1), 256)
    with pytest.raises(InputError, match="at least 2 levels"):
        bits_per_dimension(torch.zeros(2), (1,), 1)
    with pytest.raises(InputError, match="nan"):
        bits_per_dimension(torch.tensor([math.nan]), (1,))
    with pytest.raises(InputError, match="at least one event"):
        bits_per_dimension(torch.zeros(0), (1,))
    with pytest.raises(ShapeError, match="one number for each event"):
        bits_per_dimension(torch.zeros(2, 2), (1,))
    with pytest.raises(ShapeError, match="one row for each"):
        dequantise(torch.zeros(2, 1), Rows(3), 3)

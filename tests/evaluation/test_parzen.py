"""The protocol of 2014 against its own formula, written as plainly as the published code writes it."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from oneprior.core import InputError, Rows, ShapeError
from oneprior.evaluation import parzen_log_likelihood
from oneprior.evaluation.parzen import BANDWIDTHS


def _plain(samples: np.ndarray, x: np.ndarray, width: float) -> np.ndarray:
    densities = [multivariate_normal.pdf(x, mean, width**2) for mean in samples]
    return np.log(np.mean(densities, 0))


def test_the_grid_is_that_of_the_published_code():
    np.testing.assert_allclose(BANDWIDTHS, np.logspace(-1, 0, 10), rtol=1e-12)


def test_matches_the_formula_and_chooses_on_held_out_events():
    rows = Rows(60, seed=1)
    events = rows.uniform(1, 2, 3) * 2 - 1
    samples, held, test = events[:20], events[20:40], events[40:]
    unit = [((e.double() + 1) / 2).flatten(1).numpy() for e in (samples, held, test)]
    best = max(BANDWIDTHS, key=lambda width: _plain(unit[0], unit[1], width).mean())
    expected = _plain(unit[0], unit[2], best)
    result = parzen_log_likelihood(samples, held, test, chunk=7)
    assert result.bandwidth == pytest.approx(best)
    assert result.mean == pytest.approx(expected.mean(), rel=1e-9)
    assert result.standard_error == pytest.approx(expected.std(ddof=1) / math.sqrt(20), rel=1e-9)
    np.testing.assert_allclose(result.log_likelihood.numpy(), expected, rtol=1e-9)


def test_only_the_first_thousand_held_out_events_choose():
    rows = Rows(1200, seed=2)
    held = rows.normal(2) * 0.3
    other = torch.cat([held[:1000], held[1000:] + 5])
    samples = Rows(300, seed=3).normal(2) * 0.3
    a = parzen_log_likelihood(samples, held, held[:50])
    b = parzen_log_likelihood(samples, other, held[:50])
    assert a.bandwidth == b.bandwidth


def test_smoothness_is_rewarded():
    """What Parzen does not rank: the mean of the data beats the data's own law when samples are few."""
    rows = Rows(600, seed=4)
    x = (rows.normal(64) * 0.5).reshape(600, 1, 8, 8)
    sharp = parzen_log_likelihood(x[:100], x[100:200], x[200:])
    smooth = parzen_log_likelihood(0.2 * x[:100], x[100:200], x[200:])
    assert smooth.mean > sharp.mean + 2 * smooth.standard_error


def test_errors():
    x = torch.zeros(4, 1, 3)
    with pytest.raises(ShapeError, match="test events"):
        parzen_log_likelihood(x, x, x[..., :2])
    with pytest.raises(InputError, match="0 held out"):
        parzen_log_likelihood(x, x[:0], x)
    with pytest.raises(InputError, match="nan"):
        parzen_log_likelihood(x / 0, x, x)

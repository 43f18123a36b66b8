"""Restoration under every law of noise: chosen methods, diagnostics, and the same answer in any units."""

import pytest
import torch

from oneprior.core import AffineMap, Rows
from oneprior.inference import HMC
from oneprior.priors.gaussian import LowRankGaussian
from oneprior.tasks import restore, simulate

SHAPE = (1, 4, 5)
LAWS = ["laplace:5%", "rician:5%", "outliers:5%", "unknown", "poisson:50"]


def problem(words, scale=1.0, n=3):
    """A smooth Gaussian law inside its range, measured in the units [0, scale]."""
    basis = torch.linalg.qr(Rows(20, seed=0).normal(3))[0]
    law = LowRankGaussian(torch.full(SHAPE, 0.2), basis, torch.tensor([0.8, 0.4, 0.2]), 0.01)
    x = law.sample(Rows(n, seed=3)).clamp(-1, 1)
    return law, simulate(x, "mask:left", words, Rows(n, seed=9), units=AffineMap.from_range(0.0, scale))


@pytest.mark.parametrize("words", LAWS)
def test_every_law_is_restored_by_the_table(words):
    law, measurement = problem(words)
    result = restore(law, measurement, aim="fast")
    assert result.method == ("closed form, noise level drawn" if words.startswith("unknown") else "hmc")
    assert result.exact
    error = (result.mean - measurement.truth).square().mean().sqrt()
    assert error < 0.8 * float((0.6 - measurement.truth).square().mean().sqrt())  # the prior's mean
    assert ((result.diagnostics["misfit"] > 0.3) & (result.diagnostics["misfit"] < 2)).all()


@pytest.mark.parametrize("words", ["5%", *LAWS])
def test_data_and_range_times_255_give_the_same_restoration(words):
    method = None if words == "5%" else HMC(chains=2, warmup=4, leapfrog=2, thin=1, step_size=0.02)
    draws = []
    for scale in (1.0, 255.0):
        law, measurement = problem(words, scale)
        draws.append(restore(law, measurement, samples=4, method=method).draws / scale)
    assert torch.allclose(draws[0], draws[1], atol=1e-3)

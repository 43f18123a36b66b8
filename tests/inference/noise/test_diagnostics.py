"""Effective sample size and R-hat against chains whose values are known."""

import pytest
import torch

from oneprior.core import Rows
from oneprior.inference.noise import effective_sample_size, split_r_hat


def autoregressive(correlation, states=4000, chains=4, n=8):
    """x_t = rho x_(t-1) + noise, started in its own law."""
    noise = Rows(1, seed=2).normal(states, chains, n, dtype=torch.float64)[0]
    x = torch.empty_like(noise)
    x[0] = noise[0] / (1 - correlation**2) ** 0.5
    for t in range(1, states):
        x[t] = correlation * x[t - 1] + noise[t]
    return x


@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.6, 0.9])
def test_effective_sample_size_of_an_autoregression(correlation):
    """S C (1 - rho) / (1 + rho), and what it says of the error of a mean is true."""
    x = autoregressive(correlation)
    wanted = 16000 * (1 - correlation) / (1 + correlation)
    assert abs(float(effective_sample_size(x).mean()) / wanted - 1) < 0.1
    error = x.mean((0, 1)) / (1 / (1 - correlation**2) / effective_sample_size(x)).sqrt()
    assert error.abs().max() < 4


def test_effective_sample_size_ends_at_the_number_of_states_and_never_reads_one_chain_as_many():
    assert (effective_sample_size(autoregressive(-0.5)) == 16000).all()
    apart = autoregressive(0.0, n=2) + 5.0 * torch.arange(4.0)[:, None]
    assert (effective_sample_size(apart) < 40).all()


def test_r_hat_of_shifted_chains():
    """Chains of variance 1 around centres of variance B: sqrt(1 + B); halves count, so a drift is seen too."""
    x = autoregressive(0.0, n=2)
    centres = torch.tensor([-1.0, 0.0, 0.0, 1.0], dtype=torch.float64)[:, None]
    halves = torch.cat([centres, centres]).var()
    assert (split_r_hat(x + centres) - (1 + halves).sqrt()).abs().max() < 0.03
    drift = torch.linspace(-1, 1, 4000, dtype=torch.float64)[:, None, None]
    assert (split_r_hat(x + drift) > 1.1).all()
    assert (split_r_hat(x) - 1).abs().max() < 0.003

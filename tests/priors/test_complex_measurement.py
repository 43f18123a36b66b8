"""The exact posterior under complex measurements: both parts carry noise, and the dense formula is met."""

import math

import pytest
import torch

from oneprior.core import Rows
from oneprior.inference.closed_form import exact_posterior
from oneprior.likelihoods import GaussianLikelihood
from oneprior.operators import parse_operator
from oneprior.priors import linear_gaussian
from oneprior.priors.gaussian import LowRankGaussian
from oneprior.priors.linear_gaussian import DENSE_LIMIT

WORDS = ["mri:random:2:seed=1", "mri:random:2:coils=3", "mri:radial:4", "mri:equispaced:2 + mask:left"]


def _prior(shape):
    d = math.prod(shape)
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(d, 6, generator=generator, dtype=torch.float64)).Q
    mean = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return LowRankGaussian(mean, basis, torch.linspace(0.3, 3, 6, dtype=torch.float64), 0.2)


@pytest.mark.parametrize("words", WORDS)
@pytest.mark.parametrize("shape", [(1, 7, 8), (2, 6, 5)])
@pytest.mark.parametrize("levels", [0.3, (0.3, 0.1)])
def test_mean_variance_evidence_and_draws(words, shape, levels):
    operator, prior = parse_operator(words, shape), _prior(shape)
    d = math.prod(shape)
    x = prior.sample(Rows(2))
    clean = operator(x)
    white = torch.view_as_complex(Rows(2, seed=4).normal(*operator.out_shape, 2, dtype=torch.float64))
    sigma = torch.as_tensor(levels, dtype=torch.float64)
    y = clean + sigma.expand(2).reshape(2, *[1] * len(operator.out_shape)) * white
    exact = exact_posterior(prior, GaussianLikelihood(y, operator, sigma))

    dense = operator.dense()
    a = torch.cat([dense.real, dense.imag])
    s = prior.basis @ torch.diag(prior.variances) @ prior.basis.T + 0.2 * torch.eye(d, dtype=torch.float64)
    draws = exact.sample(Rows(2, seed=9), 400)
    for i in range(2):
        level = float(sigma.expand(2)[i])
        flat = torch.cat([y[i].flatten().real, y[i].flatten().imag])
        m = a @ s @ a.T + level**2 * torch.eye(len(a), dtype=torch.float64)
        gain = torch.linalg.solve(m, a @ s).T
        centre = prior.mean.flatten() + gain @ (flat - a @ prior.mean.flatten())
        covariance = s - gain @ a @ s
        assert torch.allclose(exact.mean()[i].flatten(), centre, atol=1e-10)
        assert torch.allclose(exact.covariance_diag()[i].flatten(), covariance.diagonal(), atol=1e-10)
        law = torch.distributions.MultivariateNormal(a @ prior.mean.flatten(), m)
        assert float(exact.log_evidence[i]) == pytest.approx(float(law.log_prob(flat)), rel=1e-10)
        z = (draws[:, i].flatten(1).mean(0) - centre) / (covariance.diagonal() / 400).sqrt()
        assert float(z.square().mean()) == pytest.approx(1, abs=0.7)
        share = draws[:, i].flatten(1).var(0) / covariance.diagonal()
        assert float(share.mean()) == pytest.approx(1, abs=0.05)


def test_without_noise_a_full_scan_gives_the_picture():
    operator, prior = parse_operator("mri:full", (1, 6, 7)), _prior((1, 6, 7))
    x = prior.sample(Rows(2))
    exact = exact_posterior(prior, GaussianLikelihood(operator(x), operator, 0.0))
    assert torch.allclose(exact.mean(), x, atol=1e-8)
    assert float(exact.covariance_diag().abs().max()) < 1e-8


@pytest.mark.parametrize("levels", [0.3, (0.3, 0.05)])
def test_more_measurements_than_entries_are_solved_among_the_entries(levels, monkeypatch):
    shape = (1, 7, 8)
    operator, prior = parse_operator("mri:random:2:coils=5", shape), _prior(shape)
    sigma = torch.as_tensor(levels, dtype=torch.float64)
    white = torch.view_as_complex(Rows(2, seed=4).normal(*operator.out_shape, 2, dtype=torch.float64))
    likelihood = GaussianLikelihood(operator(prior.sample(Rows(2))) + 0.2 * white, operator, sigma)
    plain = exact_posterior(prior, likelihood)
    wanted = plain.mean(), plain.covariance_diag(), plain.log_evidence
    monkeypatch.setattr(linear_gaussian, "DENSE_LIMIT", 100)
    assert 2 * operator.out_shape.numel() > 100
    other = exact_posterior(prior, likelihood)
    assert type(other._innovation).__name__ == "_Normal"
    for found, expected in zip((other.mean(), other.covariance_diag(), other.log_evidence), wanted, strict=True):
        assert torch.allclose(found, expected, rtol=1e-9, atol=1e-11)
    single = likelihood.y.to(torch.complex64)
    small = exact_posterior(prior, GaussianLikelihood(single, operator, sigma.float()))
    assert torch.allclose(small.mean().double(), wanted[0], atol=1e-4)
    monkeypatch.setattr(linear_gaussian, "NORMAL_LIMIT", 10)
    last = exact_posterior(prior, likelihood)
    assert not last.has_evidence
    assert torch.allclose(last.mean(), wanted[0], atol=1e-7)


def test_many_measurements_are_solved_by_iteration():
    shape = (2, 50, 50)
    operator, prior = parse_operator("mri:random:1.1:center=0.1", shape), _prior(shape)
    x = prior.sample(Rows(1))
    y = operator(x) + 0.1 * torch.view_as_complex(Rows(1).normal(*operator.out_shape, 2, dtype=torch.float64))
    assert 2 * y[0].numel() > DENSE_LIMIT
    exact = exact_posterior(prior, GaussianLikelihood(y, operator, 0.1))
    mean = exact.mean()
    data = operator.adjoint(y - operator(mean)) / 0.01
    pull = prior.covariance().power(-1)((mean - prior.mean).reshape(1, -1)).reshape(mean.shape)
    assert torch.allclose(data, pull, atol=1e-6)  # the gradient of the log posterior is zero

"""A decoder with a residual: integrated out and drawn again, against one dense Gaussian; and the whitener's law."""

import pytest
import torch

from oneprior.core import Rows
from oneprior.inference import HMC, ClosedForm, bayes
from oneprior.laws import check_operator, check_prior
from oneprior.likelihoods import GaussianLikelihood
from oneprior.operators import Affine, Matrix, Operator, compose, parse_operator
from oneprior.priors import linear_gaussian
from oneprior.priors import residual as module
from oneprior.priors.base import StandardNormal
from oneprior.priors.gaussian import LowRankGaussian
from oneprior.priors.pushforward import push
from oneprior.priors.residual import Residual, Residue, Scale, Whitener, with_residual

SHAPE = (1, 3, 4)


def residual(seed=5):
    rows = Rows(12, seed=seed)
    basis = torch.linalg.qr(rows.normal(2, dtype=torch.float64))[0]
    mean = 0.1 * rows.normal(1, dtype=torch.float64).reshape(SHAPE)
    law = LowRankGaussian(mean, basis, torch.tensor([0.3, 0.1]).double(), 0.02)
    return Residual(law, 0.5 + rows.uniform(1, dtype=torch.float64).reshape(SHAPE))


def decoder():
    rows = Rows(12, seed=1)
    offset = 0.3 * rows.normal(1, dtype=torch.float64).reshape(SHAPE)
    return Affine(Matrix(rows.normal(4, dtype=torch.float64), (4,), SHAPE), offset)


def dense(e):
    """The covariance of e, and beside it that of the law inside."""
    law, scale = e.law, e.scale.flatten()
    inner = (law.basis * law.variances) @ law.basis.T + law.noise_variance * torch.eye(12).double()
    return scale[:, None] * inner * scale


def evidence(words, noise, n=3):
    operator = Matrix(Rows(5, seed=8).normal(12, dtype=torch.float64), SHAPE) if words == "matrix" else None
    operator = operator or parse_operator(words, SHAPE)
    y = Rows(n, seed=3).normal(*operator.out_shape, dtype=torch.float64)
    return GaussianLikelihood(y, operator, noise)


@pytest.mark.parametrize("words", ["mask:left", "downsample:2", "matrix"])
@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_posterior_mean_covariance_and_evidence_are_those_of_the_whole_gaussian(words, noise):
    e, f, likelihood = residual(), decoder(), evidence(words, noise)
    prior = with_residual(push(StandardNormal((4,)), f, torch.Size(SHAPE)), e)
    W, A = f.part.dense(), likelihood.operator.dense()
    S, mean = W @ W.T + dense(e), (f.offset + e.scale * e.law.mean).flatten()
    M = A @ S @ A.T + noise**2 * torch.eye(len(A)).double()
    gain = torch.linalg.solve(M, A @ S).T
    centre = mean + (likelihood.y.flatten(1) - A @ mean) @ gain.T
    covariance = S - gain @ A @ S
    posterior = bayes(prior, likelihood)
    draws = ClosedForm()(posterior, 4000, Rows(3, seed=2))
    assert torch.allclose(draws.mean().flatten(1), centre, atol=1e-8)
    law = torch.distributions.MultivariateNormal(A @ mean, M)
    assert torch.allclose(draws.diagnostics["log_evidence"], law.log_prob(likelihood.y.flatten(1)), atol=1e-6)
    x = draws.x.flatten(2)
    z = (x.mean(0) - centre) / (covariance.diagonal().clamp_min(1e-12) / 4000).sqrt()
    assert z.abs().max() < 4.5
    sample = torch.stack([torch.cov(x[:, i].T) for i in range(3)])
    scale = covariance.diagonal().clamp_min(1e-9)
    error = ((scale[:, None] * scale + covariance.square()) / 4000).sqrt()
    assert ((sample - covariance).abs() / error).max() < 5
    assert posterior.residue is not None


def test_the_same_draw_alone_and_in_a_batch():
    prior = with_residual(push(StandardNormal((4,)), decoder(), torch.Size(SHAPE)), residual())
    likelihood = evidence("mask:left", 0.2)
    both = ClosedForm()(bayes(prior, likelihood), 5, Rows(3, seed=2))
    alone = ClosedForm()(bayes(prior, likelihood.take(torch.tensor([2]))), 5, Rows([2], seed=2))
    assert torch.allclose(alone.x[:, 0], both.x[:, 2], atol=1e-9)


@pytest.mark.parametrize("words", ["mask:left", "downsample:2", "matrix"])
@pytest.mark.parametrize("limit", [4096, 1])
def test_the_whitener_whitens(words, limit, monkeypatch):
    monkeypatch.setattr(module, "DENSE_LIMIT", limit)
    e, likelihood = residual(), evidence(words, 0.1)
    seen = GaussianLikelihood(likelihood.y, compose(likelihood.operator, Scale(e.scale)), 0.1)
    F, A = Whitener(e.law, seen), likelihood.operator.dense()
    check_operator(F)
    M = A @ dense(e) @ A.T + 0.01 * torch.eye(len(A)).double()
    unit = F.dense() @ M @ F.dense().T
    exact = words != "matrix" or limit == 4096
    assert (unit - torch.eye(len(A)).double()).abs().max() < (1e-6 if exact else 2e-3)
    assert F.log_volume == pytest.approx(float(-0.5 * torch.logdet(M)), abs=1e-6 if exact else 0.6)


@pytest.mark.parametrize(
    ("words", "noise"),
    [("blur:gaussian:1", 0.3), ("mri:random:2:coils=3", 0.3), ("blur:motion:3 bicubic:2", 0.1), ("blur:gaussian:1", 0)],
)
def test_many_measurements_are_whitened_by_a_series(words, noise, monkeypatch):
    """In every direction, not on average: low frequencies of a blur pass in full, high ones hardly."""
    shape = (1, 7, 8)
    basis = torch.linalg.qr(Rows(56).normal(2, dtype=torch.float64))[0]
    law = LowRankGaussian(torch.zeros(shape).double(), basis, torch.tensor([0.5, 0.2]).double(), 0.1)
    operator = parse_operator(words, shape)
    y = operator(Rows(1).normal(*shape, dtype=torch.float64))
    A = operator.dense()
    A = torch.cat([A.real, A.imag], 1).reshape(-1, 56) if A.is_complex() else A
    M = A @ ((law.basis * law.variances) @ law.basis.T + 0.1 * torch.eye(56)) @ A.T + noise**2 * torch.eye(len(A))
    monkeypatch.setattr(module, "DENSE_LIMIT", 1)
    monkeypatch.setattr(linear_gaussian, "DENSE_LIMIT", 1)
    F = Whitener(law, GaussianLikelihood(y, operator, noise))
    assert F.series is not None
    spectrum = torch.linalg.eigvalsh(F.dense() @ M @ F.dense().T)
    assert float(spectrum.max()) < 1.003  # never surer than it may be
    if noise:
        check_operator(F)
        assert float(spectrum.min()) > 0.997


def test_noise_road_over_both_for_evidence_that_cannot_be_integrated():
    """The joint law of (z, e) serves where the instrument is not linear."""
    prior = with_residual(
        push(StandardNormal((4,)), decoder().float(), torch.Size(SHAPE)), residual().to(torch.float32)
    )
    check_prior(prior)
    x = prior.sample(Rows(20000, seed=0)).flatten(1).double()
    W = decoder().part.dense()
    expected = W @ W.T + dense(residual())
    assert (torch.cov(x.T) - expected).abs().max() < 0.15
    HMC().check(bayes(prior, GaussianLikelihood(torch.zeros(2, *SHAPE), _Square(), 0.1)))
    assert not Residue.serves(GaussianLikelihood(torch.zeros(2, *SHAPE), _Square(), 0.1))


class _Square(Operator):
    """x^2: not linear."""

    def __init__(self):
        super().__init__()
        self.in_shape = self.out_shape = torch.Size(SHAPE)

    def apply(self, x):
        return x.square()

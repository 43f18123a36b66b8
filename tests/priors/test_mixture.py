"""Mixtures and exact posteriors against brute force in float64."""

import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from oneprior.core import IncompatiblePrior, InputError, Rows, ShapeError
from oneprior.laws import check_prior
from oneprior.likelihoods import GaussianLikelihood
from oneprior.operators import LinearOperator, Matrix, parse_operator
from oneprior.priors import linear_gaussian
from oneprior.priors.diffusion.schedules import EDMSchedule, RectifiedFlow
from oneprior.priors.exact import GaussianPosterior
from oneprior.priors.gaussian import LowRankGaussian
from oneprior.priors.mixture import ClosedFormDenoiser, GaussianMixturePrior

SHAPE = (1, 3, 4)
EYE = torch.eye(12, dtype=torch.float64)


def gaussian(seed, dtype=torch.float64, rank=3):
    rows = Rows(12, seed=seed)
    basis = torch.linalg.qr(rows.normal(rank, dtype=dtype))[0]
    mean = 0.7 * rows.normal(1, dtype=dtype).reshape(SHAPE)
    return LowRankGaussian(mean, basis, torch.linspace(1.5, 0.2, rank, dtype=dtype), 0.05 + 0.02 * seed)


def mixture(dtype=torch.float64):
    return GaussianMixturePrior([gaussian(k, dtype) for k in range(3)], torch.tensor([0.5, 0.2, 0.3], dtype=dtype))


def dense_covariance(law):
    return (law.basis * law.variances) @ law.basis.T + law.noise_variance * EYE


def dense(law, extra=0.0, scale=1.0):
    covariance = torch.stack([scale**2 * dense_covariance(c) + extra * EYE for c in law.components])
    means = torch.stack([scale * c.mean.flatten() for c in law.components])
    return MixtureSameFamily(Categorical(law.weights), MultivariateNormal(means, covariance))


def test_laws():
    check_prior(mixture(torch.float32))
    check_prior(ClosedFormDenoiser(mixture(torch.float32), EDMSchedule(sigma_max=20)))
    check_prior(ClosedFormDenoiser(gaussian(0, torch.float32), RectifiedFlow()))


def test_density_and_responsibilities():
    law = mixture()
    x = law.sample(Rows(8, seed=1)).double()
    assert torch.allclose(law.log_prob(x), dense(law).log_prob(x.flatten(1)), atol=1e-9)
    noised = law.joint(x, 0.6, 0.8).logsumexp(1)
    assert torch.allclose(noised, dense(law, 0.64, 0.6).log_prob(x.flatten(1)), atol=1e-9)


def test_draws_have_the_moments_of_the_law():
    law, n = mixture(), 20_000
    x = law.sample(Rows(n, seed=2)).flatten(1)
    reference = dense(law)
    z = (x.mean(0) - reference.mean) / (reference.variance / n).sqrt()
    assert z.abs().max() < 4
    assert ((x.var(0) / reference.variance) - 1).abs().max() < 0.06


def test_denoiser_is_the_score():
    """Tweedie: E[x | x_t] = (x_t + sigma^2 grad log p(x_t)) / alpha."""
    law, alpha, sigma = mixture(), 0.6, 0.8
    x_t = Rows(6, seed=3).normal(*SHAPE, dtype=torch.float64).requires_grad_()
    (score,) = torch.autograd.grad(dense(law, sigma**2, alpha).log_prob(x_t.flatten(1)).sum(), x_t)
    assert torch.allclose(law.denoise(x_t.detach(), alpha, sigma), (x_t + sigma**2 * score) / alpha, atol=1e-9)


def test_weights_of_rows():
    law = mixture()
    rows = GaussianMixturePrior(law.components, torch.tensor([[1.0, 0, 0], [0, 0, 1.0]], dtype=torch.float64))
    x = law.sample(Rows(4, seed=1)).double()
    expected = torch.stack([law.components[k].log_prob(x)[i] for i, k in enumerate((0, 2, 0, 2))])
    assert torch.allclose(rows.log_prob(x), expected)
    for bad in (torch.zeros(3), torch.tensor([1.0, -1.0, 1.0])):
        with pytest.raises(InputError):
            GaussianMixturePrior(law.components, bad)
    with pytest.raises(ShapeError):
        GaussianMixturePrior(law.components, torch.ones(2))


class Blur(LinearOperator):
    """A dense operator without structure."""

    def __init__(self, complex_=False):
        super().__init__()
        matrix = Rows(7, seed=11).normal(12, dtype=torch.float64)
        self.inner = Matrix(torch.complex(matrix, matrix.flip(1)) if complex_ else matrix, SHAPE)
        self.in_shape, self.out_shape = self.inner.in_shape, self.inner.out_shape

    def apply(self, x):
        return self.inner(x)

    def adjoint(self, y):
        return self.inner.adjoint(y)


OPERATORS = ["mask:left", "downsample:2", "identity", "mask:left downsample:2", "matrix", "complex"]
NOISES = [0.2, torch.tensor([0.2, 0.5, 0.2, 0.1], dtype=torch.float64)]


def brute(law, operator, y, sigma):
    """Posterior weights, mean, covariance and evidence of one row by dense matrices."""
    A = operator.dense()
    if A.is_complex():
        A, y = torch.cat([A.real, A.imag]), torch.cat([y.real, y.imag])
    parts = []
    for weight, c in zip(law.weights, law.components, strict=True):
        S, m = dense_covariance(c), c.mean.flatten()
        M = A @ S @ A.T + sigma**2 * torch.eye(len(A), dtype=torch.float64)
        gain = S @ A.T @ torch.linalg.inv(M)
        evidence = MultivariateNormal(A @ m, M).log_prob(y)
        parts.append((weight.log() + evidence, m + gain @ (y - A @ m), S - gain @ A @ S))
    logs, means, covariances = map(torch.stack, zip(*parts, strict=True))
    weights = logs.softmax(0)
    mean = weights @ means
    second = torch.einsum("k,kij->ij", weights, covariances + means[:, :, None] * means[:, None])
    return mean, second - torch.outer(mean, mean), logs.logsumexp(0)


def problem(name, noise):
    operator = Blur(name == "complex") if name in ("matrix", "complex") else parse_operator(name, SHAPE)
    x = mixture().sample(Rows(4, seed=5)).double()
    y = operator(x)
    y = y + 0.2 * torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(0))
    return operator, y, GaussianLikelihood(y, operator, noise)


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("noise", NOISES, ids=["shared", "rows"])
def test_posterior_is_brute_force(name, noise):
    operator, y, likelihood = problem(name, noise)
    for law in (mixture(), GaussianMixturePrior([gaussian(1)], torch.ones(1, dtype=torch.float64))):
        exact = law.posterior(likelihood)
        mean, variance, evidence = exact.mean(), exact.covariance_diag(), exact.log_evidence
        for i in range(4):
            sigma = torch.as_tensor(noise).expand(4)[i]
            m, c, e = brute(law, operator, y[i].flatten(), sigma)
            assert torch.allclose(mean[i].flatten(), m, atol=1e-8)
            assert torch.allclose(variance[i].flatten(), c.diagonal(), atol=1e-8)
            assert torch.allclose(evidence[i], e, atol=1e-8)


def test_conjugate_gradients_give_the_same_mean(monkeypatch):
    operator, _, likelihood = problem("matrix", NOISES[1])
    expected = GaussianPosterior(gaussian(1), likelihood)
    mean, draws = expected.mean(), expected.sample(Rows(4), 2)
    monkeypatch.setattr(linear_gaussian, "DENSE_LIMIT", 3)
    monkeypatch.setattr(linear_gaussian, "NORMAL_LIMIT", 3)
    iterative = GaussianPosterior(gaussian(1), likelihood)
    assert torch.allclose(iterative.mean(), mean, atol=1e-7)
    assert torch.allclose(iterative.sample(Rows(4), 2), draws, atol=1e-7)
    with pytest.raises(InputError, match="evidence"):
        _ = iterative.log_evidence
    assert operator.out_shape == (7,)


@pytest.mark.parametrize("name", ["mask:left", "downsample:2", "matrix"])
def test_draws_follow_the_posterior(name):
    operator, y, likelihood = problem(name, 0.2)
    law, draws = mixture(), 4000
    x = law.posterior(likelihood).sample(Rows(4, seed=6), draws).flatten(2)
    for i in range(4):
        mean, covariance, _ = brute(law, operator, y[i].flatten(), torch.tensor(0.2))
        z = (x[:, i].mean(0) - mean) / (covariance.diagonal() / draws).sqrt()
        assert z.abs().max() < 4
        centred = x[:, i] - x[:, i].mean(0)
        products = centred[:, :, None] * centred[:, None]
        error = (products.mean(0) - covariance) / (products.std(0) / draws**0.5)
        assert error.abs().max() < 5


@pytest.mark.parametrize("name", ["mask:left", "downsample:2", "matrix"])
def test_noise_zero_is_a_constraint_that_draws_obey(name):
    operator, y, _ = problem(name, 0.2)
    exact = mixture().posterior(GaussianLikelihood(y, operator, 0.0))
    assert torch.allclose(operator(exact.mean()), y, atol=1e-7)
    for draw in exact.sample(Rows(4), 3):
        assert torch.allclose(operator(draw), y, atol=1e-7)


def test_large_noise_gives_the_prior_and_small_noise_the_data():
    operator, y, _ = problem("identity", 0.2)
    law = mixture()
    assert torch.allclose(
        law.posterior(GaussianLikelihood(y, operator, 1e6)).mean().flatten(1),
        dense(law).mean.expand(4, -1),
        atol=1e-6,
    )
    assert torch.allclose(law.posterior(GaussianLikelihood(y, operator, 1e-6)).mean(), y, atol=1e-6)


def test_draws_of_a_row_do_not_depend_on_its_batch():
    _, _, likelihood = problem("mask:left", NOISES[1])
    law, rows = mixture(), Rows(4, seed=6)
    all_rows = law.posterior(likelihood).sample(rows, 3)
    alone = law.posterior(likelihood.take(torch.tensor([2]))).sample(Rows(4, seed=6).take(torch.tensor([2])), 3)
    assert torch.allclose(alone[:, 0], all_rows[:, 2], atol=1e-10)


def test_a_nonlinear_operator_is_refused():
    y = torch.zeros(1, *SHAPE, dtype=torch.float64)
    likelihood = GaussianLikelihood(y, parse_operator("identity", SHAPE), 0.1).pullback(torch.tanh)
    with pytest.raises(IncompatiblePrior, match="linear operator"):
        mixture().posterior(likelihood)


def test_a_level_for_each_entry_is_refused():
    y = torch.zeros(1, *SHAPE, dtype=torch.float64)
    likelihood = GaussianLikelihood(y, parse_operator("identity", SHAPE), torch.full_like(y, 0.1))
    with pytest.raises(IncompatiblePrior, match="one noise level for all entries"):
        mixture().posterior(likelihood)


def test_the_moments_of_a_mixture_are_those_of_its_draws():
    law = mixture()
    moments = law.moments()
    x = law.sample(Rows(40_000, seed=3)).flatten(1).double()
    assert (moments.mean.flatten() - x.mean(0)).abs().max() < 4.5 * float(x.std(0).max()) / 200
    S = (moments.basis * moments.variances).double() @ moments.basis.double().T
    S = S + float(moments.noise_variance) * torch.eye(len(S)).double()
    error = ((S.diagonal()[:, None] * S.diagonal() + S.square()) / 40_000).sqrt()
    assert ((S - torch.cov(x.T)).abs() / error).max() < 6

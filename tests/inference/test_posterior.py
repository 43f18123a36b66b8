"""Bayes peels decoders and tilts; samplers check before they work."""

import pytest
import torch

from oneprior.core import AffineMap, IncompatiblePrior, InputError, Rows, ShapeError
from oneprior.inference import DAPS, HMC, ClosedForm, Draws, EllipticalSlice, Guided, bayes
from oneprior.inference.posterior import spread_of
from oneprior.likelihoods import GaussianLikelihood, Product, Reward
from oneprior.operators import Affine, Matrix, parse_operator
from oneprior.priors.base import StandardNormal
from oneprior.priors.gaussian import LowRankGaussian
from oneprior.priors.pushforward import Tilted, push

SHAPE = (1, 3, 4)


def linear_decoder(seed=0, latent=5):
    matrix = Rows(12, seed=seed).normal(latent, dtype=torch.float64)
    return Affine(Matrix(matrix, (latent,), SHAPE), Rows(12, seed=1).normal(1, dtype=torch.float64).reshape(SHAPE))


def evidence(noise=0.3, words="downsample:2", n=3):
    operator = parse_operator(words, SHAPE)
    return GaussianLikelihood(Rows(n, seed=2).normal(*operator.out_shape, dtype=torch.float64), operator, noise)


def test_decoders_are_peeled_in_order():
    base = StandardNormal((5,))
    prior = push(push(base, linear_decoder(), SHAPE), torch.tanh, SHAPE)
    likelihood = evidence()
    posterior = bayes(prior, likelihood)
    z = Rows(3, seed=3).normal(5, dtype=torch.float64)
    assert posterior.prior is base
    assert torch.equal(posterior.decode(z), torch.tanh(linear_decoder()(z)))
    assert torch.allclose(posterior.likelihood.log_prob(z), likelihood.log_prob(torch.tanh(linear_decoder()(z))))
    assert not posterior.affine
    expected = -0.5 * z.square().sum(1) + likelihood.log_prob(posterior.decode(z))
    assert torch.allclose(posterior.log_density(z), expected)


def test_a_linear_decoder_has_a_closed_form():
    """x = W z + b: mean (I + W'A'AW / s^2)^-1 W'A'(y - A b) / s^2, evidence N(y; A b, A W W' A' + s^2 I)."""
    likelihood, decoder = evidence(), linear_decoder()
    posterior = bayes(push(StandardNormal((5,)), decoder, SHAPE), likelihood)
    draws = ClosedForm()(posterior, 3000, Rows(3, seed=4))
    A, W = likelihood.operator.dense(), decoder.part.matrix
    b, s = decoder.offset.flatten(), 0.3
    G = A @ W
    covariance = torch.linalg.inv(torch.eye(5, dtype=torch.float64) + G.T @ G / s**2)
    law = torch.distributions.MultivariateNormal(A @ b, G @ G.T + s * s * torch.eye(len(A), dtype=torch.float64))
    y = likelihood.y.flatten(1)
    mean = ((y - A @ b) @ G / s**2) @ covariance @ W.T + b
    assert torch.allclose(draws.mean().flatten(1), mean, atol=1e-8)
    assert torch.allclose(draws.diagnostics["log_evidence"], law.log_prob(y), atol=1e-8)
    spread = (W @ covariance @ W.T).diagonal().sqrt()
    assert (draws.x.flatten(2).std(0) / spread - 1).abs().max() < 5 / (2 * 3000) ** 0.5
    assert draws.exact


def test_noise_zero_behind_a_decoder_is_least_squares():
    """For x = W z + b the limit is the z of least norm that minimises |A (W z + b) - y|."""
    decoder, likelihood = linear_decoder(latent=2), evidence(noise=0.0)
    draws = ClosedForm()(bayes(push(StandardNormal((2,)), decoder, SHAPE), likelihood), 1, Rows(3))
    A, W, b = likelihood.operator.dense(), decoder.part.matrix, decoder.offset.flatten()
    z = (likelihood.y.flatten(1) - A @ b) @ torch.linalg.pinv(A @ W).T
    assert torch.allclose(draws.mean().flatten(1), z @ W.T + b, atol=1e-6)


def test_tilted_is_a_product():
    prior = LowRankGaussian.standard(SHAPE, torch.zeros((), dtype=torch.float64))
    reward = Reward(lambda x: x.flatten(1).sum(1))
    posterior = bayes(Tilted(prior, reward), evidence())
    assert isinstance(posterior.likelihood, Product)
    assert posterior.n == 3
    with pytest.raises(InputError, match="how many problems"):
        bayes(prior, reward)
    assert bayes(prior, reward, n=2).n == 2


def test_units_change_nothing():
    """Values and noise times 255: the posterior in [-1, 1] is the same."""
    law = LowRankGaussian.standard(SHAPE, torch.zeros((), dtype=torch.float64))
    operator = parse_operator("downsample:2", SHAPE)
    y = Rows(3, seed=2).normal(*operator.out_shape, dtype=torch.float64)
    plain = ClosedForm()(bayes(law, GaussianLikelihood(y, operator, 0.3)), 4, Rows(3))
    units = AffineMap(255.0, 80.0)
    scaled = GaussianLikelihood(255 * y + 80, operator, 0.3 * 255).pullback(units)
    other = ClosedForm()(bayes(law, scaled), 4, Rows(3))
    assert torch.allclose(plain.x, other.x, atol=1e-10)


@pytest.mark.parametrize(
    ("sampler", "likelihood", "message"),
    [
        (ClosedForm(), evidence().pullback(torch.tanh), "linear operator"),
        (HMC(), evidence(0.0), "constraint without a density"),
        (EllipticalSlice(), evidence(0.0), "constraint without a density"),
        (DAPS(), evidence(), "needs a DenoisingPrior, and this prior is a LowRankGaussian"),
        (Guided(), evidence(), "needs a DenoisingPrior"),
        (ClosedForm(), Product((evidence(), evidence())), "needs Gaussian noise"),
    ],
)
def test_what_is_missing_is_said_before_any_work(sampler, likelihood, message):
    law = LowRankGaussian.standard(SHAPE, torch.zeros(()))
    with pytest.raises(IncompatiblePrior, match=message):
        sampler(bayes(law, likelihood), 2, Rows(3))


def test_rows_and_draws_are_checked():
    law = LowRankGaussian.standard(SHAPE, torch.zeros(()))
    with pytest.raises(ShapeError, match="one row for each measurement"):
        ClosedForm()(bayes(law, evidence()), 2, Rows(4))
    with pytest.raises(InputError, match="draws >= 1"):
        ClosedForm()(bayes(law, evidence()), 0, Rows(3))


def test_intervals_lie_between_order_statistics():
    x = torch.arange(19.0).flip(0).reshape(19, 1, 1)
    low, high = Draws(x, "", True).interval(0.9)
    assert (float(low), float(high)) == (0.0, 18.0)
    low, high = Draws(torch.arange(39.0).reshape(39, 1, 1), "", True).interval(0.9)
    assert (float(low), float(high)) == (1.0, 37.0)
    with pytest.raises(InputError, match="19, 39 or 99"):
        Draws(x[:16], "", True).interval(0.9)


def test_the_closed_form_goes_beyond_dense_matrices_without_an_evidence(monkeypatch):
    posterior = bayes(push(StandardNormal((5,)), linear_decoder(), SHAPE), evidence(words="identity"))
    *_, dense = ClosedForm().run(posterior, 3, Rows(3))
    monkeypatch.setattr("oneprior.priors.linear_gaussian.DENSE_LIMIT", 4)
    *_, among_entries = ClosedForm().run(posterior, 3, Rows(3))
    monkeypatch.setattr("oneprior.priors.linear_gaussian.NORMAL_LIMIT", 4)
    *_, iterative = ClosedForm().run(posterior, 3, Rows(3))
    evidences = [state.diagnostics["log_evidence"] for state in (dense, among_entries)]
    assert torch.allclose(*evidences, rtol=1e-5)
    assert torch.allclose(dense.x, among_entries.x, atol=1e-5)
    assert "log_evidence" not in iterative.diagnostics
    assert torch.allclose(dense.mean(), iterative.mean(), atol=1e-6)
    assert torch.allclose(dense.x, iterative.x, atol=1e-6)


@pytest.mark.parametrize("shared", [0.0, 0.5])
@pytest.mark.parametrize("draws", [4, 5, 19])
def test_the_spread_of_mirrored_pairs_is_unbiased(draws, shared):
    m, rows = (draws + 1) // 2, Rows(40_000, seed=1)
    own = rows.normal(m, dtype=torch.float64)
    pair = rows.normal(m, dtype=torch.float64)
    x = torch.stack([(1 - shared) ** 0.5 * own, -((1 - shared) ** 0.5) * own], 2) + shared**0.5 * pair[:, :, None]
    x = x.flatten(1)[:, :draws].T
    assert torch.isclose(spread_of(x, mirrored=True).square().mean(), torch.ones(()).double(), atol=0.02)
    assert spread_of(x[:1], mirrored=True).abs().max() == 0

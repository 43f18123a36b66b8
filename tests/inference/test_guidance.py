"""Guidance with exact denoisers: what must be exact is tested as exact, and the bias of the rest is measured."""

from dataclasses import replace

import pytest
import torch

from oneprior.core import IncompatiblePrior, Rows
from oneprior.inference import (
    DAPS,
    MMPS,
    DataCovariance,
    Guided,
    IsotropicCovariance,
    JacobianCovariance,
    MixtureCovariance,
    bayes,
    exact_posterior,
)
from oneprior.inference.guidance import GuidedDenoiser
from oneprior.laws import check_prior
from oneprior.likelihoods import GaussianLikelihood
from oneprior.operators import parse_operator
from oneprior.priors.diffusion.samplers import Ancestral
from oneprior.priors.diffusion.schedules import EDMSchedule, RectifiedFlow
from oneprior.priors.gaussian import LowRankGaussian
from oneprior.priors.mixture import ClosedFormDenoiser, GaussianMixturePrior

SHAPE = (1, 3, 4)
SCHEDULE = EDMSchedule(sigma_max=40.0)


def gaussian(seed=0):
    rows = Rows(12, seed=seed)
    basis = torch.linalg.qr(rows.normal(3))[0]
    return LowRankGaussian(0.6 * rows.normal(1).reshape(SHAPE), basis, torch.tensor([1.0, 0.4, 0.1]), 0.02)


def mixture():
    return GaussianMixturePrior([gaussian(0), gaussian(1)], torch.tensor([0.4, 0.6]))


def evidence(law, words="mask:left", noise=0.2, n=3):
    operator = parse_operator(words, SHAPE)
    y = operator(law.sample(Rows(n, seed=3))) + noise * Rows(n, seed=4).normal(*operator.out_shape)
    return GaussianLikelihood(y, operator, noise)


def z_scores(draws, exact):
    """Of the means and variances of independent draws (draws, n, ...) of a (nearly) Gaussian law."""
    x, count = draws.double(), len(draws)
    mean = (x.mean(0) - exact.mean()) / (x.var(0) / count).sqrt()
    square = (x - exact.mean()).square()
    variance = (square.mean(0) - exact.covariance_diag()) / (square.std(0) / count**0.5)
    return torch.stack([mean, variance])


@pytest.mark.parametrize("words", ["mask:left", "downsample:2", "identity"])
@pytest.mark.parametrize("schedule", [SCHEDULE, RectifiedFlow()], ids=["edm", "flow"])
def test_moment_matching_is_bayes_for_a_gaussian(words, schedule):
    """E[x | x_t, y] against conditioning a dense Gaussian on both looks, by the data's covariance and the Jacobian."""
    law = gaussian()
    likelihood, prior = evidence(law, words), ClosedFormDenoiser(law, schedule)
    t = schedule.time(torch.tensor(0.7))
    alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
    x_t = Rows(3, seed=5).normal(*SHAPE)
    A, y = likelihood.operator.dense(), likelihood.y.flatten(1).double()
    S = (law.basis * law.variances).double() @ law.basis.double().T + 0.02 * torch.eye(12).double()
    precision = torch.linalg.inv(S) + (alpha / sigma) ** 2 * torch.eye(12) + A.T @ A / 0.04
    pull = torch.linalg.inv(S) @ law.mean.flatten().double() + alpha / sigma**2 * x_t.flatten(1).double() + y @ A / 0.04
    expected = pull @ torch.linalg.inv(precision)
    for covariance in (None, DataCovariance(law), JacobianCovariance(steps=30, tolerance=1e-6)):
        guided = MMPS(covariance)(prior, likelihood)
        assert torch.allclose(guided.denoise(x_t, t).flatten(1).double(), expected, atol=2e-4)


def test_a_conditioned_denoiser_is_a_denoiser():
    law = gaussian()
    guided = MMPS()(ClosedFormDenoiser(law, SCHEDULE), evidence(law, n=1))
    assert isinstance(guided, GuidedDenoiser)
    x = guided.sample(Rows(1, seed=1))
    assert x.shape == (1, *SHAPE)
    assert torch.allclose(guided.sample(Rows(1, seed=1)), x)


@pytest.mark.parametrize("words", ["mask:left", "downsample:2"])
def test_daps_is_exact_for_a_gaussian_however_few_levels(words):
    law = gaussian()
    likelihood = evidence(law, words)
    draws = DAPS(steps=3)(bayes(ClosedFormDenoiser(law, SCHEDULE), likelihood), 2000, Rows(3, seed=6))
    z = z_scores(draws.x, exact_posterior(law, likelihood))
    assert z.abs().max() < 4.5
    assert z.square().mean() < 1.7
    assert not draws.exact  # exact for Gaussians only, and the method cannot know
    assert draws.network_calls == 3 * 2000 * 3


@pytest.mark.parametrize("sampler", [DAPS(steps=3, mirrored=True), Guided(sampler=Ancestral(steps=40), mirrored=True)])
def test_mirrored_draws_have_the_law_of_any_and_a_mean_without_error_for_a_gaussian(sampler):
    law = gaussian()
    likelihood = evidence(law, "mask:left")
    exact = exact_posterior(law, likelihood)
    posterior = bayes(ClosedFormDenoiser(law, SCHEDULE), likelihood)
    draws = sampler(posterior, 3000, Rows(3, seed=6))
    if isinstance(sampler, DAPS):  # ancestral steps are finite, and their draws a little narrow
        assert max(z_scores(draws.x[half::2], exact).abs().max() for half in (0, 1)) < 4.5
    assert torch.allclose(draws.x.mean(0), draws.x[:2].mean(0), atol=2e-3)
    assert torch.allclose(draws.mean(), exact.mean().float(), atol=0.01)
    plain = replace(sampler, mirrored=False)(posterior, 3000, Rows(3, seed=7))
    assert torch.allclose(draws.std().square().mean(), plain.std().square().mean(), rtol=0.05)


def test_mirrored_draws_of_a_mixture_have_the_law_of_any_and_a_better_mean():
    law = mixture()
    likelihood = evidence(law, "downsample:2", noise=0.4)
    exact = exact_posterior(law, likelihood)
    posterior = bayes(ClosedFormDenoiser(law, SCHEDULE), likelihood)
    x = DAPS(steps=3, mirrored=True)(posterior, 4000, Rows(3, seed=6)).x
    assert max(z_scores(x[half::2], exact).abs().max() for half in (0, 1)) < 4.5
    pairs = x.unflatten(0, (-1, 2)).mean(1)
    assert pairs.var(0).mean() < 0.4 * x.var(0).mean()  # 0.5 for independent ones


def test_daps_is_exact_for_a_mixture():
    law = mixture()
    likelihood = evidence(law, "downsample:2", noise=0.4)
    draws = DAPS(steps=3)(bayes(ClosedFormDenoiser(law, SCHEDULE), likelihood), 2000, Rows(3, seed=6))
    z = z_scores(draws.x, exact_posterior(law, likelihood))
    assert z.abs().max() < 4.5
    assert z.square().mean() < 1.8


def test_denoising_asks_the_denoiser_itself():
    """With the identity E[x | y] is D(y), exactly, whatever the covariance: at t = 1 a flow's x_t says nothing."""
    law = mixture()
    likelihood = evidence(law, "identity", noise=0.5)
    guided = MMPS(IsotropicCovariance())(ClosedFormDenoiser(law, RectifiedFlow()), likelihood)
    x_t = Rows(3, seed=1).normal(*SHAPE)
    exact = exact_posterior(law, likelihood)
    assert torch.allclose(guided.denoise(x_t, torch.tensor(1.0)), exact.mean(), atol=1e-4)


@pytest.mark.parametrize("words", ["mask:left", "downsample:2"])
def test_measured_bias(words):
    """What is printed in `guidance.mmps` and `guidance.daps`: with a perfect denoiser of anisotropic Gaussian data the
    isotropic form misses the mean by 0.3 to 0.5 standard deviations, the data's covariance by no more than the draws'
    own error (150 draws: 0.08); the finite walk of moment matching is 8 % too narrow at 60 steps."""
    law = gaussian()
    likelihood = evidence(law, words)
    posterior, exact = bayes(ClosedFormDenoiser(law, SCHEDULE), likelihood), exact_posterior(law, likelihood)
    deviation = exact.covariance_diag().sqrt()

    def measure(sampler):
        x = sampler(posterior, 150, Rows(3, seed=7)).x
        bias = ((x.mean(0) - exact.mean()) / deviation).square().mean().sqrt()
        return float(bias), float((x.std(0) / deviation).mean())

    for make in (lambda c: Guided(MMPS(c), Ancestral(steps=60)), lambda c: DAPS(steps=20, covariance=c)):
        bias, ratio = measure(make(DataCovariance()))
        assert bias < 0.13
        assert 0.88 < ratio < 1.06
        assert measure(make(IsotropicCovariance(0.2)))[0] > 0.25


def test_rows_do_not_see_each_other():
    law = mixture()
    likelihood = evidence(law, "downsample:2")
    prior, index = ClosedFormDenoiser(law, SCHEDULE), torch.tensor([1])
    for sampler in (DAPS(steps=4), Guided(sampler=Ancestral(steps=4))):
        together = sampler(bayes(prior, likelihood), 3, Rows(3, seed=1))
        alone = sampler(bayes(prior, likelihood.take(index)), 3, Rows(3, seed=1).take(index))
        assert torch.allclose(alone.x[:, 0], together.x[:, 1], atol=1e-4)


def test_noise_of_rows_and_noise_zero():
    law = gaussian()
    operator = parse_operator("mask:left", SHAPE)
    y = operator(law.sample(Rows(2, seed=3)))
    prior = ClosedFormDenoiser(law, SCHEDULE)
    draws = DAPS(steps=4)(bayes(prior, GaussianLikelihood(y, operator, torch.tensor([0.0, 0.3]))), 5, Rows(2))
    gap = (operator(draws.x.flatten(0, 1)).unflatten(0, (5, 2)) - y).abs().amax((0, 2))
    assert gap[0] < 1e-3
    assert gap[1] > 0.02


def test_what_a_covariance_lacks_is_said():
    law = gaussian()
    likelihood = evidence(law)
    bare = ClosedFormDenoiser(mixture(), SCHEDULE)
    with pytest.raises(IncompatiblePrior, match="carries no Gaussian"):
        MMPS(DataCovariance())(bare, likelihood)
    with pytest.raises(IncompatiblePrior, match="cannot draw"):
        DAPS(covariance=JacobianCovariance())(bayes(bare, likelihood), 2, Rows(3))
    with pytest.raises(IncompatiblePrior, match="linear operator"):
        MMPS()(bare, likelihood.pullback(torch.tanh))


def test_published_settings():
    assert isinstance(MMPS.published().covariance, JacobianCovariance)
    assert DAPS.published().steps == 200
    assert isinstance(Guided.published().sampler, Ancestral)
    assert MixtureCovariance(mixture()).mixture.event_shape == SHAPE


def test_laws_of_the_exact_denoiser():
    check_prior(ClosedFormDenoiser(gaussian(), SCHEDULE))


@pytest.mark.parametrize("words", ["mask:left", "downsample:2", "identity"])
@pytest.mark.parametrize("covariance", [DataCovariance(), MixtureCovariance(mixture()), JacobianCovariance()], ids=str)
def test_a_guided_denoiser_is_a_denoiser_at_any_times_and_draws(words, covariance):
    prior = ClosedFormDenoiser(gaussian(), SCHEDULE)
    guided = MMPS(covariance)(prior, evidence(gaussian(), words))
    x = Rows(6, seed=9).normal(*SHAPE)
    times = torch.tensor([0.2, 0.5, 0.5, 0.7, 0.2, 0.9], dtype=torch.float32)
    together = guided.denoise(x, times)
    for k, t in enumerate(times):
        alone = guided.denoise(x, t)[k]  # row k has measurement k % 3 in both
        assert torch.allclose(together[k], alone, atol=1e-4)
    assert not torch.allclose(guided.denoise(x[:1].repeat(2, 1, 1, 1), times[0])[0], guided.denoise(
        x[:1].repeat(2, 1, 1, 1), times[0])[1])  # fmt: skip

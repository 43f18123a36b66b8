"""Samplers of the noise road against the closed form: mean and variance by z-score, errors from batch means."""

from dataclasses import replace

import pytest
import torch

from oneprior.core import DivergedError, InputError, Rows
from oneprior.inference import HMC, ClosedForm, EllipticalSlice, Resampling, bayes, exact_posterior
from oneprior.inference.noise import effective_sample_size, split_r_hat
from oneprior.likelihoods import GaussianLikelihood, Product, Reward
from oneprior.operators import parse_operator
from oneprior.priors.base import StandardNormal
from oneprior.priors.gaussian import LowRankGaussian
from oneprior.priors.pushforward import push

SHAPE = (1, 2, 3)


def problem(n=4, noise=0.3, words="mask:left"):
    """An anisotropic Gaussian, and a measurement of its draws."""
    basis = torch.linalg.qr(Rows(6, seed=0).normal(2))[0]
    law = LowRankGaussian(torch.full(SHAPE, 0.2), basis, torch.tensor([1.5, 0.3]), 0.1)
    operator = parse_operator(words, SHAPE)
    y = operator(law.sample(Rows(n, seed=3))) + noise * Rows(n, seed=9).normal(*operator.out_shape)
    return law, GaussianLikelihood(y, operator, noise)


def z_scores(x, chains, exact):
    """(mean, variance) of draws (draws, n, ...) against the closed form; the error of a mean is that of the chains'
    own means, which are independent, so correlation along a chain is in it."""
    x = x.double().flatten(2)
    mean, variance = exact.mean().double().flatten(1), exact.covariance_diag().double().flatten(1)
    each = x[: len(x) // chains * chains].reshape(-1, chains, *x.shape[1:])
    scores = []
    for value, truth in ((each, mean), ((each - mean).square(), variance)):
        per_chain = value.mean(0)
        scores.append((per_chain.mean(0) - truth) / (per_chain.std(0) / chains**0.5))
    return torch.stack(scores)


SAMPLERS = [HMC(chains=40, warmup=80, leapfrog=6, thin=2), EllipticalSlice(chains=40, warmup=40, thin=4)]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: s.name)
def test_mean_and_variance_are_the_closed_form(sampler):
    law, likelihood = problem()
    draws = sampler(bayes(law, likelihood), 600, Rows(4, seed=1))
    z = z_scores(draws.x, 40, exact_posterior(law, likelihood))
    assert draws.exact
    assert z.abs().max() < 4.5
    assert z.square().mean() < 1.8  # 48 numbers of mean square about 40 / 38
    assert draws.network_calls > 600 * 4


def test_z_scores_would_catch_a_wrong_width():
    law, likelihood = problem()
    draws = ClosedForm()(bayes(law, likelihood), 600, Rows(4, seed=1))
    exact = exact_posterior(law, likelihood)
    assert z_scores(draws.x, 40, exact).square().mean() < 1.8
    narrow = draws.mean() + 0.8 * (draws.x - draws.mean())
    assert z_scores(narrow, 40, exact).square().mean() > 3


def test_hmc_mean_averages_every_state():
    law, likelihood = problem()
    draws = HMC(chains=8, warmup=60, leapfrog=6, thin=3)(bayes(law, likelihood), 160, Rows(4, seed=1))
    exact = exact_posterior(law, likelihood)
    assert (draws.mean() - exact.mean()).abs().max() < 0.25
    assert (draws.std() / exact.covariance_diag().sqrt() - 1).abs().max() < 0.25
    d = draws.diagnostics
    assert ((d["acceptance"] > 0.6) & (d["acceptance"] < 0.98)).all()
    assert (d["r_hat"] < 1.2).all()
    assert (d["effective_sample_size"] > 20).all()


@pytest.mark.parametrize(
    "sampler", [HMC(chains=2, warmup=12, leapfrog=3, thin=1), EllipticalSlice(chains=2, warmup=5, thin=2)],
    ids=lambda s: s.name,
)  # fmt: skip
def test_a_row_does_not_depend_on_its_batch(sampler):
    law, likelihood = problem()
    together = sampler(bayes(law, likelihood), 4, Rows(4, seed=1))
    alone = sampler(
        bayes(law, likelihood.take(torch.tensor([2]))), 4, Rows(4, seed=1).take(torch.tensor([2]))
    )  # fmt: skip
    assert torch.allclose(alone.x[:, 0], together.x[:, 2], atol=1e-4)


def test_a_nonlinear_decoder_and_a_product():
    """x = exp(u): the law of u given evidence on x and a reward on u, against quadrature."""
    likelihood = GaussianLikelihood(torch.tensor([[1.5], [0.4]]), parse_operator("identity", (1,)), 0.5)
    prior = push(StandardNormal((1,)), torch.exp, torch.Size((1,)))
    both = Product((likelihood, Reward(lambda x: -x.flatten(1).sum(1), 2.0)))
    draws = HMC(chains=40, warmup=80, leapfrog=6, thin=2)(bayes(prior, both), 800, Rows(2, seed=1))
    u = torch.linspace(-6, 6, 4001).double()
    for i in range(2):
        log = -0.5 * u**2 - 0.5 * ((float(likelihood.y[i]) - u.exp()) / 0.5) ** 2 - u.exp() / 2
        w = log.softmax(0)
        mean = (w * u.exp()).sum()
        chains = draws.x[:, i, 0].reshape(-1, 40).mean(0)
        assert abs(float(chains.mean() - mean)) < 4 * float(chains.std()) / 40**0.5


def test_resampling_is_right_and_says_how_many_counted():
    law, likelihood = problem(noise=0.8)
    draws = Resampling(candidates=4000, batch=500)(bayes(law, likelihood), 400, Rows(4, seed=1))
    exact = exact_posterior(law, likelihood)
    z = (draws.x.mean(0) - exact.mean()) / (exact.covariance_diag() * (1 / 400 + 1 / 1000)).sqrt()
    assert z.abs().max() < 4.5
    assert (draws.diagnostics["effective_candidates"] > 300).all()
    assert (draws.diagnostics["log_evidence"] - exact.log_evidence).abs().max() < 0.2


def test_iteration_shows_progress_and_ends_complete():
    law, likelihood = problem()
    states = list(HMC(chains=2, warmup=5, leapfrog=2, thin=1).run(bayes(law, likelihood), 5, Rows(4)))
    assert [len(s.x) for s in states] == [2, 4, 5]
    assert [s.done for s in states] == sorted(s.done for s in states)
    assert states[-1].done == 1.0


def test_divergence_names_the_rows():
    law, likelihood = problem()

    def cliff(x):
        value = x.flatten(1).sum(1)
        return torch.where(torch.arange(len(value)) % 4 == 1, value * torch.nan, value)

    for sampler in SAMPLERS:
        with pytest.raises(DivergedError, match=r"rows \[1\]"):
            sampler(bayes(law, Product((likelihood, Reward(cliff)))), 40, Rows(4))


def test_settings_are_checked_and_published_ones_stand():
    with pytest.raises(InputError):
        HMC(chains=0)
    with pytest.raises(InputError):
        EllipticalSlice(thin=0)
    with pytest.raises(InputError):
        Resampling(candidates=0)
    assert HMC.published().acceptance == 0.65
    assert EllipticalSlice.published().chains == 1
    assert replace(HMC(), chains=2).chains == 2


def test_diagnostics_of_known_chains():
    noise = Rows(400, seed=3).normal(4, 2)
    assert (split_r_hat(noise) - 1).abs().max() < 0.03
    assert (effective_sample_size(noise) / 1600 - 1).abs().max() < 0.25
    walk = torch.zeros(400, 4, 2)
    for t in range(1, 400):
        walk[t] = 0.9 * walk[t - 1] + noise[t]  # integrated time 19
    assert (effective_sample_size(walk) / (1600 / 19) - 1).abs().max() < 0.6
    apart = noise + torch.tensor([0.0, 0.0, 3.0, 3.0])[:, None]
    assert (split_r_hat(apart) > 1.5).all()
    assert split_r_hat(noise[:3]).isnan().all()

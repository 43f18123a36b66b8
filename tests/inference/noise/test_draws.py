"""Randomise-then-optimise, annealed SMC, variational inference and HMC in two metrics, against closed forms."""

import pytest
import torch
from inference.noise.problems import DOUBLE, exact_moments, linear, nonlinear, quadrature, z_scores

from oneprior.core import InputError, Rows
from oneprior.inference import HMC, EllipticalSlice, bayes
from oneprior.inference.noise import AnnealedSMC, RandomiseThenOptimise, Variational
from oneprior.inference.noise.smc import _rise, _systematic
from oneprior.likelihoods import GaussianLikelihood
from oneprior.operators import parse_operator
from oneprior.operators.affine import Affine, Matrix
from oneprior.priors.base import StandardNormal
from oneprior.priors.pushforward import NoisePushforward, push


@pytest.mark.parametrize("corrected", [False, True])
def test_randomise_then_optimise_is_exact_for_linear_maps(corrected):
    law, likelihood = linear()
    found = RandomiseThenOptimise(corrected=corrected, steps=30)(bayes(law, likelihood), 2000, Rows(4, seed=1))
    mean, covariance, _ = exact_moments(law, likelihood)
    z = z_scores(found.x, mean, covariance)
    assert found.exact
    assert z.abs().max() < 4.5
    assert 0.7 < z.square().mean() < 1.4
    if corrected:
        assert (found.diagnostics["acceptance"] > 0.999).all()  # the proposals are the posterior
    else:
        assert found.network_calls < 6 * 4 * 2000  # one step solves a linear problem


def test_corrected_draws_are_right_where_the_map_is_one_to_one():
    """x = u + 0.3 sin u and a pixel of noise: against quadrature, and the uncorrected bias is seen."""
    identity = parse_operator("identity", (1,))
    prior = push(StandardNormal((1,)), lambda u: u + 0.9 * torch.sin(u), torch.Size((1,)))
    y = torch.tensor([[2.0], [1.0], [0.3]], dtype=DOUBLE)
    likelihood = GaussianLikelihood(y, identity, 0.8)
    grid = torch.linspace(-7, 7, 8001, dtype=DOUBLE)[:, None]
    x = prior.decode(grid)[:, 0]
    found = RandomiseThenOptimise.published()(bayes(prior, likelihood), 4000, Rows(3, seed=1))
    assert (found.diagnostics["solved"] > 0.99).all()
    for i in range(3):
        level = likelihood.take(torch.full((8001,), i)).log_prob(x[:, None]) - 0.5 * grid[:, 0].square()
        mean = float((level.softmax(0) * x).sum())
        width = float((level.softmax(0) * (x - mean).square()).sum().sqrt())
        share = float(found.diagnostics["acceptance"][i])
        error = width * ((2 / share - 1) / 4000) ** 0.5
        draws = found.x[:, i, 0]
        assert abs(float(draws.mean()) - mean) < 4.5 * error
        assert abs(float(draws.std()) / width - 1) < 4.5 * error / width


@pytest.mark.parametrize("noise", [0.3, 0.1])
def test_randomise_then_optimise_stays_near_a_nonlinear_posterior(noise):
    """The bias that the table of methods states: mean off by 0.3 deviations, deviation within 5 %."""
    prior, likelihood = nonlinear(20, noise)
    found = RandomiseThenOptimise()(bayes(prior, likelihood), 128, Rows(20, seed=1))
    mean, width, _ = quadrature(prior, likelihood)
    assert not found.exact
    assert ((found.mean().flatten(1) - mean) / width).square().mean().sqrt() < 0.5
    assert 0.8 < (found.std().flatten(1) / width).median() < 1.1
    assert found.network_calls <= 25 * 20 * 128


def test_smc_is_exact_as_particles_grow():
    """Twenty independent runs of one problem: mean, variance and evidence by z-scores over the runs."""
    law, likelihood = linear(1)
    found = AnnealedSMC(particles=200)(
        bayes(law, likelihood.take(torch.zeros(20, dtype=torch.int64))), 200, Rows(20, seed=2)
    )
    mean, covariance, evidence = exact_moments(law, likelihood)
    off = found.mean().flatten(1) - mean
    assert (off.mean(0) / (off.std(0) / 20**0.5)).abs().max() < 4
    square = (found.x.flatten(2) - mean).square().mean(0) - covariance.diagonal()
    assert (square.mean(0) / (square.std(0) / 20**0.5)).abs().max() < 4
    log_evidence = found.diagnostics["log_evidence"]
    assert log_evidence.std() < 0.3
    assert abs(float(log_evidence.exp().mean() / evidence.exp()) - 1) < 4 * float(log_evidence.std()) / 20**0.5
    assert (found.diagnostics["ancestors"] > 20).all()


def test_no_particle_is_two_draws():
    """Intervals between order statistics are of draws that all differ."""
    law, likelihood = linear(1)
    found = AnnealedSMC(particles=8)(bayes(law, likelihood), 19, Rows(1, seed=2))
    assert len(found.x[:, 0].unique(dim=0)) == 19


@pytest.mark.parametrize("differentiable", [True, False])
def test_smc_keeps_the_weights_of_two_modes(differentiable):
    """|u| is measured, and its sign through a weak second number, so that both modes have known mass."""
    operator = parse_operator("identity", (2,))
    operator.differentiable = differentiable
    prior = push(StandardNormal((1,)), lambda u: torch.cat([u.abs(), 0.1 * u], 1), torch.Size((2,)))
    y = torch.tensor([[1.5, 0.1]], dtype=DOUBLE)
    likelihood = GaussianLikelihood(y, operator, 0.2)
    grid = torch.linspace(-6, 6, 12001, dtype=DOUBLE)[:, None]
    level = likelihood.take(torch.zeros(12001, dtype=torch.int64)).log_prob(prior.decode(grid)) - 0.5 * grid[:, 0] ** 2
    right = float(level.softmax(0)[grid[:, 0] > 0].sum())
    evidence = float(level.logsumexp(0) + torch.tensor(0.001).log() - 0.5 * torch.tensor(2 * torch.pi).log())
    runs = bayes(prior, likelihood.take(torch.zeros(16, dtype=torch.int64)))
    found = AnnealedSMC(particles=200)(runs, 200, Rows(16, seed=4))
    share = (found.x[..., 1] > 0).double().mean(0)
    assert 0.6 < right < 0.75
    assert abs(float(share.mean()) - right) < 4 * float(share.std()) / 4
    log_evidence = found.diagnostics["log_evidence"]
    assert abs(float(log_evidence.mean()) - evidence) < 4 * float(log_evidence.std()) / 4 + 0.02
    assert (found.diagnostics["beta"] == 1).all()


def test_smc_parts():
    level = torch.tensor([[0.0, 0.0], [-1.0, -1000.0], [-2.0, -2000.0], [-3.0, -torch.inf]], dtype=DOUBLE)
    rise = _rise(level, torch.ones(2, dtype=DOUBLE), 0.5)
    assert rise[0] == 1  # nothing to fear: to the end
    weight = (rise * level).softmax(0)
    assert abs(float(1 / weight[:, 1].square().sum()) - 2.0) < 1e-6
    index = _systematic(torch.tensor([[0.5], [0.25], [0.25], [0.0]], dtype=DOUBLE), torch.tensor([0.3], dtype=DOUBLE))
    assert index[:, 0].tolist() == [0, 0, 1, 2]


def test_low_rank_variational_reaches_the_exact_posterior():
    """From the prior's width too: I - (low rank) is inside the family, and the noise of the gradient dies out."""
    law, likelihood = linear()
    mean, covariance, evidence = exact_moments(law, likelihood)
    for method in (Variational(steps=150), Variational(start="prior", steps=400, rate=0.1)):
        found = method(bayes(law, likelihood), 3000, Rows(4, seed=1))
        z = z_scores(found.x, mean, covariance)
        assert z.abs().max() < 5
        assert z.square().mean() < 1.8
        assert (found.diagnostics["evidence_bound"] - evidence).abs().max() < 0.02
        assert (found.diagnostics["evidence_bound_error"] < 0.02).all()


@pytest.mark.parametrize("start", ["laplace", "prior"])
def test_mean_field_is_known_to_be_too_narrow(start):
    """Its variance is 1 / diag(H); its bound is the evidence less KL = (log det diag H - log det H) / 2."""
    law, likelihood = linear()
    _, _, evidence = exact_moments(law, likelihood)
    A = likelihood.linear_operator.dense()
    B = torch.cat([law.basis * law.variances.sqrt(), law.noise_variance.sqrt() * torch.eye(6, dtype=DOUBLE)], 1)
    H = torch.eye(8, dtype=DOUBLE) + (A @ B).T @ (A @ B) / likelihood.noise_level**2
    wanted = B.square() @ (1 / H.diagonal())
    divergence = 0.5 * (H.diagonal().log().sum() - torch.logdet(H))
    found = Variational(family="mean-field", start=start, steps=300, rate=0.1, bound=512)(
        bayes(law, likelihood), 3000, Rows(4, seed=1)
    )
    ratio = found.x.flatten(2).var(0) / wanted
    assert (ratio - 1).abs().max() < 6 * (2 / 3000) ** 0.5
    bound, error = found.diagnostics["evidence_bound"], found.diagnostics["evidence_bound_error"]
    assert ((bound - (evidence - divergence)).abs() < 4 * error + 0.02).all()
    assert (bound < evidence).all()
    assert not found.exact


def correlated(noise=0.05, n=2):
    """Eight correlated numbers (0.9 to the distance), three measured: ../shared/field/inverse.md, section 4.1."""
    i = torch.arange(8, dtype=DOUBLE)
    factor = torch.linalg.cholesky(0.9 ** (i[:, None] - i).abs())
    A = torch.zeros(3, 8, dtype=DOUBLE)
    A[0, 0] = A[1, 3] = A[2, 6] = 1
    y = Rows(n, seed=1).normal(8, dtype=DOUBLE) @ factor.T @ A.T + noise * Rows(n, seed=2).normal(3, dtype=DOUBLE)
    prior = NoisePushforward(
        StandardNormal((8,)), Affine(Matrix(factor), torch.zeros(8, dtype=DOUBLE)), torch.Size((8,))
    )
    precision = torch.linalg.inv(factor @ factor.T) + A.T @ A / noise**2
    covariance = torch.linalg.inv(precision)
    return bayes(prior, GaussianLikelihood(y, Matrix(A), noise)), y @ A @ covariance / noise**2, covariance


def test_the_metric_of_a_mode_makes_sharp_evidence_easy():
    """Right after 40 short paths from the start, where the identity would need thousands of steps."""
    posterior, mean, covariance = correlated(noise=0.01)
    chains = 40
    found = HMC(chains=chains, warmup=40, leapfrog=3, thin=2, metric="laplace")(posterior, 1200, Rows(2, seed=1))
    assert (found.diagnostics["step_size"] > 0.3).all()
    assert (found.diagnostics["r_hat"] < 1.15).all()
    each = found.x.reshape(-1, chains, 2, 8)
    for value, truth in ((each, mean), ((each - mean).square(), covariance.diagonal().expand(2, 8))):
        per_chain = value.mean(0)
        z = (per_chain.mean(0) - truth) / (per_chain.std(0) / chains**0.5)
        assert z.abs().max() < 4.5
        assert z.square().mean() < 2


def test_metrics_agree_in_law_and_only_differ_in_cost():
    """Steps of the identity follow the smallest deviation, 0.05 of the prior's; those of the metric do not."""
    posterior, _, covariance = correlated()
    plain, bent = (
        HMC(chains=8, warmup=150, leapfrog=3, thin=1, metric=metric)(posterior, 800, Rows(2, seed=1))
        for metric in ("identity", "laplace")
    )
    assert (bent.diagnostics["step_size"] > 10 * plain.diagnostics["step_size"]).all()
    assert (bent.x.std(0).mean(0) / covariance.diagonal().sqrt() - 1).abs().max() < 0.15


@pytest.mark.parametrize(
    "method", [HMC(chains=40, warmup=60, leapfrog=6, thin=1), EllipticalSlice(chains=40, warmup=200, thin=2)],
    ids=lambda m: m.name,
)  # fmt: skip
def test_chains_run_in_the_precision_of_the_measurement(method):
    law, likelihood = linear()
    found = method(bayes(law, likelihood), 400, Rows(4, seed=1))
    mean, _, _ = exact_moments(law, likelihood)
    per_chain = found.x.reshape(-1, 40, 4, 6).mean(0)
    assert found.x.dtype == DOUBLE
    assert ((per_chain.mean(0) - mean) / (per_chain.std(0) / 40**0.5)).abs().max() < 4.5


def test_settings_are_checked_and_published_ones_stand():
    for wrong in (
        lambda: RandomiseThenOptimise(steps=0),
        lambda: RandomiseThenOptimise(candidates=1),
        lambda: AnnealedSMC(share=1.0),
        lambda: AnnealedSMC(particles=1),
        lambda: Variational(family="full"),
        lambda: Variational(samples=3),
        lambda: Variational(bound=1),
        lambda: HMC(metric="mass"),
    ):
        with pytest.raises(InputError):
            wrong()
    assert RandomiseThenOptimise.published().corrected
    assert AnnealedSMC.published().share == 0.95
    assert Variational.published().family == "mean-field"
    big = bayes(
        StandardNormal((600,)), GaussianLikelihood(torch.zeros(1, 600), parse_operator("identity", (600,)), 1.0)
    )
    with pytest.raises(InputError, match="at most 512"):
        RandomiseThenOptimise(corrected=True)(big, 2, Rows(1))

"""Laws of every method of the noise road: units, weak evidence, rows on their own, errors that name step and rows."""

import pytest
import torch
from inference.noise.problems import DOUBLE, SHAPE, gaussian, linear, network, quadrature

from oneprior.core import AffineMap, DivergedError, IncompatiblePrior, Rows
from oneprior.inference import HMC, EllipticalSlice, bayes
from oneprior.inference.noise import MAP, AnnealedSMC, Laplace, RandomiseThenOptimise, Variational
from oneprior.likelihoods import GaussianLikelihood, PoissonLikelihood
from oneprior.operators import parse_operator
from oneprior.priors.base import StandardNormal
from oneprior.priors.pushforward import NoisePushforward, push

QUICK = [
    MAP(starts=2, candidates=4, steps=30),
    MAP(starts=2, candidates=4, steps=30, norm="radial"),
    Laplace(starts=2, candidates=4, steps=60),
    RandomiseThenOptimise(candidates=4),
    RandomiseThenOptimise(candidates=4, corrected=True),
    Variational(steps=20),
    Variational(steps=20, family="mean-field"),
    AnnealedSMC(particles=16),
    HMC(chains=2, warmup=10, leapfrog=3, thin=1),
    HMC(chains=2, warmup=10, leapfrog=3, thin=1, metric="laplace"),
    EllipticalSlice(chains=2, warmup=5, thin=2),
]
every = pytest.mark.parametrize("method", QUICK, ids=lambda m: f"{m.name}-{QUICK.index(m)}")
network_prior = NoisePushforward(StandardNormal((2,)), network, SHAPE)


@every
def test_units_change_nothing(method):
    """Multiply the values and sigma by 127.5, and say so."""
    operator = parse_operator("mask:left", SHAPE)
    x = network(Rows(3, seed=5).normal(2, dtype=DOUBLE))
    noise = Rows(3, seed=6).normal(*operator.out_shape, dtype=DOUBLE)
    here = GaussianLikelihood(operator(x) + 0.3 * noise, operator, 0.3)
    units = AffineMap.from_range(0, 255, "grey level")
    scaled = GaussianLikelihood(operator(units.to_units(x)) + 0.3 * 127.5 * noise, operator, 0.3 * 127.5)
    a, b = (
        method(bayes(network_prior, likelihood), 4, Rows(3, seed=1))
        for likelihood in (here, scaled.pullback(units))
    )  # fmt: skip
    assert (a.x - b.x).abs().max() < 1e-6
    assert a.network_calls == b.network_calls


@every
def test_a_row_does_not_depend_on_its_batch(method):
    _, likelihood = linear()
    two = torch.tensor([2])
    together = method(bayes(network_prior, likelihood), 3, Rows(4, seed=1))
    alone = method(bayes(network_prior, likelihood.take(two)), 3, Rows(4, seed=1).take(two))
    assert (alone.x[:, 0] - together.x[:, 2]).abs().max() < 1e-6
    assert together.x.shape == (3, 4, *SHAPE)
    assert together.network_calls > 0


@pytest.mark.parametrize(
    "method",
    [
        Laplace(),
        RandomiseThenOptimise(),
        RandomiseThenOptimise(corrected=True),
        Variational(steps=60),
        Variational(steps=60, family="mean-field"),
        AnnealedSMC(particles=1000),
        HMC(chains=50, warmup=40, leapfrog=6, thin=1, metric="laplace"),
    ],
    ids=lambda m: m.name,
)
def test_weak_evidence_gives_the_prior(method):
    law, operator = gaussian(), parse_operator("mask:left", SHAPE)
    likelihood = GaussianLikelihood(torch.full((2, *operator.out_shape), 3.0, dtype=DOUBLE), operator, 1e4)
    found = method(bayes(law, likelihood), 1000, Rows(2, seed=3))
    truth = law.covariance().diagonal().reshape(SHAPE)
    assert ((found.x.mean(0) - law.mean) / (truth / 1000).sqrt()).abs().max() < 4.5
    assert ((found.x.var(0) / truth - 1) / (2 / 1000) ** 0.5).abs().max() < 4.5


@every
def test_divergence_names_step_and_rows(method):
    def broken(u):
        return network(u) + torch.where((torch.arange(len(u)) % 4 == 1)[:, None, None, None], torch.nan, 0.0)

    _, likelihood = linear()
    with pytest.raises(DivergedError, match=r"rows \[1\] .*step 0"):
        method(bayes(push(StandardNormal((2,)), broken, SHAPE), likelihood), 4, Rows(4))


@every
def test_progress_ends_complete(method):
    _, likelihood = linear()
    states = list(method.run(bayes(network_prior, likelihood), 4, Rows(4, seed=1)))
    assert [s.done for s in states] == sorted(s.done for s in states)
    assert states[-1].done == 1.0
    assert torch.isfinite(states[-1].x).all()


def test_an_instrument_without_gradient_is_refused_before_the_work():
    operator = parse_operator("identity", SHAPE)
    operator.differentiable = False
    likelihood = GaussianLikelihood(torch.zeros(1, *SHAPE), operator, 0.1)
    for method in QUICK[:7]:
        with pytest.raises(IncompatiblePrior, match="differentiated"):
            method(bayes(StandardNormal(SHAPE), likelihood), 2, Rows(1))


def test_other_noise_than_gaussian():
    """Poisson counts of a positive decoder: chains and particles against quadrature; evidence of the rest, roughly."""
    operator = parse_operator("mask:left", SHAPE)
    prior = NoisePushforward(StandardNormal((2,)), lambda u: torch.exp(network(u)), SHAPE)
    counts = torch.tensor([[3.0, 9.0, 6.0, 5.0], [12.0, 4.0, 7.0, 2.0]], dtype=DOUBLE).reshape(2, *operator.out_shape)
    likelihood = PoissonLikelihood(counts, operator, gain=5.0)
    posterior = bayes(prior, likelihood)
    mean, width, evidence = quadrature(prior, likelihood)
    smc = AnnealedSMC(particles=500)(posterior, 500, Rows(2, seed=1))
    hmc = HMC(chains=20, warmup=40, leapfrog=3, thin=1, metric="laplace")(posterior, 400, Rows(2, seed=1))
    laplace = Laplace()(posterior, 500, Rows(2, seed=1))
    bound = Variational(steps=100)(posterior, 500, Rows(2, seed=1)).diagnostics["evidence_bound"]
    for found, allowed in ((smc, 0.25), (hmc, 0.3)):
        assert ((found.mean().flatten(1) - mean) / width).abs().max() < allowed
    assert (smc.diagnostics["log_evidence"] - evidence).abs().max() < 0.25
    assert (laplace.diagnostics["log_evidence"] - evidence).abs().max() < 0.8
    assert (bound < evidence + 0.1).all()
    assert (bound > evidence - 1.5).all()
    with pytest.raises(IncompatiblePrior, match="Gaussian noise"):
        RandomiseThenOptimise()(posterior, 2, Rows(2))

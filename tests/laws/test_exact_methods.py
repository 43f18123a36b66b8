"""Every method that calls its draws exact, against the dense formula in float64: mean, covariance, evidence.

Each problem is solved by 24 rows at once, whose streams are independent. The mean over rows of any function of the
draws has the standard error that the rows show, whatever the draws of one row do among each other: that is the
correction for the effective sample size, and it trusts no diagnostic.
"""

import itertools
import math

import pytest
import torch
from laws.methods import SCHEDULE, SHAPE, codes, law
from torch.nn.functional import one_hot

from oneprior.core import Rows
from oneprior.inference import (
    HMC,
    AnnealedSMC,
    ClosedForm,
    EllipticalSlice,
    Laplace,
    RandomiseThenOptimise,
    bayes,
)
from oneprior.inference.tokens import Annealing, Enumeration, Gibbs, Informed, Lookahead
from oneprior.likelihoods import GaussianLikelihood
from oneprior.operators import Matrix, parse_operator
from oneprior.priors.mixture import ClosedFormDenoiser

DOUBLE = torch.float64
REPEATS = 24
DENSE = Matrix(Rows(1, seed=5).normal(5, 8, dtype=DOUBLE)[0] / 8**0.5, SHAPE, (5,))
GAUSSIAN = {
    "closed-form": ClosedForm(),
    "hmc": HMC(chains=8, warmup=30, leapfrog=4, thin=1, metric="laplace"),
    "hmc:identity": HMC(chains=8, warmup=60, leapfrog=10, thin=1),
    "elliptical-slice": EllipticalSlice(chains=8, warmup=80, thin=5),
    "annealed-smc": AnnealedSMC(particles=128),
    "randomise-then-optimise": RandomiseThenOptimise(candidates=4),
    "randomise-then-optimise:published": RandomiseThenOptimise(candidates=4, corrected=True),
    "laplace": Laplace(starts=2, candidates=4),
}
CODES = {
    "enumeration": Enumeration(),
    "gibbs": Annealing(particles=16, levels=12, moves=2, thin=2, move=Gibbs()),
    "informed": Annealing(particles=16, levels=20, moves=3, thin=8, move=Informed(sketch=4, block=4, refresh=3)),
    "lookahead-codes": Lookahead(chains=16, rounds=3, warmup=60, thin=8),
}


def scores(x, mean, covariance):
    """z-scores of mean and covariance of draws (S, R, d)."""
    gap = x - mean
    pairs = torch.combinations(torch.arange(len(mean)), with_replacement=True).T
    values = torch.cat([gap.mean(0), (gap[..., pairs[0]] * gap[..., pairs[1]]).mean(0)], 1)
    truth = torch.cat([torch.zeros_like(mean), covariance[pairs[0], pairs[1]]])
    return (values.mean(0) - truth) / (values.std(0) / len(values) ** 0.5).clamp_min(1e-9)


def check_scores(z):
    """Student's t with 23 degrees of freedom has mean square 23 / 21; correlated numbers scatter more."""
    assert z.abs().max() < 4.8
    assert z.square().mean() < 2.2


@pytest.mark.parametrize("words", ["mask:left", "downsample:2", "dense"])
@pytest.mark.parametrize("name", GAUSSIAN)
def test_the_gaussian_posterior(name, words):
    prior = law(DOUBLE)
    operator = DENSE if words == "dense" else parse_operator(words, SHAPE)
    y = operator(prior.sample(Rows(1, seed=3))) + 0.2 * Rows(1, seed=4).normal(*operator.out_shape, dtype=DOUBLE)
    likelihood = GaussianLikelihood(y.expand(REPEATS, *operator.out_shape), operator, 0.2)
    found = GAUSSIAN[name](bayes(prior, likelihood), 128, Rows(REPEATS, seed=1))
    assert found.exact

    A, S = operator.dense(), prior.basis @ prior.variances.diag() @ prior.basis.T + 0.02 * torch.eye(8, dtype=DOUBLE)
    M = A @ S @ A.T + 0.04 * torch.eye(len(A), dtype=DOUBLE)
    gap = y.flatten() - A @ prior.mean.flatten()
    gain = torch.linalg.solve(M, A @ S).T
    evidence = -0.5 * (gap @ torch.linalg.solve(M, gap) + torch.logdet(M) + len(A) * math.log(2 * math.pi))
    check_scores(scores(found.x.double().flatten(2), prior.mean.flatten() + gain @ gap, S - gain @ A @ S))
    log = found.diagnostics.get("log_evidence")
    if name in ("closed-form", "laplace"):
        assert (log - evidence).abs().max() < 1e-6
    elif name == "annealed-smc":  # an unbiased estimate of p(y) itself
        share = (log - evidence).exp()
        assert abs(share.mean() - 1) / (share.std() / REPEATS**0.5) < 4
        assert share.std() < 0.7


@pytest.mark.parametrize("name", CODES)
def test_the_posterior_over_codes(name):
    prior, operator = codes(), parse_operator("mask:left", SHAPE)
    y = operator(prior.sample(Rows(1, seed=3))) + 0.4 * Rows(1, seed=4).normal(*operator.out_shape)
    likelihood = GaussianLikelihood(y.expand(REPEATS, *operator.out_shape), operator, 0.4)
    found = CODES[name](bayes(prior, likelihood), 128, Rows(REPEATS, seed=1))
    assert found.exact

    grids = torch.tensor(list(itertools.product(range(3), repeat=4))).reshape(-1, 2, 2)
    x = prior.decoder(one_hot(grids, 3).movedim(-1, 1).float())
    gap = (y - operator(x)).double().flatten(1)
    joint = -0.5 * (gap / 0.4).square().sum(1) - gap.shape[1] * math.log(0.4 * math.sqrt(2 * math.pi))
    joint = joint + prior.base.table.double().flatten()
    share, x = joint.softmax(0), x.double().flatten(1)
    mean = share @ x
    covariance = (share[:, None] * (x - mean)).T @ (x - mean)
    check_scores(scores(found.x.double().flatten(2), mean, covariance))
    log = found.diagnostics.get("log_evidence")
    if name == "enumeration":
        assert (log - joint.logsumexp(0)).abs().max() < 1e-4
    elif log is not None:
        ratio = (log.double() - joint.logsumexp(0)).exp()
        assert abs(ratio.mean() - 1) / (ratio.std() / REPEATS**0.5) < 4


def test_scores_see_a_width_that_is_a_tenth_off():
    x = 1.1 * Rows(REPEATS, seed=1).normal(128, 2, dtype=DOUBLE).transpose(0, 1)
    z = scores(x, torch.zeros(2, dtype=DOUBLE), torch.eye(2, dtype=DOUBLE))
    with pytest.raises(AssertionError):
        check_scores(z)


def test_a_denoiser_of_a_gaussian_is_solved_in_closed_form():
    prior = ClosedFormDenoiser(law(DOUBLE), SCHEDULE)
    operator = parse_operator("mask:left", SHAPE)
    likelihood = GaussianLikelihood(torch.zeros(1, *operator.out_shape, dtype=DOUBLE), operator, 0.2)
    a, b = (ClosedForm()(bayes(form, likelihood), 2, Rows(1)).x for form in (prior, law(DOUBLE)))
    assert torch.equal(a, b)

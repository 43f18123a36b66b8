"""Every law of noise on the noise road, against numerical quadrature; and the Gibbs sampler of the scale mixtures."""

import math

import pytest
import torch

from oneprior.core import AffineMap, IncompatiblePrior, Rows
from oneprior.inference import HMC, ClosedForm, EllipticalSlice, bayes, exact_posterior
from oneprior.likelihoods import GaussianLikelihood, ScaleMixture
from oneprior.likelihoods.noise_words import parse_noise_law
from oneprior.operators import Affine, Identity, Matrix
from oneprior.priors.base import StandardNormal
from oneprior.priors.gaussian import LowRankGaussian
from oneprior.priors.pushforward import push

UNITS = AffineMap.from_range(0.0, 3.0)
WORDS = ["10%", "laplace:10%", "outliers:10%:share=0.2", "unknown:2%:50%", "rician:20%", "poisson:20", "poisson:2"]
CHAINS, ROWS = 40, 5
SAMPLERS = [HMC(chains=CHAINS, warmup=80, leapfrog=6, thin=2), EllipticalSlice(chains=CHAINS, warmup=40, thin=3)]


def problem(words):
    """x = B u + c of two numbers, u ~ N(0, I), measured three times over in the units of [0, 3]."""
    decoder = Affine(Matrix(torch.tensor([[0.5, 0.2], [-0.1, 0.4]])), torch.tensor([0.1, -0.2]))
    prior = push(StandardNormal((2,)), decoder, torch.Size((2,)))
    operator = Matrix(torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, 1.2]]))
    law = parse_noise_law(words, UNITS)
    truth = decoder(Rows(ROWS, seed=3).normal(2))
    y = law.simulate(operator(UNITS.to_units(truth)), operator, Rows(ROWS, seed=9))
    return prior, decoder, law.likelihood(y, operator).pullback(UNITS)


def quadrature(decoder, likelihood):
    """Mean and covariance of x by a sum over u, (n, 2) and (n, 2, 2)."""
    line = torch.linspace(-5, 5, 151)
    u = torch.cartesian_prod(line, line)
    x = decoder(u)
    moments = []
    for i in range(likelihood.rows):
        log = likelihood.take(torch.full((len(u),), i)).log_prob(x).double() - 0.5 * u.double().square().sum(1)
        w = log.softmax(0)[:, None]
        mean = (w * x).sum(0)
        moments.append((mean, (w * (x - mean)).T.double() @ (x - mean).double()))
    return torch.stack([m for m, _ in moments]), torch.stack([c for _, c in moments])


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: s.name)
@pytest.mark.parametrize("words", WORDS)
def test_chains_agree_with_quadrature(words, sampler):
    prior, decoder, likelihood = problem(words)
    mean, covariance = quadrature(decoder, likelihood)
    draws = sampler(bayes(prior, likelihood), CHAINS * 15, Rows(ROWS, seed=1))
    x = draws.x.double().reshape(15, CHAINS, ROWS, 2)
    centred = x - mean
    scores = []
    for value, truth in (
        (x, mean),
        (centred.square(), covariance.diagonal(dim1=1, dim2=2)),
        (centred.prod(-1, keepdim=True), covariance[:, 0, 1:]),
    ):
        chain = value.mean(0)
        scores.append(((chain.mean(0) - truth) / (chain.std(0) / CHAINS**0.5)).flatten())
    z = torch.cat(scores)
    assert draws.exact
    assert z.abs().max() < 4.5
    assert z.square().mean() < 2.2  # 25 numbers, some of them correlated, of mean square about 40 / 38


def test_gibbs_with_the_closed_form_agrees_with_quadrature():
    """The level given x, then x given the level, by the method that knows only Gaussian noise."""
    law = LowRankGaussian(torch.tensor([0.1, -0.2]), torch.eye(2)[:, :1], torch.tensor([0.2]), 0.15)
    likelihood = problem("unknown:2%:50%")[2]
    root = Affine(Matrix(torch.tensor([0.35, 0.15]).sqrt().diag()), torch.tensor([0.1, -0.2]))
    mean, covariance = quadrature(root, likelihood)
    assert isinstance(likelihood, ScaleMixture)
    many, rows = likelihood.repeat(400), Rows(ROWS, seed=1).repeat(400)
    x = law.sample(rows)
    for k in range(15):
        streams = rows.stream(k)
        x = exact_posterior(law, many.given(many.draw_scale(x, streams))).sample(streams, 1)[0]
    x = x.double().reshape(400, ROWS, 2)
    variance = covariance.diagonal(dim1=1, dim2=2)
    square = (x - mean).square()
    z = torch.stack([(x.mean(0) - mean) / (variance / 400).sqrt(), (square.mean(0) - variance) / (square.std(0) / 20)])
    assert z.abs().max() < 4.5
    assert z.square().mean() < 2.2


def test_a_level_for_each_entry_is_refused_where_one_a_row_is_needed():
    law = LowRankGaussian(torch.tensor([0.1, -0.2]), torch.eye(2)[:, :1], torch.tensor([0.2]), 0.15)
    likelihood = problem("outliers:10%")[2]
    given = likelihood.given(likelihood.draw_scale(law.sample(Rows(ROWS)), Rows(ROWS)))
    assert not given.white
    with pytest.raises(IncompatiblePrior, match="one noise level for all entries"):
        ClosedForm().check(bayes(law, given))
    with pytest.raises(IncompatiblePrior, match="needs Gaussian noise"):
        ClosedForm().check(bayes(law, likelihood))
    HMC().check(bayes(law, given))


@pytest.mark.parametrize("words", ["5%", "laplace:5%", "outliers:5%", "unknown", "rician:5%", "poisson:50"])
def test_data_and_units_times_255_change_nothing(words):
    operator = Matrix(torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, 1.2]], dtype=torch.float64))
    x, other = (Rows(4, seed=s).uniform(2, dtype=torch.float64) for s in (1, 2))
    values, sizes = [], []
    for scale in (1.0, 255.0):
        units = AffineMap.from_range(0.0, scale)
        law = parse_noise_law(words, units)
        y = law.simulate(operator(units.to_units(x)), operator, Rows(4, seed=5))
        likelihood = law.likelihood(y, operator).pullback(units)
        values.append(likelihood.log_prob(x) - likelihood.log_prob(other))
        sizes.append(torch.stack([likelihood.misfit(x), law.likelihood(y, operator).misfit(units.to_units(x))]))
    assert torch.allclose(values[0], values[1], rtol=1e-8, atol=1e-8)
    assert torch.allclose(sizes[0], sizes[1], rtol=1e-8)
    assert torch.allclose(sizes[0][0], sizes[0][1], rtol=1e-8)


def test_an_unknown_level_widens_the_posterior_and_is_found():
    """With many numbers the level is known, and the posterior is that of the Gaussian of that level."""
    law = LowRankGaussian(torch.zeros(1, 20, 20), torch.eye(400)[:, :2], torch.tensor([3.0, 2.0]), 0.5)
    x = law.sample(Rows(2, seed=1))
    y = x + 0.2 * Rows(2, seed=2).normal(1, 20, 20)
    unknown = parse_noise_law("unknown", AffineMap()).likelihood(y, Identity((1, 20, 20)))
    level = unknown.level(x)
    assert (level / 0.2 - 1).abs().max() < 4 / 800**0.5
    gaussian = GaussianLikelihood(y, Identity((1, 20, 20)), 0.2)
    move = 0.01 * Rows(2, seed=3).normal(1, 20, 20)
    a, b = (f.log_prob(x + move) - f.log_prob(x) for f in (unknown, gaussian))
    assert torch.allclose(a, b, atol=0.1 * math.sqrt(400) * 0.05)

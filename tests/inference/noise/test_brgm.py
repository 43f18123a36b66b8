"""BRGM as published: its objective term by term, its schedule, and the defects of its variational samples."""

import math

import pytest
import torch

from oneprior.core import ConditionSpec, InputError, Rows
from oneprior.inference import bayes
from oneprior.inference.noise.brgm import BRGM, BRGMVariational, _ramp, _Task
from oneprior.likelihoods import GaussianLikelihood
from oneprior.models.configs.gan import GANConfig
from oneprior.models.gan import GAN
from oneprior.operators import parse_operator
from oneprior.priors.styles import StyleNormal
from oneprior.training.order import seeded


@pytest.fixture(scope="module")
def prior():
    with seeded(0, "brgm"):
        model = GAN(GANConfig(network="stylegan2", latent=8, width=8, mapping_layers=2), (1, 8, 8))
    return model.eval().prior(space="w+")


def evidence(prior, words="downsample:2", n=2):
    operator = parse_operator(words, prior.event_shape)
    y = operator(prior.sample(Rows(n, seed=4)))
    return GaussianLikelihood(y, operator, 0.05)


@pytest.mark.parametrize("words", ["downsample:2", "mask:left"])
@pytest.mark.parametrize("program", ["tensorflow", "pytorch"])
def test_the_objective_is_the_sum_of_the_published_terms(prior, program, words):
    likelihood = evidence(prior, words)
    posterior = bayes(prior, likelihood)
    base = posterior.prior
    assert isinstance(base, StyleNormal)

    def features(a, b):
        return (a - b).abs().flatten(1).mean(1)

    task = _Task(posterior, program, features, None)
    u = Rows(2, seed=1).normal(*prior.noise_shape)
    w = base.decode(u)
    x = prior.decode(u)
    operator = likelihood.operator
    picture = operator.adjoint if words.startswith("mask") else (lambda y: y)
    seen, target = picture(operator(x)), picture(likelihood.y)
    radius = base.root[0].square().sum().sqrt()  # root mean square of |w - w_avg| over all draws
    for i in range(2):
        mse = (127.5 * (seen[i] - target[i])).square().mean()
        prior_term = ((w[i] - base.mean[0]) / radius).square().mean()
        cosines = torch.stack([torch.cosine_similarity(a, b, dim=0) for a in w[i] for b in w[i]])
        apart = (1 - cosines).abs()
        lines = 3 * apart.mean() if program == "tensorflow" else 0.1 * apart.sum()
        look = features(seen[i : i + 1], target[i : i + 1])[0] * (1 if program == "tensorflow" else 1e7)
        expected = look + 0.001 * mse + 100 * prior_term + lines
        assert float(task.loss(w)[i].detach()) == pytest.approx(float(expected), rel=1e-4)


def test_the_radius_is_that_of_draws(prior):
    base = prior.base
    w = base.decode(Rows(4000, seed=2).normal(*prior.noise_shape))[:, 0]
    task = _Task(bayes(prior, evidence(prior)), "tensorflow", None, None)
    measured = (w - base.mean).square().sum(1).mean().sqrt()
    assert float(task.radius_of(w[:1])) == pytest.approx(float(measured), rel=0.03)


def test_the_ramps_are_published():
    assert _ramp(0.0) == 0.0
    assert _ramp(0.025) == pytest.approx(0.5)
    assert _ramp(0.5) == 1.0
    assert _ramp(0.875) == pytest.approx(0.5 - 0.5 * math.cos(math.pi * 0.5))


@pytest.mark.parametrize("program", ["tensorflow", "pytorch"])
def test_it_descends_and_a_row_does_not_depend_on_its_batch(prior, program):
    likelihood = evidence(prior)
    states = list(BRGM(program, steps=60, every=20).run(bayes(prior, likelihood), 2, Rows(2, seed=3)))
    assert bool((states[-1].diagnostics["loss"] < states[0].diagnostics["loss"]).all())
    assert states[-1].x.shape == (2, 2, 1, 8, 8)
    assert torch.equal(states[-1].x[0], states[-1].x[1])
    alone = BRGM(program, steps=60)(bayes(prior, likelihood.take(torch.tensor([1]))), 1, Rows([1], seed=3))
    assert torch.allclose(alone.x[0, 0], states[-1].x[0, 1], atol=2e-3)


def test_variational_samples_keep_the_deviation_they_began_with(prior):
    """The published defects: the returned spread is the prior's, whatever the measurement, and ignores the noise."""
    posterior = bayes(prior, evidence(prior, "identity"))
    draws = BRGMVariational(steps=20)(posterior, 60, Rows(2, seed=3))
    assert not draws.exact
    loud = bayes(prior, GaussianLikelihood(posterior.likelihood.y, posterior.likelihood.operator, 5.0))
    assert torch.allclose(BRGMVariational(steps=20)(loud, 3, Rows(2, seed=3)).x, draws.x[:3], atol=1e-4)
    assert float(draws.x[1:].std(0).mean()) > 0.5 * float(prior.sample(Rows(60)).std(0).mean())


def test_a_strange_program_is_refused():
    with pytest.raises(InputError, match="programs tensorflow and pytorch"):
        BRGM("jax")


def test_rows_of_other_conditions_have_their_own_statistics():
    """A row has the average and the radius of its own condition, whatever the row beside it is told."""
    label = ConditionSpec("label", "class", classes=3)
    with seeded(0, "brgm"):
        model = GAN(GANConfig(network="stylegan2", latent=8, width=8, mapping_layers=2), (1, 8, 8), (label,))
    prior = model.eval().prior({"label": torch.tensor([0, 2])}, space="w+")
    task = _Task(bayes(prior, evidence(prior)), "tensorflow", None, None)
    for row in range(2):
        alone = model.prior({"label": torch.tensor([0, 2][row : row + 1])}, space="w+")
        one = _Task(bayes(alone, evidence(prior).take(torch.tensor([row]))), "tensorflow", None, None)
        w = one.average(1) + 0.3 * Rows([row], seed=2).normal(*prior.base.event_shape)
        both = torch.cat([w, w])
        assert torch.allclose(task.average(2)[row], one.average(1)[0], atol=1e-6)
        assert torch.allclose(task.loss(both)[row], one.loss(w)[0], rtol=1e-4)

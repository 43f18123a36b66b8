"""Image and noise level drawn exactly: against brute force over sigma, and the promises of a sampler."""

import pytest
import torch

from oneprior.core import IncompatiblePrior, Rows
from oneprior.inference import bayes
from oneprior.inference.unknown_level import UnknownLevel
from oneprior.likelihoods import GaussianLikelihood
from oneprior.likelihoods.unknown_noise import UnknownNoiseLikelihood
from oneprior.operators import parse_operator
from oneprior.priors.gaussian import LowRankGaussian
from oneprior.priors.mixture import GaussianMixturePrior

SHAPE = (1, 3, 4)


def gaussian(seed=0):
    rows = Rows(12, seed=seed)
    basis = torch.linalg.qr(rows.normal(3, dtype=torch.float64))[0]
    mean = 0.6 * rows.normal(1, dtype=torch.float64).reshape(SHAPE)
    return LowRankGaussian(mean, basis, torch.tensor([1.0, 0.4, 0.1]).double(), 0.01)


def mixture():
    return GaussianMixturePrior([gaussian(0), gaussian(1)], torch.tensor([0.4, 0.6]).double())


def evidence(law, words, sigma=0.3, n=3):
    operator = parse_operator(words, SHAPE)
    y = operator(law.sample(Rows(n, seed=3))) + sigma * Rows(n, seed=4).normal(*operator.out_shape, dtype=torch.float64)
    return UnknownNoiseLikelihood(y, operator, 0.02, 2.0)


@pytest.mark.parametrize("words", ["mask:left", "downsample:2", "identity"])
@pytest.mark.parametrize("make", [gaussian, mixture])
def test_it_is_the_integral_over_sigma(make, words):
    law = make()
    likelihood = evidence(law, words)
    found = UnknownLevel()(bayes(law, likelihood), 3000, Rows(3, seed=1))
    A = likelihood.operator.dense()
    logs = torch.linspace(torch.tensor(0.02).log(), torch.tensor(2.0).log(), 4001, dtype=torch.float64)
    components = law.components if isinstance(law, GaussianMixturePrior) else [law]
    weights = law.weights if isinstance(law, GaussianMixturePrior) else torch.ones(1).double()
    total, mean = 0.0, 0.0
    for log_sigma in logs:
        for w, c in zip(weights, components, strict=True):
            S = (c.basis * c.variances) @ c.basis.T + c.noise_variance * torch.eye(12).double()
            M = A @ S @ A.T + (2 * log_sigma).exp() * torch.eye(len(A)).double()
            gap = likelihood.y.flatten(1) - A @ c.mean.flatten()
            density = w * torch.distributions.MultivariateNormal(torch.zeros(len(A)).double(), M).log_prob(gap).exp()
            total = total + density
            mean = mean + density[:, None] * (c.mean.flatten() + gap @ torch.linalg.solve(M, A @ S))
    centre = (mean / total[:, None]).reshape(3, *SHAPE)
    assert torch.allclose(found.diagnostics["log_evidence"], (total / len(logs)).log(), atol=0.01)
    assert torch.allclose(found.mean(), centre, atol=2e-3)
    z = (found.x.mean(0) - centre) / (found.x.var(0) / 3000).sqrt()
    assert z.abs().max() < 4.5


def test_a_row_does_not_depend_on_its_batch_and_the_level_is_found():
    law = LowRankGaussian(torch.zeros(1, 16, 16), torch.zeros(256, 0), torch.zeros(0), 0.01)
    operator = parse_operator("identity", (1, 16, 16))
    y = 0.1 * Rows(4, seed=1).normal(1, 16, 16) + 0.5 * Rows(4, seed=2).normal(1, 16, 16)
    likelihood = UnknownNoiseLikelihood(y, operator, 1e-3, 10.0)
    found = UnknownLevel()(bayes(law, likelihood), 19, Rows(4, seed=5))
    assert torch.allclose(found.diagnostics["noise level"], torch.tensor(0.5), atol=0.08)
    alone = UnknownLevel()(bayes(law, likelihood.take(torch.tensor([2]))), 19, Rows([2], seed=5))
    assert torch.allclose(alone.x[:, 0], found.x[:, 2], atol=1e-4)


def test_it_says_what_it_serves():
    law = gaussian()
    operator = parse_operator("identity", SHAPE)
    with pytest.raises(IncompatiblePrior, match="unknown level"):
        UnknownLevel()(bayes(law, GaussianLikelihood(torch.zeros(1, *SHAPE), operator, 0.1)), 3, Rows(1))

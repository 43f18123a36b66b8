"""Problems of the noise road with known answers: linear-Gaussian ones in closed form, small ones by quadrature."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from oneprior.core import Rows
from oneprior.likelihoods import GaussianLikelihood
from oneprior.operators import parse_operator
from oneprior.priors.base import StandardNormal
from oneprior.priors.gaussian import LowRankGaussian
from oneprior.priors.pushforward import NoisePushforward

DOUBLE = torch.float64
SHAPE = torch.Size((1, 2, 3))


def gaussian(rank: int = 2) -> LowRankGaussian:
    """An anisotropic Gaussian in six dimensions."""
    basis = torch.linalg.qr(Rows(6, seed=0).normal(2, dtype=DOUBLE))[0]
    mean = torch.full(tuple(SHAPE), 0.2, dtype=DOUBLE)
    return LowRankGaussian(mean, basis[:, :rank], torch.tensor([1.5, 0.3], dtype=DOUBLE)[:rank], 0.1)


def linear(n: int = 4, noise: float = 0.3, words: str = "mask:left") -> tuple[LowRankGaussian, GaussianLikelihood]:
    """That Gaussian, and a measurement of n of its draws."""
    law, operator = gaussian(), parse_operator(words, SHAPE)
    x = law.mean + 0.9 * Rows(n, seed=3).normal(*SHAPE, dtype=DOUBLE)
    y = operator(x) + noise * Rows(n, seed=9).normal(*operator.out_shape, dtype=DOUBLE)
    return law, GaussianLikelihood(y, operator, noise)


def network(u: Tensor) -> Tensor:
    """A small fixed tanh network, (n, 2) -> (n, 1, 2, 3)."""
    fixed = Rows(1, seed=11)
    a, b = 1.06 * fixed.normal(2, 16, dtype=DOUBLE)[0], 0.5 * fixed.normal(16, dtype=DOUBLE)[0]
    c = fixed.normal(16, 6, dtype=DOUBLE)[0] / 4
    return (torch.tanh(u @ a + b) @ c).reshape(-1, *SHAPE)


def nonlinear(n: int = 20, noise: float = 0.3) -> tuple[NoisePushforward, GaussianLikelihood]:
    """That network on two latents, its left pixels measured."""
    operator = parse_operator("mask:left", SHAPE)
    x = network(Rows(n, seed=5).normal(2, dtype=DOUBLE))
    y = operator(x) + noise * Rows(n, seed=6).normal(*operator.out_shape, dtype=DOUBLE)
    return NoisePushforward(StandardNormal((2,)), network, SHAPE), GaussianLikelihood(y, operator, noise)


def quadrature(prior: NoisePushforward, likelihood: GaussianLikelihood) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and deviation of x, (n, pixels), and log evidence, (n,), on a grid of two latents."""
    line = torch.linspace(-6, 6, 401, dtype=DOUBLE)
    u = torch.cartesian_prod(line, line)
    x = prior.decode(u)
    means, deviations, evidence = [], [], []
    for i in range(likelihood.rows or 0):
        level = likelihood.take(torch.full((len(u),), i)).log_prob(x) - 0.5 * u.square().sum(1)
        weight, flat = level.softmax(0)[:, None], x.flatten(1)
        mean = (weight * flat).sum(0)
        means.append(mean)
        deviations.append((weight * (flat - mean).square()).sum(0).sqrt())
        evidence.append(level.logsumexp(0) + 2 * math.log(0.03) - math.log(2 * math.pi))
    return torch.stack(means), torch.stack(deviations), torch.stack(evidence)


def z_scores(x: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    """Of all means and covariances of independent draws x (draws, n, ...) against (n, d) and (d, d)."""
    x = x.flatten(2)
    off = x - mean
    first = off.mean(0) / (covariance.diagonal() / len(x)).sqrt()
    products = off[..., :, None] * off[..., None, :]
    variance = covariance.diagonal()[:, None] * covariance.diagonal() + covariance.square()  # Isserlis
    second = (products.mean(0) - covariance) / (variance / len(x)).sqrt()
    return torch.cat(
        [first.flatten(), second.triu().flatten(1)[:, torch.ones_like(covariance).triu().flatten() > 0].flatten()]
    )


def exact_moments(law: LowRankGaussian, likelihood: GaussianLikelihood) -> tuple[Tensor, Tensor, Tensor]:
    """Posterior mean (n, d), covariance (d, d) and log evidence (n,) by dense matrices."""
    A = likelihood.linear_operator.dense()
    S = law.basis * law.variances @ law.basis.T + law.noise_variance * torch.eye(law.size, dtype=DOUBLE)
    M = A @ S @ A.T + likelihood.noise_level**2 * torch.eye(len(A), dtype=DOUBLE)
    r = likelihood.y.flatten(1) - A @ law.mean.flatten()
    gain = torch.linalg.solve(M, A @ S).T
    mean = law.mean.flatten() + r @ gain.T
    quadratic = (r * torch.linalg.solve(M, r.T).T).sum(1)
    evidence = -0.5 * (quadratic + torch.logdet(M) + len(A) * math.log(2 * math.pi))
    return mean, S - gain @ A @ S, evidence

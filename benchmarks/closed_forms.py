"""Posteriors that are known, for `posterior_bias`: Gaussians, two modes, a grid of codes.

Each problem is a few measurements (cases) by one instrument, with the law of x in every form that some method takes: as
itself, as a denoiser, as a map of noise, as codes. The answers are made here by dense matrices, sums and quadrature in
float64, by none of the package's own formulas.

- Gaussians: 8 numbers, eigenvalues from 1 to 0.001 in random directions, sigma 0.05 and 0.5.
- A mixture whose two components differ where nothing is measured, and hardly where something is. Its denoiser is that
  of a network: exact, and knowing no more of its data than their mean and covariance.
- A fold, x = (0.7 u1^2 + 0.2 u1 + 0.5 u2, u1): x1 is measured, u1 may have either sign. What a mixture is for a
  denoiser, that is a fold for a method that works in the noise.
- Codes: 4 of them on a 2 x 2 grid, a table of 256 probabilities and a random decoder.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from oneprior.core import Rows
from oneprior.likelihoods import GaussianLikelihood
from oneprior.operators import LinearOperator, Matrix, parse_operator
from oneprior.operators.mask import Mask
from oneprior.priors.base import Prior, StandardNormal
from oneprior.priors.diffusion.schedule import DenoisingPrior
from oneprior.priors.diffusion.schedules import EDMSchedule
from oneprior.priors.gaussian import LowRankGaussian
from oneprior.priors.mixture import ClosedFormDenoiser, GaussianMixturePrior
from oneprior.priors.pushforward import NoisePushforward, Pushforward
from oneprior.priors.tokens import TabularTokens

SHAPE = torch.Size((1, 2, 4))
LEVELS = (0.05, 0.5)
_DOUBLE = torch.float64


@dataclass(frozen=True)
class Answer:
    """What is known of one case; events flattened, d numbers.

    Args:
        mean: (d,).
        deviation: (d,).
        log_evidence: log p(y).
        lesser: the mass of the less likely mode, where there are two.
        share: of every grid of codes, (G,), where they can be counted.
    """

    mean: Tensor
    deviation: Tensor
    log_evidence: float
    lesser: float | None = None
    share: Tensor | None = None


@dataclass(frozen=True)
class Problem:
    """Some measurements by one instrument, and their answers.

    Args:
        name: of the problem.
        kind: "gaussian", "modes" or "codes".
        forms: the law of x in every form; a method takes the first that serves it.
        likelihood: of the cases.
        answers: one a case.
        lesser: (S, d) -> whether a draw is in the mode that is less likely in this case.
        events: every grid of codes decoded, (G, d).
    """

    name: str
    kind: str
    forms: tuple[Prior, ...]
    likelihood: GaussianLikelihood
    answers: tuple[Answer, ...]
    lesser: tuple[Callable[[Tensor], Tensor], ...] = ()
    events: Tensor | None = None


class Network(DenoisingPrior):
    """An exact denoiser that says of its data what a network's prior says: their mean and covariance."""

    def __init__(self, exact: ClosedFormDenoiser, moments: LowRankGaussian) -> None:
        self.exact, self.moments = exact, moments
        self.schedule, self.event_shape = exact.schedule, exact.event_shape

    def denoise(self, x_t: Tensor, t: Tensor) -> Tensor:
        return self.exact.denoise(x_t, t)


def problems() -> list[Problem]:
    """All of them."""
    keep = torch.tensor([1, 0, 0, 1, 0, 1, 0, 0], dtype=torch.bool).reshape(SHAPE[1:])
    dense = Matrix(Rows(1, seed=5).normal(5, 8)[0] / 8**0.5, SHAPE, (5,))
    instruments = {"mask": Mask(keep, SHAPE), "downsample": parse_operator("downsample:2", SHAPE), "dense": dense}
    gaussians = [_gaussian(name, operator) for name, operator in instruments.items()]  # type: ignore[arg-type]
    return [*gaussians, _mixture(), _fold(), _codes()]


# Gaussians ----------------------------------------------------------------------------------------------------------


def low_rank(mean: Tensor, covariance: Tensor, shape: torch.Size) -> LowRankGaussian:
    """A dense covariance as a `LowRankGaussian`, float32."""
    values, vectors = torch.linalg.eigh(covariance.double())
    least = float(values[0])
    return LowRankGaussian(
        mean.float().reshape(shape), vectors[:, 1:].float(), (values[1:] - least).clamp_min(0).float(), least
    )


def conditioned(mean: Tensor, S: Tensor, A: Tensor, y: Tensor, sigma: float) -> tuple[Tensor, Tensor, float]:
    """Mean, covariance and log evidence of x ~ N(mean, S) under y = A x + sigma noise, densely, float64."""
    M = A @ S @ A.T + sigma**2 * torch.eye(len(A), dtype=_DOUBLE)
    gap = y - A @ mean
    gain = torch.linalg.solve(M, A @ S).T
    level = -0.5 * (gap @ torch.linalg.solve(M, gap) + torch.logdet(M) + len(A) * math.log(2 * math.pi))
    return mean + gain @ gap, S - gain @ A @ S, float(level)


def _gaussian(name: str, operator: LinearOperator) -> Problem:
    directions = torch.linalg.qr(Rows(1, seed=0).normal(8, 8, dtype=_DOUBLE)[0])[0]
    S = directions @ torch.logspace(0, -3, 8, dtype=_DOUBLE).diag() @ directions.T
    mean = 0.3 * Rows(1, seed=1).normal(8, dtype=_DOUBLE)[0]
    law = low_rank(mean, S, SHAPE)
    likelihood = _measured(law.sample(Rows(2, seed=2)), operator, LEVELS)
    A = operator.dense()
    answers = []
    for y, sigma in zip(likelihood.y.double().flatten(1), LEVELS, strict=True):
        centre, covariance, evidence = conditioned(mean, S, A, y, sigma)
        answers.append(Answer(centre, covariance.diagonal().sqrt(), evidence))
    forms = (law, ClosedFormDenoiser(law, EDMSchedule()))
    return Problem(f"gaussian, {name}", "gaussian", forms, likelihood, tuple(answers))


def _measured(x: Tensor, operator: LinearOperator, levels: tuple[float, ...]) -> GaussianLikelihood:
    sigma = torch.tensor(levels, dtype=x.dtype)
    clean = operator(x)
    noise = Rows(len(levels), seed=3).normal(*operator.out_shape, dtype=x.dtype)
    return GaussianLikelihood(clean + sigma.reshape(-1, *[1] * (clean.dim() - 1)) * noise, operator, sigma)


# Two modes ----------------------------------------------------------------------------------------------------------


def _mixture() -> Problem:
    shape, levels = torch.Size((1, 2, 2)), (0.1, 0.5)
    turn = torch.linalg.qr(Rows(1, seed=7).normal(4, 4, dtype=_DOUBLE)[0])[0]
    covariances = [turn @ torch.tensor(v, dtype=_DOUBLE).diag() @ turn.T for v in ([0.2, 0.1, 0.05, 0.01],) * 2]
    apart = torch.tensor([0.06, -0.05, 0.9, -0.8], dtype=_DOUBLE)
    means, weights = [apart, -apart], torch.tensor([0.6, 0.4], dtype=_DOUBLE)
    law = GaussianMixturePrior(
        [low_rank(m, S, shape) for m, S in zip(means, covariances, strict=True)], weights.float()
    )
    centre = weights @ torch.stack(means)
    parts = zip(weights, means, covariances, strict=True)
    spread = torch.stack([w * (S + torch.outer(m - centre, m - centre)) for w, m, S in parts]).sum(0)
    keep = torch.tensor([[True, True], [False, False]])
    operator = Mask(keep, shape)
    likelihood = _measured(law.sample(Rows(2, seed=8)), operator, levels)
    A, answers, lesser = operator.dense(), [], []
    for y, sigma in zip(likelihood.y.double().flatten(1), levels, strict=True):
        parts = [conditioned(m, S, A, y, sigma) for m, S in zip(means, covariances, strict=True)]
        joint = torch.tensor([p[2] for p in parts], dtype=_DOUBLE) + weights.log()
        share, m, C = joint.softmax(0), torch.stack([p[0] for p in parts]), torch.stack([p[1] for p in parts])
        mean = share @ m
        variance = share @ (C.diagonal(dim1=1, dim2=2) + (m - mean).square())
        small = int(share.argmin())
        answers.append(Answer(mean, variance.sqrt(), float(joint.logsumexp(0)), float(share[small])))
        lesser.append(_nearer(m[small], m[1 - small]))
    exact = ClosedFormDenoiser(law, EDMSchedule())
    forms = (law, Network(exact, low_rank(centre, spread, shape)))
    return Problem("mixture", "modes", forms, likelihood, tuple(answers), tuple(lesser))


def _nearer(this: Tensor, other: Tensor) -> Callable[[Tensor], Tensor]:
    """x -> whether it lies on this one's side of the plane between the modes, of which next to no mass is beyond."""
    middle, along = (this + other) / 2, (this - other) * torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=_DOUBLE)
    return lambda x: (x - middle) @ along > 0


def fold(u: Tensor) -> Tensor:
    """(n, 2) -> (n, 1, 2)."""
    a, b = u.unbind(1)
    return torch.stack([0.7 * a.square() + 0.2 * a + 0.5 * b, a], 1).unsqueeze(1)


def _fold() -> Problem:
    shape, levels = torch.Size((1, 2)), (0.1, 0.4)
    operator = Mask(torch.tensor([True, False]), shape)
    y = torch.tensor([[1.3], [1.0]], dtype=_DOUBLE)
    likelihood = GaussianLikelihood(y, operator, torch.tensor(levels, dtype=_DOUBLE))
    line = torch.linspace(-7, 7, 1401, dtype=_DOUBLE)
    u = torch.cartesian_prod(line, line)
    x = fold(u).flatten(1)
    cell = math.log(float(line[1] - line[0]) ** 2) - math.log(2 * math.pi)
    answers, lesser = [], []
    for value, sigma in zip(y[:, 0], levels, strict=True):
        level = -0.5 * ((value - x[:, 0]) / sigma).square() - math.log(sigma * math.sqrt(2 * math.pi))
        joint = level - 0.5 * u.square().sum(1) + cell
        weight = joint.softmax(0)
        mean = weight @ x
        deviation = (weight @ (x - mean).square()).sqrt()
        side = 1.0 if float(weight[u[:, 0] > 0].sum()) < 0.5 else -1.0
        mass = float(weight[side * u[:, 0] > 0].sum())
        answers.append(Answer(mean, deviation, float(joint.logsumexp(0)), mass))
        lesser.append(lambda x, side=side: side * x[:, 1] > 0)
    prior = NoisePushforward(StandardNormal((2,)), fold, shape)
    return Problem("fold", "modes", (prior,), likelihood, tuple(answers), tuple(lesser))


# Codes --------------------------------------------------------------------------------------------------------------

_WEIGHT = Rows(1, seed=8).normal(16, 9)[0]


def decoder(event: Tensor) -> Tensor:
    """One-hot codes (n, 4, 2, 2) -> (n, 1, 3, 3)."""
    return torch.tanh(0.7 * event.flatten(1) @ _WEIGHT.to(event)).reshape(-1, 1, 3, 3)


def _codes() -> Problem:
    shape, levels = torch.Size((1, 3, 3)), (0.3, 1.0)
    law = TabularTokens(1.5 * Rows(1, seed=2).normal(4, 4, 4, 4)[0], (2, 2))
    prior = Pushforward(law, decoder, shape)
    operator = parse_operator("mask:random:0.3:seed=1", shape)
    assert isinstance(operator, LinearOperator)
    likelihood = _measured(prior.sample(Rows(2, seed=3)), operator, levels)
    codes = torch.cartesian_prod(*[torch.arange(4)] * 4).reshape(-1, 2, 2)
    events = decoder(one_hot(codes, 4).movedim(-1, 1).float())
    x, seen, answers = events.double().flatten(1), operator(events).double().flatten(1), []
    for y, sigma in zip(likelihood.y.double().flatten(1), levels, strict=True):
        level = -0.5 * ((y - seen) / sigma).square() - math.log(sigma * math.sqrt(2 * math.pi))
        joint = level.sum(1) + law.table.double().flatten()
        share = joint.softmax(0)
        mean = share @ x
        deviation = (share @ (x - mean).square()).sqrt()
        answers.append(Answer(mean, deviation, float(joint.logsumexp(0)), share=share))
    return Problem("codes", "codes", (prior,), likelihood, tuple(answers), events=x)

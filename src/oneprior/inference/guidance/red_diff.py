"""Regularisation by denoising along a diffusion: the restoration as an optimisation (Mardani et al. 2023, RED-diff).

A variational law q(x) = N(mu, small^2 I) is fitted to p(x | y). The divergence along the diffusion gives a loss whose
gradient needs no backpropagation through the denoiser (proposition 2, algorithm 1): for t from 1 down to 0 draw noise,
x_t = alpha_t mu + sigma_t noise, and step along

    grad |y - A(mu)|^2 / 2 + lambda (sigma_t / alpha_t) (eps(x_t) - noise),

eps = (x_t - alpha_t E[x | x_t]) / sigma_t,

by Adam. The spread of q is not learned: this is a point estimate, and its "draws" differ by the noise of the
optimisation alone. It is offered for what it gives, a restoration that looks sharp, and marked as a point.

As published both terms are means over their entries, and lambda stands for the noise level (lambda .25, lr .5; Adam
keeps most of this scale-free). Our default is the loss itself, sums over entries with the noise level where it belongs,

    |y - A(mu)|^2 / (2 sigma^2) + |mu - E[x | x_t]|^2 / (2 s_t^2),      E[x | x_t] held fixed, s_t = sigma_t / alpha_t,

whose second term is the same regulariser with the weight at which its fixed point balances Gaussian evidence.

Measured bias (`benchmarks/posterior_ratios.py`; a Gaussian with an exact denoiser, sigma = .05): the spread of its
points over the true deviations is 0.53 (seen) and 1.30 (unseen) as published with 100 steps, 0.35 and 0.43 by default.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from oneprior.core import Rows, inner
from oneprior.inference.guidance.walk import DDPM, Tally, on_schedule, table_grid, watched
from oneprior.inference.posterior import Draws, Needs, Posterior, Sampler
from oneprior.likelihoods.gaussian import GaussianLikelihood
from oneprior.priors.diffusion.samplers import Grid
from oneprior.priors.diffusion.schedule import DenoisingPrior, Schedule

_GRID = Grid(low=0.02, high=10.0)


@dataclass(frozen=True)
class REDDiff(Sampler):
    """A point estimate by stochastic optimisation; any differentiable operator.

    Args:
        steps: of Adam, as many as network calls.
        weight: lambda; None takes both terms from the noise level (see the module).
        rate: Adam's step size at the first step.
        falling: whether the rate falls linearly to 0.
        grid: the noise levels that the steps visit, falling.
        schedule: whose noise levels; those of the prior by default.
    """

    name: ClassVar[str] = "red-diff"
    needs: ClassVar[Needs] = Needs(prior=DenoisingPrior, gaussian=True, differentiable=True, density=True)
    steps: int = 100
    weight: float | None = None
    rate: float = 0.1
    falling: bool = True
    grid: Grid = _GRID
    schedule: Schedule | None = None

    @classmethod
    def published(cls, steps: int = 1000) -> Self:
        """lambda .25 and lr .5 over 1,000 steps of the linear schedule (100 in the public code's own example)."""
        return cls(steps, 0.25, 0.5, False, table_grid(steps), DDPM)

    @torch.no_grad()
    def iterate(self, posterior: Posterior, draws: int, rows: Rows) -> Iterator[Draws]:
        assert isinstance(posterior.prior, DenoisingPrior)
        prior = on_schedule(posterior.prior, self.schedule)
        likelihood = posterior.likelihood.repeat(draws)
        assert isinstance(likelihood, GaussianLikelihood)
        streams, tally = rows.to(prior.device).repeat(draws), Tally(posterior, draws, self.name)
        path = self.grid.path(prior.schedule, self.steps, prior.device)
        mu = self._start(prior, likelihood, draws * posterior.n)
        first, second = torch.zeros_like(mu), torch.zeros_like(mu)
        for k in range(len(path)):
            noise = streams.normal(*prior.event_shape)
            x0 = prior.denoise(path.alpha[k] * mu + path.sigma[k] * noise, path.t[k].to(mu))
            slope = self._slope(likelihood, mu, x0, noise, path.level(k))
            first, second = first.lerp(slope, 0.1), second.lerp(slope.square(), 0.001)
            step = (first / (1 - 0.9 ** (k + 1))) / ((second / (1 - 0.999 ** (k + 1))).sqrt() + 1e-8)
            mu = mu - self.rate * (1 - k / len(path) if self.falling else 1.0) * step
            watched(mu, self.name, k, posterior.n)
            yield tally.state(mu, k + 1, k + 1, (k + 1) / len(path), point=True)

    def _start(self, prior: DenoisingPrior, likelihood: GaussianLikelihood, rows: int) -> Tensor:
        """A^+ y, as published, where the operator is linear; the data's mean, or 0, else."""
        if likelihood.linear:
            return likelihood.linear_operator.pinv(likelihood.y)
        centre = torch.zeros(prior.event_shape, device=prior.device) if prior.moments is None else prior.moments.mean
        return centre.expand(rows, *prior.event_shape).clone()

    def _slope(self, likelihood: GaussianLikelihood, mu: Tensor, x0: Tensor, noise: Tensor, level: float) -> Tensor:
        """The gradient of the loss in mu."""
        with torch.enable_grad():
            point = mu.detach().requires_grad_()
            misfit = likelihood.residual(point)
            value = 0.5 * inner(misfit, misfit)
            if self.weight is None:
                value = value / likelihood.noise_level.square()
            (slope,) = torch.autograd.grad(value.sum(), point)
        if self.weight is None:
            return slope + (mu - x0) / level**2
        implied = (mu - x0) / level + noise  # eps(x_t), since x_t = alpha_t mu + sigma_t noise
        return slope / misfit[0].numel() + self.weight * level * (implied - noise) / mu[0].numel()

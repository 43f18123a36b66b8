"""DAPS as published: at each noise level a few steps of the ODE, then Langevin steps around where they end.

Zhang, Chu, Berner, Meng, Anandkumar, Song 2024 (algorithm 1, equation 8). At a level s of x_t = x + s noise

    x0^    = the probability-flow ODE from (x_t, s), a few Euler steps,
    x0    <- x0 - eta grad [ |x0 - x0^|^2 / (2 s^2) + |y - A(x0)|^2 / (c tau^2) ] + sqrt(2 eta) noise.

and x_t' = x0 + s' noise at the next level. The spread of x0 around x0^ is taken as s^2 I: that of a prior without any
shape. The two public codes differ in c: the paper's own repository has 1, InverseBench's copy 2, which is the
likelihood of noise tau; and both set tau to .01 whatever the noise is, which with steps too few to converge can come
out near the right spread. Both are kept, beside the form with tau = sigma, to be measured against; our own `DAPS` draws
x0 in closed form instead, and `LatentDAPS` where there is none.

Measured bias (`benchmarks/posterior_ratios.py`; a Gaussian with an exact denoiser, sigma = .05): deviations of what is
seen are 0.18 of the true ones by the repository's form and 0.49 by InverseBench's, with the 100 steps published. With
50 steps they are 0.46 and 1.01: the width is that of the step size, not of the posterior.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from oneprior.core import InputError, Rows, inner, per_row
from oneprior.inference.guidance.walk import Tally, watched
from oneprior.inference.posterior import Draws, Needs, Posterior, Sampler
from oneprior.likelihoods.base import Likelihood
from oneprior.likelihoods.gaussian import GaussianLikelihood
from oneprior.priors.diffusion.samplers import Grid
from oneprior.priors.diffusion.schedule import DenoisingPrior


@dataclass(frozen=True)
class Langevin:
    """Draws x0 near the denoised event and the measurement.

    Args:
        ode_steps: Euler steps from x_t to x0^, each a network call.
        steps: Langevin steps, each a gradient of the likelihood.
        rate: eta at the first level.
        final_rate: eta at the last level, as a share of `rate`; linear in between.
        tau: the deviation that stands for the noise; None for the noise level of the measurement.
        divisor: c, 2 for a likelihood, 1 as in the paper's repository.
    """

    ode_steps: int = 5
    steps: int = 100
    rate: float = 1e-4
    final_rate: float = 0.01
    tau: float | None = None
    divisor: float = 2.0

    def __post_init__(self) -> None:
        if min(self.ode_steps, self.steps) < 1 or not self.rate > 0 or not self.divisor > 0:
            raise InputError("Langevin needs ode_steps and steps >= 1, and a rate and a divisor > 0")

    def draw(
        self, prior: DenoisingPrior, likelihood: Likelihood, x_t: Tensor, level: float, done: float, rows: Rows
    ) -> Tensor:
        """x0 for x_t = alpha (x + level noise); `done` is the share of the levels behind, 0 to 1."""
        x = centre = self._estimate(prior, x_t, level)
        rate = self.rate * (1 + done * (self.final_rate - 1))
        for _ in range(self.steps):
            pull = (centre - x) / level**2 + self._slope(likelihood, x)
            x = x + rate * pull + (2 * rate) ** 0.5 * rows.normal(*prior.event_shape)
        return x

    def _estimate(self, prior: DenoisingPrior, x_t: Tensor, level: float) -> Tensor:
        """x0^: Euler's method in the noise level, down to 0 (Karras et al. 2022, the paper's own solver)."""
        schedule = prior.schedule
        if self.ode_steps == 1:
            return prior.denoise(x_t, schedule.time(torch.tensor(level, dtype=torch.float64)).to(x_t))
        path = Grid("karras", low=min(0.01, level / 2), high=level).path(schedule, self.ode_steps, prior.device)
        for k in range(len(path)):
            x0 = prior.denoise(x_t, path.t[k].to(x_t))
            if k + 1 == len(path):
                return x0
            a, b = path.deterministic(k)
            x_t = a * x_t + b * x0
        raise AssertionError

    def _slope(self, likelihood: Likelihood, x: Tensor) -> Tensor:
        """grad log L, with tau in place of the noise level where it is given."""
        if isinstance(likelihood, GaussianLikelihood) and likelihood.linear:
            misfit = likelihood.residual(x)
            return likelihood.linear_operator.adjoint(misfit * per_row(self._weight(likelihood), misfit))
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            if isinstance(likelihood, GaussianLikelihood):
                misfit = likelihood.residual(x)
                value = -0.5 * self._weight(likelihood) * inner(misfit, misfit)
            else:
                value = likelihood.log_prob(x)
            (slope,) = torch.autograd.grad(value.sum(), x)
        return slope

    def _weight(self, likelihood: GaussianLikelihood) -> Tensor:
        """2 / (c tau^2) of each row, (n,)."""
        level = likelihood.noise_level.expand(likelihood.rows)
        tau = level if self.tau is None else torch.full_like(level, self.tau)
        return 2 / (self.divisor * tau.square())


_GRID = Grid(low=0.1, high=100.0)


@dataclass(frozen=True)
class LangevinDAPS(Sampler):
    """Draw by Langevin steps, noise again, repeat; any differentiable likelihood.

    Args:
        inner: the Langevin steps.
        steps: noise levels.
        grid: where they are.
    """

    name: ClassVar[str] = "daps (langevin)"
    needs: ClassVar[Needs] = Needs(prior=DenoisingPrior, differentiable=True, density=True)
    inner: Langevin = Langevin()
    steps: int = 50
    grid: Grid = _GRID

    @classmethod
    def published(cls, divisor: float = 1.0) -> Self:
        """200 levels of 5 ODE steps and 100 Langevin steps with tau = .01; divisor 1 for the paper's repository, 2 for
        InverseBench."""
        return cls(Langevin(tau=0.01, divisor=divisor), 200)

    @torch.no_grad()
    def iterate(self, posterior: Posterior, draws: int, rows: Rows) -> Iterator[Draws]:
        prior = posterior.prior
        assert isinstance(prior, DenoisingPrior)
        likelihood = posterior.likelihood.repeat(draws)
        streams, tally = rows.to(prior.device).repeat(draws), Tally(posterior, draws, self.name)
        path = self.grid.path(prior.schedule, self.steps, prior.device)
        x_t = path.sigma[0] * streams.normal(*prior.event_shape)
        for k in range(len(path)):
            done = (k + 1) / len(path)
            x = self.inner.draw(prior, likelihood, x_t, path.level(k), k / len(path), streams)
            watched(x, self.name, k, posterior.n)
            if k + 1 < len(path):
                x_t = path.alpha[k + 1] * x + path.sigma[k + 1] * streams.normal(*prior.event_shape)
            yield tally.state(x, (k + 1) * self.inner.ode_steps, (k + 1) * self.inner.steps, done)

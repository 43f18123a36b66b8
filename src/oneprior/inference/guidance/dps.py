"""Diffusion posterior sampling: walk down, and step against the misfit of E[x | x_t] (Chung et al. 2023, algorithm 1).

    x_s = ancestral(x_t, D) - zeta grad_{x_t} |y - A(D)|,    D = E[x | x_t],

the gradient taken through the denoiser. The step zeta stands for 1 / (2 sigma^2) and the spread of x given x_t at once,
so the noise level enters nowhere: the method is a pull towards the data, not a posterior. It is kept as published, as
the control that everybody compares with. A is any differentiable operator, and the norm is each row's own.

Our default puts the noise level where Bayes' rule has it. If x | x_t had mean D and covariance r^2 I,

    grad_{x_t} log p(y | x_t) = (dD / dx_t)' J' (sigma^2 I + r^2 J J')^-1 e,    e = y - A(D),    J = dA / dx at D

(Song, Vahdat, Mardani, Kautz 2023, equation 7). Along the direction e itself, J J' is the number |J' e|^2 / |e|^2,
which the gradient brings with it: one step of steepest descent in place of the solve, exact where J J' is a multiple of
the identity on what is seen (masks, box averages). By Tweedie's formula the gradient moves the denoised event,

    E[x | x_t, y] = D + sigma_t^2 / alpha_t grad_{x_t} log p(y | x_t),

and the walk is that of a conditioned denoiser: nothing is left to tune, at one backpropagation a step.

Measured bias (`benchmarks/posterior_ratios.py`; a Gaussian with an exact denoiser, sigma = .05; deviations over the
true ones, of what is seen and what is not): published 1.84 and 0.90, with zeta = 1 4.54 and 0.90; the default
0.99 and 1.02. The mean is off by 0.5 to 0.6 posterior deviations as published and still by 0.4 by default, whose
covariance is isotropic where the data's is not: the right width around a wrong place.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from oneprior.core import Rows, inner, per_row
from oneprior.inference.guidance.walk import DDPM, Tally, on_schedule, table_grid, watched
from oneprior.inference.posterior import Draws, Needs, Posterior, Sampler
from oneprior.likelihoods.gaussian import GaussianLikelihood
from oneprior.priors.diffusion.samplers import Grid
from oneprior.priors.diffusion.samplers.base import KARRAS, first_x
from oneprior.priors.diffusion.schedule import DenoisingPrior, Schedule


@dataclass(frozen=True)
class DPS(Sampler):
    """Ancestral sampling that steps against the misfit.

    Args:
        steps: times of the grid, as many as network calls.
        zeta: the paper's step size; None takes it from the noise level (see the module).
        variance: of one entry of the data, behind r^2 = level^2 variance / (level^2 + variance); not used with zeta.
        grid: where the steps are.
        schedule: the coordinates of the walk; those of the prior by default.
    """

    name: ClassVar[str] = "dps"
    needs: ClassVar[Needs] = Needs(prior=DenoisingPrior, gaussian=True, differentiable=True)
    steps: int = 100
    zeta: float | None = None
    variance: float = 1.0
    grid: Grid = KARRAS
    schedule: Schedule | None = None

    @classmethod
    def published(cls, zeta: float = 0.3) -> Self:
        """1,000 ancestral steps of the linear schedule (Chung et al. 2023, appendix D; zeta .3 or 1)."""
        return cls(1000, zeta, grid=table_grid(1000), schedule=DDPM)

    @torch.no_grad()
    def iterate(self, posterior: Posterior, draws: int, rows: Rows) -> Iterator[Draws]:
        assert isinstance(posterior.prior, DenoisingPrior)
        prior = on_schedule(posterior.prior, self.schedule)
        likelihood = posterior.likelihood.repeat(draws)
        assert isinstance(likelihood, GaussianLikelihood)
        streams, tally = rows.to(prior.device).repeat(draws), Tally(posterior, draws, self.name)
        path = self.grid.path(prior.schedule, self.steps, prior.device)
        x_t = first_x(prior, path, streams.normal(*prior.event_shape))
        for k in range(len(path)):
            x0, pull = self._pull(prior, likelihood, x_t, path.t[k].to(x_t), path.level(k))
            if self.zeta is None:
                x0, pull = x0 + (path.sigma[k] ** 2 / path.alpha[k]) * pull, torch.zeros_like(pull)
            if k + 1 < len(path):
                a, b, c = path.stochastic(k, 1.0)
                x_t = a * x_t + b * x0 + c * streams.normal(*prior.event_shape) + pull
            else:
                x0 = x0 + pull
            watched(x0, self.name, k, posterior.n)
            yield tally.state(x0, k + 1, k + 1, (k + 1) / len(path))

    def _pull(
        self, prior: DenoisingPrior, likelihood: GaussianLikelihood, x_t: Tensor, t: Tensor, level: float
    ) -> tuple[Tensor, Tensor]:
        """E[x | x_t], and what x_t is moved by: -zeta grad |e|, or grad log p(y | x_t)."""
        with torch.enable_grad():
            x_t = x_t.detach().requires_grad_()
            x0 = prior.denoise(x_t, t)
            centre = x0.detach().requires_grad_()
            misfit = likelihood.residual(centre)
            square = inner(misfit, misfit)
            (back,) = torch.autograd.grad(-0.5 * square.sum(), centre)
        square = square.detach()
        if self.zeta is not None:
            weight = torch.where(square > 0, self.zeta * square.rsqrt(), 0.0)
        else:
            gain = torch.where(square > 0, inner(back, back) / square, 0.0)
            spread = level**2 * self.variance / (level**2 + self.variance)
            tiny = torch.finfo(x0.dtype).tiny
            weight = 1 / (likelihood.noise_level.square() + spread * gain).clamp_min(tiny)
        (slope,) = torch.autograd.grad(x0, x_t, per_row(weight, x0) * back)
        return x0.detach(), slope

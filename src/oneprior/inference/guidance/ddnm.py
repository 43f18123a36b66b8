"""Null-space restoration: what is measured is put in, the denoiser fills the rest (Wang, Yu, Zhang 2023, DDNM+).

    x0  = E[x | x_t],
    x0' = x0 + lambda_t A^+ (y - A x0),
    x_s = a x_t + b x0' + c noise                        (the ancestral step; DDIM's for eta < 1)

so that the range of A^+ is taken from the measurement and its null space from the prior. With noise in y, b lambda_t
A^+ (y - A x) brings noise of deviation b lambda_t sigma with it, and DDNM+ (their equations 17 to 19) takes lambda_t so
that this is no more than the step's own noise c, of which it then takes off as much:

    lambda_t = min(1, c / (b sigma)),    c' = sqrt(c^2 - (b lambda_t sigma)^2).

The result is the last x0', where the step's noise is 0: E[x | x_t] itself, or without noise in y what holds y exactly,
so that a mask keeps its pixels as they are. It is no posterior: x0' forgets that x0 knew something of what was seen.

With the published eta of .85 most of the walk is deterministic; our default is eta = 1, whose steps have more noise to
hide the measurement's in. Needs A^+, by conjugate gradients where there is no closed form.

Measured bias (`benchmarks/posterior_ratios.py`; a Gaussian with an exact denoiser, sigma = .05; deviations over the
true ones, of what is seen and what is not): published 0.62 and 1.42, the default 0.94 and 1.35. The default's
0.94 is not earned: its last noise level, 0.05, happens to be this sigma, and a last level of 0.02 gives 0.24.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Self

import torch

from oneprior.core import Rows, per_row
from oneprior.inference.guidance.walk import DDPM, Tally, on_schedule, table_grid, watched
from oneprior.inference.posterior import Draws, Needs, Posterior, Sampler
from oneprior.likelihoods.gaussian import GaussianLikelihood
from oneprior.priors.diffusion.samplers import Grid
from oneprior.priors.diffusion.samplers.base import first_x
from oneprior.priors.diffusion.schedule import DenoisingPrior, Schedule

_GRID = Grid(low=0.05)


@dataclass(frozen=True)
class DDNM(Sampler):
    """Ancestral sampling with the measured part put in.

    Args:
        steps: times of the grid, as many as network calls.
        eta: 1 for ancestral steps, less for DDIM's.
        grid: where the steps are.
        schedule: the coordinates of the walk; those of the prior by default.
    """

    name: ClassVar[str] = "ddnm"
    needs: ClassVar[Needs] = Needs(prior=DenoisingPrior, gaussian=True, linear=True)
    steps: int = 100
    eta: float = 1.0
    grid: Grid = _GRID
    schedule: Schedule | None = None

    @classmethod
    def published(cls) -> Self:
        """100 of the 1,000 linear steps with eta .85 and no travel back in time, as in the public code."""
        return cls(100, 0.85, table_grid(100), DDPM)

    @torch.no_grad()
    def iterate(self, posterior: Posterior, draws: int, rows: Rows) -> Iterator[Draws]:
        assert isinstance(posterior.prior, DenoisingPrior)
        prior = on_schedule(posterior.prior, self.schedule)
        likelihood = posterior.likelihood.repeat(draws)
        assert isinstance(likelihood, GaussianLikelihood)
        operator = likelihood.linear_operator
        streams, tally = rows.to(prior.device).repeat(draws), Tally(posterior, draws, self.name)
        path = self.grid.path(prior.schedule, self.steps, prior.device)
        x_t = first_x(prior, path, streams.normal(*prior.event_shape))
        sigma = likelihood.noise_level.expand(likelihood.rows)
        for k in range(len(path)):
            x0 = prior.denoise(x_t, path.t[k].to(x_t))
            last = k + 1 == len(path)
            a, b, c = (0.0, 1.0, 0.0) if last else path.stochastic(k, self.eta)
            share = (c / (b * sigma)).nan_to_num(1.0, posinf=1.0).clamp_max(1.0)  # 0 / 0 is 1: nothing to hide
            x0 = x0 + per_row(share, x0) * operator.pinv(likelihood.residual(x0))
            if not last:
                left = (c**2 - (b * share * sigma).square()).clamp_min(0.0).sqrt()
                x_t = a * x_t + b * x0 + per_row(left, x0) * streams.normal(*prior.event_shape)
            watched(x0, self.name, k, posterior.n)
            yield tally.state(x0, k + 1, 0, (k + 1) / len(path))

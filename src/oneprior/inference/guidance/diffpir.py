"""Plug-and-play restoration along a diffusion: denoise, pull to the data, noise again (Zhu et al. 2023, DiffPIR).

Half-quadratic splitting with the denoiser as the prior's step. At each time (algorithm 1)

    x0   = E[x | x_t],
    x0'  = argmin_x |y - A x|^2 / (2 sigma^2) + lambda |x - x0|^2 / (2 s_t^2),        s_t = sigma_t / alpha_t,
    eps' = (x_t - alpha_t x0') / sigma_t,
    x_s  = alpha_s x0' + sigma_s (sqrt(1 - zeta) eps' + sqrt(zeta) noise),

and the last x0' is the result. The middle line is a proximal step in closed form (`proximal`): it is E[x | x_t, y] if
x given x_t had variance s_t^2 / lambda in every direction, however wide the data themselves are. lambda and zeta were
chosen for pictures that look right; nothing makes the spread of the results that of the posterior.

Our default bounds that variance by the data's, v s_t^2 / (s_t^2 + v) (with v = 1, the square of half the range), and
draws all of the noise anew, zeta = 1. It costs the same.

Measured bias (`benchmarks/posterior_ratios.py`; a Gaussian with an exact denoiser, sigma = .05; deviations over the
true ones, of what is seen and what is not): published 2.38 and 1.24, with zeta = 1 1.74 and 0.76; the default
0.66 and 0.73, since a mean is noised again where `DAPS` noises a draw: take it for its mean, not for its spread. That
mean is off by 0.7 posterior deviations as published and by 0.2 by default.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Self

import torch

from oneprior.core import InputError, Rows
from oneprior.inference.guidance.proximal import Proximal
from oneprior.inference.guidance.walk import DDPM, Tally, on_schedule, table_grid, watched
from oneprior.inference.posterior import Draws, Needs, Posterior, Sampler
from oneprior.likelihoods.gaussian import GaussianLikelihood
from oneprior.priors.diffusion.samplers import Grid
from oneprior.priors.diffusion.samplers.base import first_x
from oneprior.priors.diffusion.schedule import DenoisingPrior, Schedule

_GRID = Grid(low=0.02)


@dataclass(frozen=True)
class DiffPIR(Sampler):
    """Denoise, pull to the data, noise again.

    Args:
        steps: times of the grid, as many as network calls.
        weight: lambda; None takes the variance from `variance` and the noise level (see the module).
        zeta: share of the noise that is drawn anew at each step, 0 to 1.
        variance: of one entry of the data; not used with a weight.
        grid: where the steps are.
        schedule: the coordinates of the walk; those of the prior by default.
    """

    name: ClassVar[str] = "diffpir"
    needs: ClassVar[Needs] = Needs(prior=DenoisingPrior, gaussian=True, linear=True)
    steps: int = 100
    weight: float | None = None
    zeta: float = 1.0
    variance: float = 1.0
    grid: Grid = _GRID
    schedule: Schedule | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.zeta <= 1 or (self.weight is not None and not self.weight > 0):
            raise InputError(f"diffpir needs zeta in [0, 1] and a weight > 0, got {self.zeta} and {self.weight}")

    @classmethod
    def published(cls, weight: float = 8.0, zeta: float = 0.3) -> Self:
        """100 of the 1,000 linear steps, lambda 8 and zeta .3 (Zhu et al. 2023, table 7; other tasks, other values)."""
        return cls(100, weight, zeta, grid=table_grid(100), schedule=DDPM)

    @torch.no_grad()
    def iterate(self, posterior: Posterior, draws: int, rows: Rows) -> Iterator[Draws]:
        assert isinstance(posterior.prior, DenoisingPrior)
        prior = on_schedule(posterior.prior, self.schedule)
        likelihood = posterior.likelihood.repeat(draws)
        assert isinstance(likelihood, GaussianLikelihood)
        streams, tally = rows.to(prior.device).repeat(draws), Tally(posterior, draws, self.name)
        path = self.grid.path(prior.schedule, self.steps, prior.device)
        x_t = first_x(prior, path, streams.normal(*prior.event_shape))
        proximal = Proximal(likelihood, x_t[0])
        for k in range(len(path)):
            x0 = proximal(prior.denoise(x_t, path.t[k].to(x_t)), self._spread(path.level(k)))
            if k + 1 < len(path):
                implied = (x_t - path.alpha[k] * x0) / path.sigma[k]
                noise = (1 - self.zeta) ** 0.5 * implied + self.zeta**0.5 * streams.normal(*prior.event_shape)
                x_t = path.alpha[k + 1] * x0 + path.sigma[k + 1] * noise
            watched(x0, self.name, k, posterior.n)
            yield tally.state(x0, k + 1, 0, (k + 1) / len(path))

    def _spread(self, level: float) -> float:
        """The variance of x given x_t that the proximal step takes."""
        square = level**2
        return square * self.variance / (square + self.variance) if self.weight is None else square / self.weight

"""Ancestral sampling (Ho, Jain, Abbeel 2020, algorithm 2) and DDIM (Song, Meng, Ermon 2021).

If the clean event were x0 = E[x | x_t], the noisy one a step earlier would be Gaussian (Ho et al. 2020, equation 6):

    x_s | x_t, x0 ~ N(alpha_s x0 + sqrt(sigma_s^2 - c^2) (x_t - alpha_t x0) / sigma_t,  c^2),
    c = eta sigma_s sqrt(1 - (sigma_s alpha_t)^2 / (alpha_s sigma_t)^2).

Every eta in [0, 1] has the same marginals for a perfect denoiser and small steps. eta = 1 is ancestral sampling, a
first-order scheme of the reverse SDE, forgiving of a denoiser's errors but slow; eta = 0 is DDIM, a first-order scheme
of the probability-flow ODE.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from oneprior.core import InputError, Rows
from oneprior.priors.diffusion.samplers.base import KARRAS, DiffusionSampler, Grid, State, combine
from oneprior.priors.diffusion.schedule import DenoisingPrior


@dataclass(frozen=True)
class DDIM(DiffusionSampler):
    """First order; deterministic for eta = 0.

    Args:
        steps: times of the grid, as many as network calls.
        grid: where they are.
        eta: 0 for the ODE, 1 for ancestral sampling.
        final: end with E[x | x_t].

    Source: Song, Meng, Ermon 2021, equations 12 and 16.
    """

    steps: int = 50
    grid: Grid = KARRAS
    eta: float = 0.0
    final: bool = True

    @property
    def nfe(self) -> int:
        return self.steps if self.final else self.steps - 1

    def iterate(self, prior: DenoisingPrior, rows: Rows | None = None, x: Tensor | None = None) -> Iterator[State]:
        return _walk(self, self.eta, prior, rows, x)


@dataclass(frozen=True)
class Ancestral(DiffusionSampler):
    """The reverse of the noising, step by step, with the posterior's own variance.

    Args:
        steps: times of the grid, as many as network calls; it wants many.
        grid: where they are.
        final: end with E[x | x_t].

    Source: Ho, Jain, Abbeel 2020, algorithm 2 with sigma_t^2 = beta-tilde_t.
    """

    steps: int = 250
    grid: Grid = KARRAS
    final: bool = True

    @property
    def nfe(self) -> int:
        return self.steps if self.final else self.steps - 1

    def iterate(self, prior: DenoisingPrior, rows: Rows | None = None, x: Tensor | None = None) -> Iterator[State]:
        return _walk(self, 1.0, prior, rows, x)


def _walk(
    sampler: DiffusionSampler, eta: float, prior: DenoisingPrior, rows: Rows | None, x: Tensor | None
) -> Iterator[State]:
    path, x_t = sampler.start(prior, rows, x)
    if eta > 0 and rows is None:
        raise InputError(f"{type(sampler).__name__} with eta = {eta} draws noise at every step: give it rows")
    noise = None if rows is None else rows.to(prior.device).stream("steps")
    for k in range(len(path) - 1):
        x0 = prior.denoise(x_t, path.t[k])
        a, b, c = path.stochastic(k, eta)
        x_t = combine(a, x_t, b, x0)
        if c > 0 and noise is not None:
            x_t.add_(noise.normal(*prior.event_shape), alpha=c)
        yield State(x_t, x0, k + 1, (k + 1) / len(path))
    if sampler.final:
        x0 = prior.denoise(x_t, path.t[-1])
        yield State(x0, x0, len(path), 1.0)

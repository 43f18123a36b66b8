"""Decoupled annealing: draw a clean event, noise it again, a little less each time (Zhang et al. 2024, DAPS).

At each noise level of a falling grid

    x0 ~ p(x0 | x_t, y),    x_t' = alpha_t' x0 + sigma_t' noise,

so that each x_t is a fresh draw from p(x_t | y) if x0 was one from p(x0 | x_t, y): errors of one level are forgotten
at the next, where ancestral sampling would carry them along. The paper draws x0 by Langevin steps around a few steps
of the ODE. Here p(x0 | x_t, y) is drawn in closed form around one call of the denoiser, with the spread from a
`Covariance` (measured: better than guided denoising, at one network call a level; ../shared/field/probes.md). For data
that are truly Gaussian, or truly the mixture behind a `MixtureCovariance`, every level is exact, however few there are.

Measured bias (`tests/inference/test_guidance.py`; anisotropic Gaussian data, perfect denoiser): none with the data's
covariance; with the isotropic form the mean is off by 0.4 posterior deviations, and these are 10 to 20 % too large.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from oneprior.core import Rows
from oneprior.inference.guidance.beliefs import Covariance, make_beliefs
from oneprior.inference.guidance.langevin import LangevinDAPS
from oneprior.inference.guidance.walk import watched
from oneprior.inference.posterior import Draws, Needs, Posterior, Sampler
from oneprior.likelihoods.gaussian import GaussianLikelihood
from oneprior.priors.diffusion.samplers import Grid
from oneprior.priors.diffusion.schedule import DenoisingPrior

_GRID = Grid(low=0.05)


@dataclass(frozen=True)
class DAPS(Sampler):
    """Draw, noise again, repeat.

    Args:
        steps: noise levels, as many as network calls for each draw.
        grid: where they are.
        covariance: of x0 given x_t; the best that the prior affords by default.
        mirrored: draw in pairs whose random numbers are mirrored: each draw has its own law as before, and the mean of
            all is more precise (measured in `Guided`); for rank statistics, which need independent draws, leave it off.
    """

    name: ClassVar[str] = "daps"
    needs: ClassVar[Needs] = Needs(prior=DenoisingPrior, gaussian=True, linear=True)
    steps: int = 50
    grid: Grid = _GRID
    covariance: Covariance | None = None
    mirrored: bool = False

    @staticmethod
    def published(divisor: float = 1.0) -> LangevinDAPS:
        """The paper's own inner loop is another sampler: see `LangevinDAPS.published`."""
        return LangevinDAPS.published(divisor)

    @torch.no_grad()
    def iterate(self, posterior: Posterior, draws: int, rows: Rows) -> Iterator[Draws]:
        prior, n = posterior.prior, posterior.n
        assert isinstance(prior, DenoisingPrior)
        likelihood = posterior.likelihood.repeat(draws)
        assert isinstance(likelihood, GaussianLikelihood)
        beliefs = make_beliefs(prior, likelihood, self.covariance)
        streams = rows.to(prior.device).repeat(draws, mirrored=self.mirrored)
        path = self.grid.path(prior.schedule, self.steps, prior.device)
        x_t = path.sigma[0] * streams.normal(*prior.event_shape)
        for k in range(len(path)):
            x, mean = beliefs.draw(x_t, path.t[k].to(x_t), streams)
            watched(x, self.name, k, n)
            if k + 1 < len(path):
                x_t = path.alpha[k + 1] * x + path.sigma[k + 1] * streams.normal(*prior.event_shape)
            yield self._draws(posterior, x, mean, draws, (k + 1) * draws * n, (k + 1) / len(path))

    def _draws(self, posterior: Posterior, x: Tensor, mean: Tensor, draws: int, calls: int, done: float) -> Draws:
        """The state, with E[x0 | x_t, y] averaged over the draws as its mean: the same expectation, less noise."""
        shape = (draws, posterior.n)
        return Draws(
            posterior.events(x.unflatten(0, shape)),
            self.name,
            exact=False,
            network_calls=calls,
            done=done,
            centre=posterior.decode(mean.unflatten(0, shape).mean(0)) if posterior.affine else None,
            mirrored=self.mirrored,
        )

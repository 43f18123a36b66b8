"""Guidance of tiled denoisers: Cov[x0 | x_t] from the Gaussian of a tile, with one data term for the whole event.

A low-rank Gaussian of a large event has as many directions as all its tiles together, too many to write down. Products
with it are cheap: with the windows W_t of `priors.tiles` and C = Cov[x0 | x_t] of a tile, in closed form,

    C_all v = sum_t W_t^(1/2) C W_t^(1/2) v,        draws: sum_t W_t^(1/2) C^(1/2) xi_t,

positive semidefinite, and C itself where there is one tile. The gain C_all A' (A C_all A' + sigma^2 I)^-1 is solved
by conjugate gradients, so that a measurement that reaches over tiles moves all of them at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from oneprior.core import IncompatiblePrior, Rows, conjugate_gradient, per_row
from oneprior.inference.guidance.beliefs import Beliefs, Covariance
from oneprior.likelihoods.gaussian import GaussianLikelihood
from oneprior.priors.diffusion.schedule import DenoisingPrior
from oneprior.priors.gaussian import LowRankGaussian, Spectral
from oneprior.priors.tiled import TiledDenoiser


@dataclass(frozen=True)
class TiledCovariance(Covariance):
    """From the low-rank Gaussian of a tile.

    Args:
        moments: the Gaussian; that of the tile's prior by default.
        tolerance: relative residual of the conjugate gradients.
        steps: the most of them; each costs two products with A and one with C_all.
    """

    moments: LowRankGaussian | None = None
    tolerance: float = 1e-3
    steps: int = 200

    def beliefs(self, prior: DenoisingPrior, likelihood: GaussianLikelihood | None) -> Beliefs:
        if not isinstance(prior, TiledDenoiser):
            raise IncompatiblePrior(
                f"TiledCovariance needs a TiledDenoiser, and this prior is a {type(prior).__name__}"
            )
        moments = self.moments or prior.tile.moments
        if moments is None:
            raise IncompatiblePrior(
                "the prior of a tile carries no Gaussian of its data: give TiledCovariance(LowRankGaussian.fit(...)), "
                "or use JacobianCovariance()"
            )
        if moments.event_shape != prior.tiles.tile_shape:
            raise IncompatiblePrior(
                f"the Gaussian has events of {tuple(moments.event_shape)} and a tile {tuple(prior.tiles.tile_shape)}"
            )
        return _TiledBeliefs(prior, likelihood, moments, self)


class _TiledBeliefs(Beliefs):
    """N(D, C_all)."""

    def __init__(
        self,
        prior: TiledDenoiser,
        likelihood: GaussianLikelihood | None,
        moments: LowRankGaussian,
        settings: TiledCovariance,
    ) -> None:
        self.prior, self.likelihood, self.moments, self.settings = prior, likelihood, moments, settings

    def mean(self, x_t: Tensor, t: Tensor, row: Tensor) -> Tensor:
        estimate = self.prior.denoise(x_t, t)
        if self.likelihood is None:
            return estimate
        likelihood = self.likelihood.take(row)
        return estimate + self._gain(likelihood.residual(estimate), likelihood, self._covariance(t))

    def draw(self, x_t: Tensor, t: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
        estimate, covariance = self.prior.denoise(x_t, t), self._covariance(t)
        tiles = self.prior.tiles
        white = rows.normal(len(tiles), *tiles.tile_shape).to(x_t).movedim(1, 0).flatten(0, 1)
        x = estimate + tiles.lay(tiles.weigh(_each(covariance.power(0.5), len(tiles))(white), 0.5))
        if self.likelihood is None:
            return x, estimate
        parts = (2,) if self.likelihood.y.is_complex() else ()
        noise = rows.normal(*self.likelihood.operator.out_shape, *parts).to(x_t)
        noise = torch.view_as_complex(noise) if parts else noise
        noise = per_row(self.likelihood.noise_level, self.likelihood.y) * noise
        gaps = torch.cat([self.likelihood.residual(x) - noise, self.likelihood.residual(estimate)])
        steps = self._gain(gaps, self.likelihood.take(torch.arange(len(gaps)) % len(x)), covariance)
        return x + steps[: len(x)], estimate + steps[len(x) :]

    def _covariance(self, t: Tensor) -> Spectral:
        """That of a tile."""
        schedule = self.prior.schedule
        return self.moments.posterior_covariance(schedule.alpha(t), schedule.sigma(t))

    def _gain(self, gap: Tensor, likelihood: GaussianLikelihood, covariance: Spectral) -> Tensor:
        """C_all A' (A C_all A' + sigma^2 I)^-1 gap; (N, *out_shape) -> (N, *event_shape)."""
        operator, tiles = likelihood.linear_operator, self.prior.tiles
        variance = per_row(likelihood.noise_level.square(), gap)
        each = _each(covariance, len(tiles))

        def spread(v: Tensor) -> Tensor:
            return tiles.lay(tiles.weigh(each(tiles.weigh(tiles.cut(v), 0.5)), 0.5))

        solved = conjugate_gradient(
            lambda r: operator(spread(operator.adjoint(r))) + variance * r,
            gap,
            tolerance=self.settings.tolerance,
            max_steps=self.settings.steps,
        )
        return spread(operator.adjoint(solved))


def _each(covariance: Spectral, tiles: int) -> Spectral:
    """The map of one tile for tile-major rows of all; rows may have values of their own."""
    if covariance.rest.dim() == 0:
        return covariance
    return Spectral(covariance.basis, covariance.on.repeat(tiles, 1), covariance.rest.repeat(tiles))

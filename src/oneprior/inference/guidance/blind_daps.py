"""Decoupled annealing with an unknown instrument: image and instrument drawn in turn at every noise level.

DAPS (Zhang et al. 2024; see `daps`) goes down a grid of noise levels and draws a clean image at each, x0 ~ p(x0 | x_t,
y). When the instrument is unknown its numbers are drawn with it,

    (x0, theta) ~ p(x0, theta | x_t, y)  ~  N(x0; D, C) N(theta; 0, I) p(y | A(x0, theta)),

D the denoiser's mean and C a covariance of x0 given x_t (`beliefs`). theta goes on from level to level. Other blind
samplers for denoisers run a second network for the kernel (BlindDPS, Chung et al. 2023) or alternate gradient steps
(Gibbs diffusion, Heurtel-Depeiges et al. 2024, alternates exact draws as here); all hold the image fixed while the
kernel moves, and an image fixes its blur almost exactly, so that the kernel hardly moves.

Here, where the matrices of the instrument are small enough to be written out, x0 is integrated out of the step of
theta,

    theta ~ N(theta; 0, I) N(y; A_theta D + b_theta, A_theta C A_theta' + sigma^2 I),

by a few elliptical slices, and then x0 is drawn given theta: for Gaussian data every level is a draw of the joint
posterior of its x_t. Where they are not small, x0 and theta alternate (`sweeps` times): right in the limit of many
sweeps only, and the width of theta is then too small.

Measured (perfect Gaussian denoisers; `tests/inference/test_blind.py`): against quadrature of an unknown gain,
integrated out, z-scores of mean and variance of image and theta are below 4 with 3 levels; in turn they reach 20 with
3 levels of 3 sweeps, and are below 4 with 12 levels of 6. On 4 digits of 8x8 blurred by a width known to 50 %, noise
0.05 on [-1, 1]: nominal width 10.5 dB, true width 21.0 dB, 20 levels integrated out 19.2 dB, 50 levels in turn 20.0 dB
(9 draws each), the exact posterior by `BlindGaussian` 19.9 dB; the error of theta over its own deviation is 1.2, 0.7
and 1.1 root mean square.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from oneprior.core import IncompatiblePrior, InputError, Rows
from oneprior.inference.affine_rows import AffineRows, DenseRows, dense_blocks, fits_dense
from oneprior.inference.blind import instrument_found, uncertain_operator
from oneprior.inference.guidance.beliefs import Covariance, DataCovariance, IsotropicCovariance
from oneprior.inference.guidance.walk import watched
from oneprior.inference.noise.elliptical_slice import slice_move
from oneprior.inference.posterior import Draws, Needs, Posterior, Sampler
from oneprior.likelihoods.gaussian import GaussianLikelihood
from oneprior.priors.diffusion.samplers import Grid
from oneprior.priors.diffusion.schedule import DenoisingPrior
from oneprior.priors.gaussian import LowRankGaussian, Spectral

_GRID = Grid(low=0.05)


@dataclass(frozen=True)
class BlindDAPS(Sampler):
    """Draw image and instrument, noise the image again, repeat.

    Args:
        steps: noise levels, as many as network calls for each draw.
        grid: where they are.
        covariance: of x0 given x_t: `DataCovariance` (the default, by the prior's own moments) or
            `IsotropicCovariance`.
        moves: elliptical slices of theta at each level (of each sweep).
        sweeps: how often x0 and theta alternate at each level, where x0 cannot be integrated out.
        most: entries of an event or a measurement up to which x0 is integrated out; 0 always alternates.
    """

    name: ClassVar[str] = "blind daps"
    needs: ClassVar[Needs] = Needs(prior=DenoisingPrior, gaussian=True, density=True)
    steps: int = 50
    grid: Grid = _GRID
    covariance: Covariance | None = None
    moves: int = 3
    sweeps: int = 3
    most: int = 256

    def __post_init__(self) -> None:
        if min(self.steps, self.moves, self.sweeps) < 1:
            raise InputError("blind daps needs steps, moves and sweeps >= 1")

    @classmethod
    def published(cls) -> Self:
        """DAPS' 200 levels from 100 to 0.1 with an isotropic spread, image and instrument alternating once a level."""
        grid = Grid(low=0.1, high=100.0)
        return cls(steps=200, grid=grid, covariance=IsotropicCovariance(), moves=1, sweeps=1, most=0)

    @torch.no_grad()
    def iterate(self, posterior: Posterior, draws: int, rows: Rows) -> Iterator[Draws]:
        prior, n, operator = posterior.prior, posterior.n, uncertain_operator(posterior)
        assert isinstance(prior, DenoisingPrior)
        assert isinstance(posterior.likelihood, GaussianLikelihood)
        moments = self._moments(prior)
        seen = AffineRows(posterior.likelihood, prior.event_shape)
        step = self._together if fits_dense(seen, self.most) else self._in_turn
        streams = rows.to(prior.device).repeat(draws)
        index = torch.arange(draws * n, device=prior.device) % n
        path = self.grid.path(prior.schedule, self.steps, prior.device)
        x_t = path.sigma[0] * streams.normal(*prior.event_shape)
        theta = streams.normal(*operator.theta_shape)
        for k in range(len(path)):
            t = path.t[k].to(x_t)
            centre = prior.denoise(x_t, t)
            spread = moments.posterior_covariance(prior.schedule.alpha(t), prior.schedule.sigma(t))
            x, mean, theta = step(seen, centre, spread, theta, index, streams)
            watched(torch.cat([x.flatten(1), theta.flatten(1)], 1), self.name, k, n)
            if k + 1 < len(path):
                x_t = path.alpha[k + 1] * x + path.sigma[k + 1] * streams.normal(*prior.event_shape)
            found = instrument_found(operator, theta.unflatten(0, (draws, n)))
            yield Draws(
                posterior.events(x.unflatten(0, (draws, n))),
                self.name,
                exact=False,
                network_calls=(k + 1) * draws * n,
                done=(k + 1) / len(path),
                diagnostics={**found, "image integrated out": step == self._together},
                centre=posterior.decode(mean.unflatten(0, (draws, n)).mean(0)) if posterior.affine else None,
            )

    def _together(
        self, seen: AffineRows, centre: Tensor, spread: Spectral, theta: Tensor, index: Tensor, streams: Rows
    ) -> tuple[Tensor, Tensor, Tensor]:
        """theta with x0 integrated out, then x0; also E[x0 | x_t, y, theta]."""
        wide, double = _double(spread), centre.double()

        def blocks(theta: Tensor) -> Iterator[tuple[DenseRows, slice]]:
            start = 0
            for dense, row in dense_blocks(seen, theta, index):
                yield dense, slice(start, start := start + len(row))

        def evidence(theta: Tensor) -> Tensor:
            return torch.cat([dense.log_evidence(double[part], wide) for dense, part in blocks(theta)]).to(theta)

        value = evidence(theta)
        for _ in range(self.moves):
            theta, value, _ = slice_move(evidence, theta, value, streams)
        normal, noise = streams.normal(*seen.event_shape), streams.normal(seen.sizes[0])
        parts = [dense.draw(double[part], wide, normal[part], noise[part]) for dense, part in blocks(theta)]
        x, mean = (torch.cat(kind).to(centre) for kind in zip(*parts, strict=True))
        return x, mean, theta

    def _in_turn(
        self, seen: AffineRows, centre: Tensor, spread: Spectral, theta: Tensor, index: Tensor, streams: Rows
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x0 given theta and theta given x0, in turn."""
        x, mean = centre, centre
        for _ in range(self.sweeps):
            x, mean = seen.draw(centre, spread, theta, streams)
            sigma = seen.noise(index, x)

            def level(theta: Tensor, x: Tensor = x, sigma: Tensor = sigma) -> Tensor:
                return -0.5 * (seen.gaps(x, theta, index) / sigma).square().sum(1)

            value = level(theta)
            for _ in range(self.moves):
                theta, value, _ = slice_move(level, theta, value, streams)
        return x, mean, theta

    def _moments(self, prior: DenoisingPrior) -> LowRankGaussian:
        """The Gaussian whose covariance given x_t is taken."""
        if isinstance(self.covariance, IsotropicCovariance):
            origin = torch.zeros(prior.event_shape, device=prior.device)
            return LowRankGaussian(
                origin, origin.new_zeros(origin.numel(), 0), origin.new_zeros(0), self.covariance.variance
            )
        given = self.covariance.moments if isinstance(self.covariance, DataCovariance) else None
        moments = given or prior.moments
        if moments is None or not isinstance(self.covariance, DataCovariance | None):
            raise IncompatiblePrior(
                "blind daps takes one Gaussian of the data, and this prior carries none: give "
                "BlindDAPS(covariance=DataCovariance(LowRankGaussian.fit(...))) or IsotropicCovariance()"
            )
        return moments


def _double(covariance: Spectral) -> Spectral:
    return Spectral(covariance.basis.double(), covariance.on.double(), covariance.rest.double())

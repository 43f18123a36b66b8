"""Blind inference under a Gaussian or a mixture of them: the image is integrated out, and the instrument is left.

With theta given, a measurement that is linear in x has its posterior and its evidence in closed form, so

    theta ~ N(theta; 0, I) p(y | theta)     by any sampler of the noise road, in a few numbers only,
    x ~ p(x | y, theta)                     exactly, draw by draw.

Integrating x out removes what makes blind problems hard for chains: given an image, its blur is known almost exactly,
and the pair (x, theta) then moves in tiny steps (Liu 1994, "The collapsed Gibbs sampler"). Levin et al. (2009) give the
same reason for estimating kernels with the image marginalised. Exact where the inner sampler is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from oneprior.core import IncompatiblePrior, Rows
from oneprior.inference.affine_rows import AffineRows, DenseRows, dense_blocks, fits_dense
from oneprior.inference.blind import instrument_found, uncertain_operator
from oneprior.inference.noise.elliptical_slice import EllipticalSlice
from oneprior.inference.noise.hmc import HMC
from oneprior.inference.posterior import Draws, Needs, Posterior, Sampler
from oneprior.likelihoods.base import Likelihood
from oneprior.likelihoods.gaussian import GaussianLikelihood
from oneprior.priors.base import StandardNormal
from oneprior.priors.gaussian import LowRankGaussian
from oneprior.priors.mixture import ClosedFormDenoiser, GaussianMixturePrior

_FEW, _MANY = EllipticalSlice(chains=4, warmup=60, thin=6), HMC(warmup=60, leapfrog=5, thin=6)


@dataclass(frozen=True)
class BlindGaussian(Sampler):
    """The instrument by a sampler of the noise road on its own evidence, the image exactly.

    Args:
        inner: the sampler of theta; by default elliptical slices for one or two numbers, HMC through the evidence for
            more (a page's ten: 7 times quicker than slices to the same R-hat).
        most: entries of an event or a measurement up to which matrices are written out.
    """

    name: ClassVar[str] = "blind, image integrated out"
    needs: ClassVar[Needs] = Needs(
        prior=(LowRankGaussian, GaussianMixturePrior, ClosedFormDenoiser), gaussian=True, density=True
    )
    inner: Sampler | None = None
    most: int = 1024

    @torch.no_grad()
    def iterate(self, posterior: Posterior, draws: int, rows: Rows) -> Iterator[Draws]:
        operator, likelihood = uncertain_operator(posterior), posterior.likelihood
        assert isinstance(likelihood, GaussianLikelihood)
        law = _mixture(posterior.prior)
        seen = AffineRows(likelihood, law.event_shape)
        if not fits_dense(seen, self.most):
            raise IncompatiblePrior(f"{self.name} takes up to {self.most} entries, got {max(seen.sizes)}: take `Blind`")
        evidence = InstrumentEvidence(seen, law, torch.arange(posterior.n))
        chain = Posterior(
            StandardNormal(operator.theta_shape, law.device), evidence, (), operator.theta_shape, posterior.n
        )
        streams = rows.to(law.device)
        images = streams.stream("image").repeat(draws)
        drawn, means, theta = [], [], None
        inner = self.inner or (_FEW if operator.theta_shape.numel() <= 2 else _MANY)
        for state in inner.run(chain, draws, streams.stream("instrument")):
            grown = theta is not None and len(state.x) > len(theta) and torch.equal(state.x[: len(theta)], theta)
            if not grown:  # particles and descents move all draws at once
                drawn, means = [], []
            theta, done, count = state.x, len(drawn), len(state.x)
            own = images.take(slice(done * posterior.n, count * posterior.n))
            x, mean = _images(seen, law, state.x[done:].flatten(0, 1), own)
            drawn.extend(x.unflatten(0, (count - done, posterior.n)).float())
            means.extend(mean.unflatten(0, (count - done, posterior.n)).float())
            yield replace(
                state,
                x=posterior.events(torch.stack(drawn)),
                method=self.name,
                network_calls=0,
                centre=posterior.decode(torch.stack(means).mean(0)) if posterior.affine else None,
                spread=None,
                diagnostics={**state.diagnostics, **instrument_found(operator, state.x)},
            )


class InstrumentEvidence(Likelihood):
    """theta -> log p(y | theta), x integrated out.

    Args:
        seen: the measurements.
        law: of x.
        index: which row of the measurements each row is, (n,).
        through: applied to theta first.
    """

    differentiable = True

    def __init__(
        self,
        seen: AffineRows,
        law: GaussianMixturePrior,
        index: Tensor,
        through: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.seen, self.law, self.index, self.through = seen, law, index, through

    @property
    def rows(self) -> int:
        return len(self.index)

    def log_prob(self, x: Tensor) -> Tensor:
        theta = x if self.through is None else self.through(x)
        parts = [
            _shares(self.law, dense, row).logsumexp(1)
            for dense, row in dense_blocks(self.seen, theta, self.index.to(theta.device))
        ]
        return torch.cat(parts).to(x.dtype)

    def pullback(self, f: Callable[[Tensor], Tensor]) -> InstrumentEvidence:
        inner = self.through
        return InstrumentEvidence(self.seen, self.law, self.index, f if inner is None else lambda z: inner(f(z)))

    def take(self, index: Tensor) -> InstrumentEvidence:
        return InstrumentEvidence(self.seen, self.law, self.index[index.cpu()], self.through)


def _images(seen: AffineRows, law: GaussianMixturePrior, theta: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
    """A draw of x for every theta, and E[x | y, theta], (N, *event_shape), float64."""
    index = torch.arange(len(theta), device=theta.device) % len(seen.y)
    normal, noise = rows.normal(*law.event_shape), rows.normal(seen.sizes[0])
    chance = rows.uniform(dtype=torch.float64)
    drawn, means, start = [], [], 0
    for dense, row in dense_blocks(seen, theta, index):
        part = slice(start, start := start + len(row))
        weights = _shares(law, dense, row).softmax(1)
        choice = (chance[part, None] > weights.cumsum(1)).sum(1).clamp_max(weights.shape[1] - 1)
        x = torch.empty(len(row), *law.event_shape, dtype=torch.float64, device=theta.device)
        mean = torch.zeros_like(x)
        for k, component in enumerate(law.components):
            component = component.to(torch.float64)
            centre = component.mean.expand(x.shape)
            one, middle = dense.draw(centre, component.covariance(), normal[part], noise[part])
            here = (choice == k).reshape(-1, *[1] * (x.dim() - 1))
            x = torch.where(here, one, x)
            mean = mean + weights[:, k].reshape(here.shape) * middle
        drawn.append(x)
        means.append(mean)
    return torch.cat(drawn), torch.cat(means)


def _shares(law: GaussianMixturePrior, dense: DenseRows, row: Tensor) -> Tensor:
    """log p(component, y | theta), (N, K)."""
    parts = [dense.log_evidence(c.mean[None], c.covariance()) for c in (c.to(torch.float64) for c in law.components)]
    weights = law.weights.to(row.device).double().log()
    return torch.stack(parts, 1) + (weights if weights.dim() == 1 else weights[row % len(weights)])


def _mixture(prior: object) -> GaussianMixturePrior:
    """A Gaussian as a mixture of one."""
    law = prior.law if isinstance(prior, ClosedFormDenoiser) else prior
    if isinstance(law, LowRankGaussian):
        return GaussianMixturePrior([law], torch.ones(1, device=law.device))
    assert isinstance(law, GaussianMixturePrior)
    return law

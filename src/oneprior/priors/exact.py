"""The exact posterior of Gaussians and their mixtures under a linear measurement with Gaussian noise.

A mixture's posterior is the mixture of its components' posteriors, each weighted by its evidence:
w_k(y) ~ w_k N(y; A mean_k, M_k). Means, variances, draws and the evidence are all closed forms, computed in float64.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property

import torch
from torch import Tensor

from oneprior.core import IncompatiblePrior, Rows
from oneprior.likelihoods.gaussian import GaussianLikelihood
from oneprior.priors.gaussian import LowRankGaussian
from oneprior.priors.linear_gaussian import Instrument, log_normal

_CHUNK = 1 << 24  # numbers worked on at once


class ExactPosterior(ABC):
    """p(x | y) of n problems, in closed form."""

    n: int
    event_shape: torch.Size

    @abstractmethod
    def mean(self) -> Tensor:
        """E[x | y], (n, *event_shape)."""

    @abstractmethod
    def covariance_diag(self) -> Tensor:
        """Var[x | y] entry by entry, (n, *event_shape)."""

    has_evidence: bool = True
    """Whether `log_evidence` can be had: of one Gaussian under many measurements it cannot."""

    @property
    @abstractmethod
    def log_evidence(self) -> Tensor:
        """log p(y) in nats, (n,)."""

    @abstractmethod
    def draw(self, rows: Rows, row: Tensor) -> Tensor:
        """One draw for each stream of `rows`, from the posterior of problem row[i]; (N, *event_shape)."""

    def sample(self, rows: Rows, draws: int) -> Tensor:
        """Exact, independent draws, (draws, n, *event_shape).

        Args:
            rows: one stream for each of the n problems.
            draws: number of draws of each.
        """
        streams = rows.repeat(draws)
        row = torch.arange(self.n, device=rows.device).repeat(draws)
        chunk = max(1, _CHUNK // self.event_shape.numel())
        parts = [
            self.draw(streams.take(slice(start, start + chunk)), row[start : start + chunk])
            for start in range(0, draws * self.n, chunk)
        ]
        return torch.cat(parts).reshape(draws, self.n, *self.event_shape)


class GaussianPosterior(ExactPosterior):
    """The posterior of a `LowRankGaussian`.

    Args:
        prior: the Gaussian.
        likelihood: linear, Gaussian; its n rows are the problems. Noise level 0 is the limit of small noise.
        instrument: the prior's basis seen through the likelihood's operator, in float64, where it is made already.

    Raises:
        IncompatiblePrior: for a likelihood that is not linear, or has a noise level for each entry.
    """

    def __init__(
        self, prior: LowRankGaussian, likelihood: GaussianLikelihood, instrument: Instrument | None = None
    ) -> None:
        if not likelihood.linear:
            raise IncompatiblePrior("a closed-form posterior needs a linear operator; use a sampler of the noise road")
        if not likelihood.white:
            raise IncompatiblePrior("a closed-form posterior needs one noise level for all entries of a row; use HMC")
        self.n, self.event_shape = likelihood.rows, prior.event_shape
        self._dtype = likelihood.y.real.dtype
        self.prior = prior.to(torch.float64)
        self.instrument = instrument or Instrument(self.prior.basis, likelihood.linear_operator, likelihood.y)
        self.sigma, self._log_scale = likelihood.noise_level.double(), likelihood.log_scale
        double = torch.complex128 if likelihood.y.is_complex() else torch.float64
        self._y = self.instrument.vector(likelihood.y.to(double))
        self._row = torch.arange(self.n, device=self._y.device)

    @cached_property
    def _innovation(self):
        return self.instrument.innovation(self.prior.variances, self.prior.noise_variance, self.sigma.square())

    @cached_property
    def _residual(self) -> Tensor:
        """y - A mean, (n, m)."""
        return self._y - self.instrument.forward(self.prior.mean.flatten()[None])

    @cached_property
    def _solved(self) -> Tensor:
        return self._innovation.solve(self._residual, self._row)

    def _back(self, solved: Tensor) -> Tensor:
        """S A' v; (N, m) -> (N, *event_shape)."""
        return self.prior.covariance()(self.instrument.adjoint(solved)).reshape(-1, *self.event_shape)

    def mean(self) -> Tensor:
        return (self.prior.mean + self._back(self._solved)).to(self._dtype)

    @property
    def has_evidence(self) -> bool:  # type: ignore[override]
        return self._innovation.has_logdet

    @property
    def log_evidence(self) -> Tensor:
        density = log_normal(self._residual, self._solved, self._innovation.logdet(self._row))
        return (density + self._log_scale).to(self._dtype)

    def draw(self, rows: Rows, row: Tensor) -> Tensor:
        """Matheron's rule: a draw of prior and noise, moved by the gain times what it fails to explain."""
        x = self.prior.decode(rows.normal(*self.prior.noise_shape).double())
        noise = rows.stream("measurement").normal(self.instrument.size).double()
        sigma = self.sigma[row][:, None] if self.sigma.dim() else self.sigma
        gap = self._y[row] - self.instrument.forward(x.flatten(1)) - sigma * noise
        return (x + self._back(self._innovation.solve(gap, row))).to(self._dtype)

    def covariance_diag(self) -> Tensor:
        """diag(S) - diag(S A' M^-1 A S), by columns of A S: d solves, a chunk at a time."""
        levels, level = torch.unique(self.sigma.reshape(-1), return_inverse=True)
        first = torch.stack([(level == k).nonzero()[0, 0] for k in range(len(levels))])
        covariance, d = self.prior.covariance(), self.prior.size
        parts = []
        for place in torch.arange(d, device=self._y.device).split(max(1, _CHUNK // (4 * d))):
            unit = torch.zeros(len(place), d, dtype=torch.float64, device=self._y.device)
            unit[torch.arange(len(place)), place] = 1.0
            seen = self.instrument.forward(covariance(unit))  # rows of S A', (c, m)
            shrunk = [
                (seen * self._innovation.solve(seen, index.expand(len(place)))).sum(1) for index in first
            ]  # fmt: skip
            parts.append(torch.stack(shrunk))
        variance = (covariance.diagonal() - torch.cat(parts, dim=1)).clamp_min(0.0)
        return variance[level].expand(self.n, -1).reshape(self.n, *self.event_shape).to(self._dtype)


class MixturePosterior(ExactPosterior):
    """The posterior of a mixture.

    Args:
        components: the posterior of each component, all of the same n problems.
        log_weights: prior weights of the components, (K,) or (n, K).
    """

    def __init__(self, components: list[GaussianPosterior], log_weights: Tensor) -> None:
        self.components = components
        self.n, self.event_shape = components[0].n, components[0].event_shape
        evidence = torch.stack([component.log_evidence.double() for component in components], dim=1)
        joint = evidence + log_weights.double()
        self._evidence = joint.logsumexp(1)
        self.log_weights = joint - self._evidence[:, None]

    @property
    def weights(self) -> Tensor:
        """p(component | y), (n, K)."""
        return self.log_weights.exp()

    def _average(self, values: list[Tensor]) -> Tensor:
        weights = self.weights.to(values[0]).T.reshape(len(values), self.n, *[1] * len(self.event_shape))
        return (torch.stack(values) * weights).sum(0)

    def mean(self) -> Tensor:
        return self._average([component.mean() for component in self.components])

    def covariance_diag(self) -> Tensor:
        means, centre = [component.mean() for component in self.components], self.mean()
        spread = zip(self.components, means, strict=True)
        return self._average([c.covariance_diag() + (mean - centre).square() for c, mean in spread])

    @property
    def log_evidence(self) -> Tensor:
        return self._evidence.to(self.components[0].mean())

    def draw(self, rows: Rows, row: Tensor) -> Tensor:
        choice = rows.stream("component").categorical(self.log_weights[row])
        x = torch.empty(len(row), *self.event_shape, dtype=self.components[0]._dtype, device=row.device)
        for k, component in enumerate(self.components):
            (place,) = (choice == k).nonzero(as_tuple=True)
            if place.numel():
                x[place] = component.draw(rows.take(place), row[place])
        return x

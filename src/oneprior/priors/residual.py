"""What a decoder cannot say, as part of the law: x = f(z) + e, with the law of e measured on real events.

A GAN, a VAE, a VQ-VAE or a latent diffusion model has its support on a thin surface, and no real event lies on it. A
posterior that believes in the surface is sure of itself and wrong: with small noise it collapses on the point nearest
to y. What is left over of real events when the model has explained them as well as it can, e = x - f(z), is a law like
any other: e = scale * v with a scale for each entry (pixels of a border are never wrong) and v ~ N(mean, S), low rank
plus noise, S fitted in the principal axes of the events (`priors.shrinkage`). It is measured once for a run, never for
a task (`training.residual`).
Tarantola (2005, section 1.5) calls it modelisation error, Kaipio and Somersalo (2007) approximation error.

For a linear instrument A with Gaussian noise, e is integrated out in closed form:

    y | z ~ N(A_e mean + A f(z), M),    M = A_e S A_e' + sigma^2 I,    A_e = A diag(scale),

so that inference works on the same z as before, under a likelihood that is wider, and therefore easier; then e given z
and y is drawn exactly. `Residue.marginal` gives that likelihood the plain form N(F y; F A f(z), I), F M F' = I, which
every method takes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from oneprior.core import Rows
from oneprior.likelihoods.gaussian import GaussianLikelihood
from oneprior.operators.base import LinearOperator
from oneprior.operators.compose import compose
from oneprior.operators.spectral_norm import largest_singular_value
from oneprior.priors.base import NoisePrior, Prior
from oneprior.priors.exact import GaussianPosterior
from oneprior.priors.gaussian import LowRankGaussian
from oneprior.priors.linear_gaussian import DENSE_LIMIT, Instrument
from oneprior.priors.moments import Moments
from oneprior.priors.shrinkage import fit_in_axes


@dataclass(frozen=True)
class Residual:
    """The law of e = scale * v.

    Args:
        law: of v, (*event_shape).
        scale: of each entry, (*event_shape), > 0.
    """

    law: LowRankGaussian
    scale: Tensor

    @classmethod
    def fit(cls, left: Tensor, rank: int | None = None, growth: float = 1.0, events: Moments | None = None) -> Residual:
        """From samples of e, (n, *event_shape).

        Args:
            left: the samples.
            rank: of the covariance; by default that with the best held-out likelihood.
            growth: a factor on the covariance, for what fitting z has taken away.
            events: the moments of the events themselves, in whose axes few samples say more (`priors.shrinkage`);
                not used with a rank, nor where they are of leading directions only.
        """
        size = left.square().mean(0).sqrt()
        scale = (size + 0.1 * size.square().mean().sqrt()).clamp_min(1e-6)
        if events is None or rank is not None or not events.dense:
            law = LowRankGaussian.fit([left / scale], rank)
        else:
            law = fit_in_axes(left / scale, _axes(events, scale))
        law = LowRankGaussian(law.mean, law.basis, growth * law.variances, growth * law.noise_variance)
        return cls(law, scale)

    def to(self, target: torch.device | torch.dtype | str) -> Residual:
        """The same law on another device or in another type."""
        return Residual(self.law.to(target), self.scale.to(target))

    def decode(self, u: Tensor) -> Tensor:
        """e from its noise, (n, *law.noise_shape) -> (n, *event_shape)."""
        return self.scale * self.law.decode(u)

    def sample(self, rows: Rows) -> Tensor:
        """One e a row, (n, *event_shape)."""
        return self.scale * self.law.sample(rows)

    def covariance_diag(self) -> Tensor:
        """Var[e] entry by entry, (*event_shape)."""
        return self.scale.square() * self.law.covariance().diagonal().reshape(self.scale.shape)


class ResidualPrior(Prior):
    """The law of base + e; `bayes` integrates e out where the measurement is linear with Gaussian noise.

    Args:
        base: the law of f(z).
        residual: the law of e, over events of the same shape.
    """

    def __init__(self, base: Prior, residual: Residual) -> None:
        self.base, self.residual, self.event_shape = base, residual, base.event_shape

    @property
    def device(self) -> torch.device:
        return self.base.device

    def sample(self, rows: Rows) -> Tensor:
        return self.base.sample(rows) + self.residual.sample(rows.to(self.device).stream("residual"))


class NoiseResidualPrior(ResidualPrior, NoisePrior):
    """A `ResidualPrior` over a map of noise: u = (noise of the base, noise of e), flat."""

    def __init__(self, base: NoisePrior, residual: Residual) -> None:
        ResidualPrior.__init__(self, base, residual)
        self._size = base.noise_shape.numel()
        self._noise = base
        self.noise_shape = torch.Size([self._size + residual.law.noise_shape.numel()])

    def decode(self, u: Tensor) -> Tensor:
        z = u[:, : self._size].reshape(-1, *self._noise.noise_shape)
        return self._noise.decode(z) + self.residual.decode(u[:, self._size :])

    def sample(self, rows: Rows) -> Tensor:
        return NoisePrior.sample(self, rows)


def with_residual(base: Prior, residual: Residual) -> ResidualPrior:
    """`ResidualPrior`, keeping the noise road open where the base has one."""
    return NoiseResidualPrior(base, residual) if isinstance(base, NoisePrior) else ResidualPrior(base, residual)


class Residue:
    """e of the rows of one likelihood: integrated out before inference (`marginal`), drawn after it (`complete`).

    Args:
        residual: the law of e.
        likelihood: linear, Gaussian, one noise level for all rows.
    """

    def __init__(self, residual: Residual, likelihood: GaussianLikelihood) -> None:
        self.residual, self.likelihood = residual, likelihood
        self._seen = compose(likelihood.linear_operator, Scale(residual.scale))  # A diag(scale)

    @cached_property
    def _whitener(self) -> Whitener:
        """Made once, with the instrument that every completion of draws needs again."""
        likelihood = self.likelihood
        return Whitener(self.residual.law, GaussianLikelihood(likelihood.y, self._seen, likelihood.noise_level))

    @staticmethod
    def serves(likelihood: object) -> bool:
        """Whether e can be integrated out of this evidence in closed form."""
        return (
            isinstance(likelihood, GaussianLikelihood)
            and likelihood.linear
            and bool((likelihood.noise_level == likelihood.noise_level.flatten()[:1]).all())
        )

    def marginal(self) -> GaussianLikelihood:
        """log p(y | f(z)) up to nothing: N(F (y - A mean); F A f(z), I), with the volume of F."""
        law, likelihood = self.residual.law, self.likelihood
        operator, y = likelihood.linear_operator, likelihood.y
        whitener = self._whitener
        instrument = whitener.instrument
        centred = instrument.vector(y) - instrument.forward(law.mean.flatten()[None].to(y.real))
        return GaussianLikelihood(
            whitener(centred.to(whitener.dtype)).to(y.real.dtype),
            compose(whitener, _Real(operator, y)),
            1.0,
            log_scale=likelihood.log_scale + whitener.log_volume,
        )

    def complete(self, x: Tensor, rows: Rows) -> Tensor:
        """Draws of f(z) as draws of x: each with its own exact e given z and y; (draws, n, *event_shape)."""
        draws, n = x.shape[:2]
        law = self._given(x.flatten(0, 1))
        e = law.draw(rows.to(x.device).stream("residual").repeat(draws), torch.arange(draws * n, device=x.device))
        return x + self.residual.scale.to(x) * e.to(x).unflatten(0, (draws, n))

    def complete_mean(self, x: Tensor) -> Tensor:
        """E[x | y] from E[f(z) | y], since E[e | z, y] is affine in f(z); (n, *event_shape)."""
        return x + self.residual.scale.to(x) * self._given(x).mean().to(x)

    def _given(self, x: Tensor) -> GaussianPosterior:
        """p(e | y - A f(z)); rows of x in draw-major order."""
        index = torch.arange(len(x), device=x.device) % self.likelihood.rows
        likelihood = self.likelihood.take(index)
        gap = likelihood.y - likelihood.linear_operator(x)
        left = GaussianLikelihood(gap, self._seen, likelihood.noise_level)
        return GaussianPosterior(self.residual.law, left, self._whitener.instrument)


class Scale(LinearOperator):
    """x -> scale * x, entry by entry.

    Args:
        scale: of the shape of one event, > 0.
    """

    disjoint = True
    scale: Tensor

    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        self.in_shape = self.out_shape = torch.Size(scale.shape)
        self.register_buffer("scale", scale)

    def apply(self, x: Tensor) -> Tensor:
        return x * self.scale.to(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return y * self.scale.to(y)


class Whitener(LinearOperator):
    """F with F M F' = I, M = A S A' + sigma^2 I over the m reals of a measurement, (m,) -> (m,).

    With D the part of M that is no low rank, s A A' + sigma^2 I: where A A' is diagonal, or there are more than 4,096
    measurements, F = (I + V V')^(-1/2) D^(-1/2) with V = D^(-1/2) A B v^(1/2); else F is the inverse of M's Cholesky
    factor. Beyond 4,096 measurements of an operator whose A A' is not diagonal, D^(-1/2) is a polynomial in A A'
    (`InverseRoot`), good to 1e-3, and the volume an estimate. (The diagonal of A A' in its place, which is cheaper,
    takes the low frequencies of a blur for ten times as sure as they are.)
    """

    def __init__(self, law: LowRankGaussian, likelihood: GaussianLikelihood) -> None:
        super().__init__()
        law = law.to(torch.float64)
        y = likelihood.y
        double = torch.complex128 if y.is_complex() else torch.float64
        self.instrument = instrument = Instrument(law.basis, likelihood.linear_operator, y.to(double))
        m = instrument.size
        self.in_shape = self.out_shape = torch.Size([m])
        noise = likelihood.noise_level.double().flatten()[0].square()
        scaled = instrument.seen * law.variances.sqrt()[:, None]  # (q, m)
        self.dtype, self.whole = torch.float64, None
        self.root = self.vectors = self.values = torch.zeros(0)
        self.series: InverseRoot | None = None
        if instrument.dense is not None and m <= DENSE_LIMIT:
            M = scaled.T @ scaled + law.noise_variance * instrument.dense
            M.diagonal().add_(noise + 1e-12 * M.diagonal().mean())
            factor = torch.linalg.cholesky(M)
            self.whole = torch.linalg.solve_triangular(factor, torch.eye(m).to(factor), upper=False)
            self.log_volume = float(-factor.diagonal().log().sum())
            return
        if instrument.gram is None:
            self.series = InverseRoot(instrument, float(law.noise_variance), float(noise))
            log_root = self.series.log_volume
        else:
            self.root = (law.noise_variance * instrument.gram + noise).clamp_min(1e-30).rsqrt()  # D^(-1/2)
            log_root = float(self.root.log().sum())
        V = self._whitened(scaled)
        values, vectors = torch.linalg.eigh(V @ V.T)  # V V' = Q values Q', Q = V' vectors / sqrt(values)
        keep = values > 1e-12 * values.max().clamp_min(1e-30) if len(values) else values.bool()
        values, vectors = values[keep], vectors[:, keep]
        self.vectors = V.T @ vectors * values.rsqrt()
        self.values = (1 + values).rsqrt() - 1
        self.log_volume = log_root - 0.5 * float(values.log1p().sum())

    def _whitened(self, x: Tensor) -> Tensor:
        """D^(-1/2) x, symmetric."""
        return x * self.root.to(x) if self.series is None else self.series(x)

    def apply(self, x: Tensor) -> Tensor:
        if self.whole is not None:
            return x @ self.whole.to(x).T
        x, Q = self._whitened(x), self.vectors.to(x)
        return x + ((x @ Q) * self.values.to(x)) @ Q.T

    def adjoint(self, y: Tensor) -> Tensor:
        if self.whole is not None:
            return y @ self.whole.to(y)
        Q = self.vectors.to(y)
        return self._whitened(y + ((y @ Q) * self.values.to(y)) @ Q.T)


class InverseRoot:
    """D^(-1/2) for D = s A A' + sigma^2 I, as a polynomial in A A': Chebyshev's series of x^(-1/2) over the spectrum.

    It has about 4 sqrt(k) terms, k = 1 + s |A|^2 / sigma^2: few where the noise and what the decoder leaves out are
    alike. Noise below 3 % of sqrt(s) |A| counts as that much, which keeps k near 1,000 and errs to the wide side.

    Args:
        instrument: A.
        rest: s.
        noise: sigma^2.

    Attributes:
        log_volume: log det D^(-1/2) by 16 sign vectors (Hutchinson 1990).

    Source: Trefethen 2013, chapters 3 and 8, for the series and its rate.
    """

    def __init__(self, instrument: Instrument, rest: float, noise: float) -> None:
        self.instrument, self.rest = instrument, rest
        start = Rows(1, stream="norm").normal(len(instrument.basis), dtype=torch.float64).to(instrument.basis.device)
        norm = largest_singular_value(lambda v: instrument.adjoint(instrument.forward(v)), start)
        top = max(1.05 * rest * norm**2, 1e-30)
        self.noise = max(noise, 1e-3 * top)
        self.middle, self.reach = self.noise + top / 2, top / 2
        self.terms, logs = self._terms(lambda x: x.rsqrt()), self._terms(torch.log)
        signs = Rows(16, stream="diagonal").uniform(instrument.size, dtype=torch.float64).sub(0.5).sign()
        parts = signs.to(start.device).split(8)
        self.log_volume = -0.5 * float(sum((part * self._sum(logs, part)).sum() for part in parts)) / len(signs)

    def __call__(self, x: Tensor) -> Tensor:
        """D^(-1/2) x; (N, m) -> (N, m)."""
        return self._sum(self.terms, x)

    def _terms(self, f: Callable[[Tensor], Tensor], nodes: int = 512) -> list[float]:
        """Coefficients of f's series over [sigma^2, sigma^2 + s |A|^2], as many as count."""
        angle = math.pi * (torch.arange(nodes, dtype=torch.float64) + 0.5) / nodes
        values = f(self.middle + self.reach * angle.cos())
        terms = 2 / nodes * (torch.arange(nodes, dtype=torch.float64)[:, None] * angle).cos() @ values
        terms[0] /= 2
        return terms[: 1 + int((terms.abs() > 3e-4 * values.abs().min()).nonzero().max())].tolist()

    def _sum(self, terms: list[float], x: Tensor) -> Tensor:
        """The series at D, times x, by Clenshaw's recurrence."""
        last = before = torch.zeros_like(x)
        for term in terms[:0:-1]:
            last, before = term * x + 2 * self._step(last) - before, last
        return terms[0] * x + self._step(last) - before

    def _step(self, x: Tensor) -> Tensor:
        """D x, with the spectrum moved to [-1, 1]."""
        spread = self.rest * self.instrument.forward(self.instrument.adjoint(x))
        return (spread + (self.noise - self.middle) * x) / self.reach


def _axes(events: Moments, scale: Tensor) -> Tensor:
    """The principal axes of events / scale, (d, d)."""
    by = 1 / scale.flatten().to(events.scatter)
    return torch.linalg.eigh(events.scatter * by * by[:, None])[1]


class _Real(LinearOperator):
    """A with its measurement as a flat list of reals."""

    def __init__(self, operator: LinearOperator, like: Tensor) -> None:
        super().__init__()
        self.operator, self.complex = operator, like.is_complex()
        self.in_shape = operator.in_shape
        self.out_shape = torch.Size([operator.out_shape.numel() * (2 if self.complex else 1)])

    def apply(self, x: Tensor) -> Tensor:
        y = self.operator(x)
        return (torch.view_as_real(y) if self.complex else y).flatten(1)

    def adjoint(self, y: Tensor) -> Tensor:
        shape = (-1, *self.operator.out_shape)
        if self.complex:
            return self.operator.adjoint(torch.view_as_complex(y.reshape(*shape, 2).contiguous()))
        return self.operator.adjoint(y.reshape(shape))

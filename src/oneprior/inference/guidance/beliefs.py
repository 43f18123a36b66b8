"""What is believed of the clean event given a noisy one and the measurement, p(x0 | x_t, y): the heart of guidance.

A denoiser gives the mean of p(x0 | x_t). Conditioning it on y = A x0 + sigma noise needs its spread as well, and the
choice of that spread decided more decibels than the network did (measured: ../shared/field/probes.md). With
p(x0 | x_t) ~ N(D, C), D = denoise(x_t, t), Bayes' rule for Gaussians gives

    E[x0 | x_t, y] = D + C A' (A C A' + sigma^2 I)^-1 (y - A D),

and a draw by the same gain (Matheron's rule). A `Covariance` says what C is:

- `DataCovariance`: C = (S^-1 + (alpha_t / sigma_t)^2 I)^-1 with S the data's own low-rank covariance. Closed form, no
  backpropagation, and exact for Gaussian data.
- `MixtureCovariance`: p(x0 | x_t) is the exact mixture of Gaussians under a mixture fitted to the data, shifted so that
  its mean is D: which mode, as well as which direction. Exact where the data are that mixture.
- `JacobianCovariance`: C = sigma_t^2 / alpha_t dD / dx_t, Tweedie's second-order formula: the network's own opinion, at
  the price of backpropagation (Boys et al. 2023; Rozet et al. 2024). It cannot draw.
- `IsotropicCovariance`: C = r_t^2 I with r_t^2 = s^2 v / (s^2 + v), s the noise level and v a variance of the data
  (Song et al. 2023 with v = 1). Costs nothing and knows nothing.

Where y is x with white noise (denoising), no gain is needed: x_t and y are two looks at x through white noise, their
weighted mean is one look at a lower noise level, and the denoiser itself, asked there, gives E[x0 | x_t, y] exactly.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from oneprior.core import IncompatiblePrior, Rows, inner, per_row
from oneprior.likelihoods.gaussian import GaussianLikelihood
from oneprior.operators.identity import Identity
from oneprior.priors.diffusion.schedule import DenoisingPrior
from oneprior.priors.gaussian import LowRankGaussian, Spectral
from oneprior.priors.linear_gaussian import Innovation, Instrument, log_normal
from oneprior.priors.mixture import ClosedFormDenoiser, GaussianMixturePrior
from oneprior.priors.tiled import TiledDenoiser


class Beliefs(ABC):
    """p(x0 | x_t, y) of the rows of one likelihood, made once and asked at every t; without a likelihood, p(x0 | x_t).

    Under a likelihood one time t () serves all rows; `GuidedDenoiser` asks for each time by itself.
    """

    @abstractmethod
    def mean(self, x_t: Tensor, t: Tensor, row: Tensor) -> Tensor:
        """E[x0 | x_t, y]; (n, *event_shape), t (), and the row of the likelihood for each, (n,)."""

    @abstractmethod
    def draw(self, x_t: Tensor, t: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
        """A draw from p(x0 | x_t, y), and its mean, both (n, *event_shape), for the likelihood's rows in order."""


class Covariance(ABC):
    """Where Cov[x0 | x_t] comes from."""

    @abstractmethod
    def beliefs(self, prior: DenoisingPrior, likelihood: GaussianLikelihood | None) -> Beliefs:
        """The beliefs under this covariance; does once what does not depend on x_t.

        Raises:
            IncompatiblePrior: where the prior lacks what the covariance is made from.
        """


@dataclass(frozen=True)
class DataCovariance(Covariance):
    """From the data's low-rank Gaussian.

    Args:
        moments: the Gaussian; that of the prior (`prior.moments`) by default.
    """

    moments: LowRankGaussian | None = None

    def beliefs(self, prior: DenoisingPrior, likelihood: GaussianLikelihood | None) -> Beliefs:
        moments = self.moments or prior.moments
        if moments is None:
            raise IncompatiblePrior(
                "this prior carries no Gaussian of its data: give DataCovariance(LowRankGaussian.fit(...)), or use "
                "JacobianCovariance() or IsotropicCovariance()"
            )
        if isinstance(prior, TiledDenoiser) and moments.event_shape != prior.event_shape:  # a Gaussian of one tile
            from oneprior.inference.guidance.tiled import TiledCovariance

            return TiledCovariance(moments).beliefs(prior, likelihood)
        return _SpectralBeliefs(prior, likelihood, moments)


@dataclass(frozen=True)
class IsotropicCovariance(Covariance):
    """r_t^2 I.

    Args:
        variance: v, of one entry of the data, in squared units of x.
    """

    variance: float = 1.0

    def beliefs(self, prior: DenoisingPrior, likelihood: GaussianLikelihood | None) -> Beliefs:
        mean = torch.zeros(prior.event_shape, device=prior.device)
        plain = LowRankGaussian(mean, mean.new_zeros(mean.numel(), 0), mean.new_zeros(0), self.variance)
        return _SpectralBeliefs(prior, likelihood, plain)


@dataclass(frozen=True)
class MixtureCovariance(Covariance):
    """From a mixture fitted to the data (`ppca` with several components).

    Args:
        mixture: the mixture.
    """

    mixture: GaussianMixturePrior

    def beliefs(self, prior: DenoisingPrior, likelihood: GaussianLikelihood | None) -> Beliefs:
        return _MixtureBeliefs(prior, likelihood, self.mixture)


@dataclass(frozen=True)
class JacobianCovariance(Covariance):
    """From the denoiser's Jacobian, by conjugate gradients.

    Args:
        steps: of conjugate gradients; each costs one backpropagation.
        tolerance: relative residual at which a row stops.
    """

    steps: int = 5
    tolerance: float = 1e-3

    def beliefs(self, prior: DenoisingPrior, likelihood: GaussianLikelihood | None) -> Beliefs:
        if likelihood is None:
            raise IncompatiblePrior("the Jacobian gives products with the covariance, not its root: it cannot draw")
        return _JacobianBeliefs(prior, likelihood, self)


def covariance_of(law: LowRankGaussian | GaussianMixturePrior) -> Covariance:
    """The covariance that a Gaussian or a mixture of the data lends."""
    return MixtureCovariance(law) if isinstance(law, GaussianMixturePrior) else DataCovariance(law)


def make_beliefs(prior: DenoisingPrior, likelihood: GaussianLikelihood, covariance: Covariance | None) -> Beliefs:
    """The beliefs under a covariance, or under the best that the prior affords: its mixture where it is one, the
    data's Gaussian where it is known, the Jacobian else. Denoising goes by fusion (see the module's docstring)."""
    if covariance is None:
        if isinstance(prior, ClosedFormDenoiser):
            covariance = covariance_of(prior.law)
        elif isinstance(prior, TiledDenoiser) and prior.moments is None and prior.tile.moments is not None:
            covariance = DataCovariance(prior.tile.moments)
        else:
            covariance = JacobianCovariance() if prior.moments is None else covariance_of(prior.moments)
    if isinstance(likelihood.operator, Identity) and likelihood.linear:
        return _FusedBeliefs(prior, likelihood, covariance)
    return covariance.beliefs(prior, likelihood)


class _Lens:
    """One low-rank Gaussian seen through the operator of a likelihood: gains and gaps, without a mean of its own."""

    def __init__(self, moments: LowRankGaussian, likelihood: GaussianLikelihood) -> None:
        self.likelihood, self.y = likelihood, likelihood.y
        self.instrument = Instrument(moments.basis, likelihood.linear_operator, likelihood.y)
        self.noise_variance = likelihood.noise_level.square()

    def gap(self, mean: Tensor, row: Tensor) -> Tensor:
        """y - A mean of some rows, (N, m)."""
        return self.instrument.vector(self.y[row]) - self.instrument.forward(mean.flatten(1))

    def innovation(self, covariance: Spectral) -> Innovation:
        """Solves with A C A' + sigma^2 I."""
        return self.instrument.innovation(covariance.on - covariance.rest, covariance.rest, self.noise_variance)

    def pull(self, covariance: Spectral, solved: Tensor, like: Tensor) -> Tensor:
        """C A' v as events."""
        return covariance(self.instrument.adjoint(solved)).reshape(like.shape)

    def level(self, row: Tensor) -> Tensor:
        """The noise level of each row, () or (N, 1)."""
        sigma = self.likelihood.noise_level
        return sigma[row][:, None] if sigma.dim() else sigma


class _SpectralBeliefs(Beliefs):
    """N(D, C) with C diagonal in the basis of a low-rank Gaussian."""

    def __init__(self, prior: DenoisingPrior, likelihood: GaussianLikelihood | None, moments: LowRankGaussian) -> None:
        self.prior, self.moments = prior, moments
        self.lens = None if likelihood is None else _Lens(moments, likelihood)

    def _covariance(self, t: Tensor) -> Spectral:
        schedule = self.prior.schedule
        return self.moments.posterior_covariance(schedule.alpha(t), schedule.sigma(t))

    def mean(self, x_t: Tensor, t: Tensor, row: Tensor) -> Tensor:
        estimate = self.prior.denoise(x_t, t)
        if self.lens is None:
            return estimate
        covariance = self._covariance(t)
        solved = self.lens.innovation(covariance).solve(self.lens.gap(estimate, row), row)
        return estimate + self.lens.pull(covariance, solved, x_t)

    def draw(self, x_t: Tensor, t: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
        estimate, covariance = self.prior.denoise(x_t, t), self._covariance(t)
        x = estimate + covariance.power(0.5)(rows.normal(*self.prior.event_shape).to(x_t))
        if self.lens is None:
            return x, estimate
        row = torch.arange(len(x_t), device=x_t.device)
        noise = self.lens.level(row) * rows.normal(self.lens.instrument.size).to(x_t)
        gaps = torch.cat([self.lens.gap(x, row) - noise, self.lens.gap(estimate, row)])
        solved = self.lens.innovation(covariance).solve(gaps, row.repeat(2))
        steps = self.lens.pull(covariance, solved, torch.cat([x, estimate]))
        return x + steps[: len(x)], estimate + steps[len(x) :]


class _MixtureBeliefs(Beliefs):
    """The mixture's own p(x0 | x_t), moved so that its mean is D, and conditioned on y component by component."""

    def __init__(
        self, prior: DenoisingPrior, likelihood: GaussianLikelihood | None, mixture: GaussianMixturePrior
    ) -> None:
        self.prior, self.mixture = prior, mixture
        self.lenses = None if likelihood is None else [_Lens(c, likelihood) for c in mixture.components]

    def _parts(self, x_t: Tensor, t: Tensor, row: Tensor) -> tuple[Tensor, list[Spectral], Tensor]:
        """Log weights (n, K) given x_t and y, the components' covariances, and their means given x_t and y,
        (K, n, *event_shape)."""
        alpha, sigma = self.prior.schedule.alpha(t), self.prior.schedule.sigma(t)
        log_weights = self.mixture.joint(x_t, alpha, sigma).log_softmax(1)
        means = torch.stack([c.denoise(x_t, alpha, sigma) for c in self.mixture.components])
        means = means + (self.prior.denoise(x_t, t) - _average(log_weights, means))
        covariances = [c.posterior_covariance(alpha, sigma) for c in self.mixture.components]
        if self.lenses is None:
            return log_weights, covariances, means
        moved, evidence = [], []
        for lens, covariance, mean in zip(self.lenses, covariances, means, strict=True):
            gap, innovation = lens.gap(mean, row), lens.innovation(covariance)
            solved = innovation.solve(gap, row)
            evidence.append(log_normal(gap.double(), solved.double(), innovation.logdet(row).double()))
            moved.append(mean + lens.pull(covariance, solved, mean))
        return (log_weights + torch.stack(evidence, 1)).log_softmax(1), covariances, torch.stack(moved)

    def mean(self, x_t: Tensor, t: Tensor, row: Tensor) -> Tensor:
        log_weights, _, means = self._parts(x_t, t, row)
        return _average(log_weights, means)

    def draw(self, x_t: Tensor, t: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
        log_weights, covariances, means = self._parts(x_t, t, torch.arange(len(x_t), device=x_t.device))
        choice = rows.categorical(log_weights)
        normal = rows.normal(*self.prior.event_shape).to(x_t)
        noise = None if self.lenses is None else rows.normal(self.lenses[0].instrument.size)
        x = torch.empty_like(x_t)
        for k, covariance in enumerate(covariances):
            (row,) = (choice == k).nonzero(as_tuple=True)
            if not row.numel():
                continue
            root = _take(covariance, row).power(0.5)(normal[row])
            if self.lenses is None or noise is None:
                x[row] = means[k][row] + root
                continue
            lens = self.lenses[k]
            seen = lens.instrument.forward(root.flatten(1)) + lens.level(row) * noise[row]
            solved = lens.innovation(covariance).solve(seen, row)
            x[row] = means[k][row] + root - lens.pull(covariance, solved, root)
        return x, _average(log_weights, means)


class _JacobianBeliefs(Beliefs):
    """C = sigma_t^2 / alpha_t dD / dx_t, by vector-Jacobian products (Rozet et al. 2024, equation 17)."""

    def __init__(self, prior: DenoisingPrior, likelihood: GaussianLikelihood, settings: JacobianCovariance) -> None:
        self.prior, self.likelihood, self.settings = prior, likelihood, settings

    def mean(self, x_t: Tensor, t: Tensor, row: Tensor) -> Tensor:
        schedule, likelihood = self.prior.schedule, self.likelihood.take(row)
        operator = likelihood.linear_operator
        scale = schedule.sigma(t).square() / schedule.alpha(t).clamp_min(1e-6)
        with torch.enable_grad():
            x_t = x_t.detach().requires_grad_()
            estimate = self.prior.denoise(x_t, t)

        def covariance(v: Tensor) -> Tensor:
            (product,) = torch.autograd.grad(estimate, x_t, v, retain_graph=True)
            return scale * product

        noise = per_row(likelihood.noise_level.square(), likelihood.y)
        solved = _truncated(
            lambda r: operator(covariance(operator.adjoint(r))) + noise * r,
            likelihood.residual(estimate.detach()),
            self.settings,
        )
        return estimate.detach() + covariance(operator.adjoint(solved))

    def draw(self, x_t: Tensor, t: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
        raise IncompatiblePrior("the Jacobian gives products with the covariance, not its root: it cannot draw")


def _truncated(apply: Callable[[Tensor], Tensor], b: Tensor, settings: JacobianCovariance) -> Tensor:
    """Conjugate gradients in which a row stops where the curvature is not positive (Steihaug 1983): the Jacobian of a
    learned denoiser is only nearly symmetric and positive."""
    x, r, p = torch.zeros_like(b), b, b
    rho = goal = inner(b, b)
    active = rho > 0
    for _ in range(settings.steps):
        q = apply(p)
        curvature = inner(p, q)
        active = active & (curvature > 0) & (rho > settings.tolerance**2 * goal)
        step = torch.where(active, rho / curvature, 0.0)
        x, r = x + per_row(step, b) * p, r - per_row(step, b) * q
        previous, rho = rho, torch.where(active, inner(r, r), rho)
        p = r + per_row(torch.where(active, rho / previous, 0.0), b) * p
    return x


class _FusedBeliefs(Beliefs):
    """Denoising: the denoiser at the noise level f of x_t and y together, f^-2 = (alpha / sigma_t)^2 + sigma^-2."""

    def __init__(self, prior: DenoisingPrior, likelihood: GaussianLikelihood, covariance: Covariance) -> None:
        self.prior, self.likelihood = prior, likelihood
        self.alone = None if isinstance(covariance, JacobianCovariance) else covariance.beliefs(prior, None)

    def fuse(self, x_t: Tensor, t: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
        """x and t at which the denoiser is to be asked: (n, *event_shape), (n,)."""
        schedule, likelihood = self.prior.schedule, self.likelihood.take(row)
        level = likelihood.noise_level.expand(len(x_t)).to(x_t)
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        least = schedule.noise_level(torch.zeros((), dtype=x_t.dtype, device=x_t.device)).clamp_min(1e-4)
        level = torch.maximum(level, least)
        precision = alpha.square() / sigma.square() + level**-2
        look = (x_t * (alpha / sigma.square()) + likelihood.y * per_row(level**-2, x_t)) / per_row(precision, x_t)
        time = schedule.time(torch.maximum(precision.rsqrt(), least))
        return look * per_row(schedule.alpha(time), x_t), time

    def mean(self, x_t: Tensor, t: Tensor, row: Tensor) -> Tensor:
        return self._held(self.prior.denoise(*self.fuse(x_t, t, row)), row)

    def draw(self, x_t: Tensor, t: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
        if self.alone is None:
            raise IncompatiblePrior("the Jacobian gives products with the covariance, not its root: it cannot draw")
        row = torch.arange(len(x_t), device=x_t.device)
        x, mean = self.alone.draw(*self.fuse(x_t, t, row), rows)
        return self._held(x, row), self._held(mean, row)

    def _held(self, x: Tensor, row: Tensor) -> Tensor:
        """y itself in the rows without noise, where the schedule's least level would blur it."""
        exact = per_row(self.likelihood.noise_level.expand(self.likelihood.rows)[row] == 0, x).bool()
        return torch.where(exact, self.likelihood.y[row].to(x), x)


def _average(log_weights: Tensor, values: Tensor) -> Tensor:
    """sum_k w_k value_k; (n, K) and (K, n, *shape) -> (n, *shape)."""
    weights = log_weights.exp().to(values).T
    return (values * weights.reshape(*weights.shape, *[1] * (values.dim() - 2))).sum(0)


def _take(covariance: Spectral, row: Tensor) -> Spectral:
    """Some rows of a map that may have values of its own for each row."""
    if covariance.rest.dim() == 0:
        return covariance
    return Spectral(covariance.basis, covariance.on[row], covariance.rest[row])

"""What the methods of the noise road ask of a posterior: its density, gradient and linearisation in flat noise u.

The posterior of u is p(u | y) ~ N(u; 0, I) L(decode(u)). Where the noise of the measurement is Gaussian it is a
nonlinear least-squares problem,

    -log p(u | y) = 0.5 |u|^2 + 0.5 |r(u)|^2 + const,      r(u) = (y - A decode(u)) / sigma,

and the Jacobian K of A decode(u) / sigma gives its curvature (Gauss-Newton), I + K' K. K v and K' v are products with
a graph that is kept: the second is a gradient, the first the gradient of a gradient, which is linear in its own
argument. So any network and operator that autograd can differentiate twice will do, and no row meets another.

Calls are counted in rows through the network; a gradient belongs to its call, and each further product with K or K'
is counted as one more, since it costs about as much.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from oneprior.core import DivergedError, IncompatiblePrior, Rows, per_row, still_weights
from oneprior.inference.posterior import Posterior
from oneprior.likelihoods.base import Likelihood
from oneprior.likelihoods.gaussian import GaussianLikelihood
from oneprior.likelihoods.measured import MeasuredLikelihood
from oneprior.likelihoods.product import Product
from oneprior.operators.affine import Affine
from oneprior.operators.base import LinearOperator
from oneprior.priors.base import NoisePrior, StandardNormal
from oneprior.priors.gaussian import LowRankGaussian
from oneprior.priors.pushforward import NoisePushforward


def precision(likelihood: Likelihood) -> torch.dtype:
    """The type that chains are run in: that of the first measurement, and single where there is none."""
    for factor in likelihood.factors if isinstance(likelihood, Product) else (likelihood,):
        if isinstance(factor, MeasuredLikelihood) and factor.y.real.is_floating_point():
            return factor.y.real.dtype
    return torch.float32


def is_linear(posterior: Posterior) -> bool:
    """Whether the posterior of u is Gaussian: an affine map of u, measured linearly with Gaussian noise."""
    prior: object = posterior.prior
    while isinstance(prior, NoisePushforward) and isinstance(prior.decoder, Affine | LinearOperator):
        prior = prior.base
    likelihood = posterior.likelihood
    linear = isinstance(likelihood, GaussianLikelihood) and likelihood.linear
    return linear and isinstance(prior, StandardNormal | LowRankGaussian)


class Target:
    """The posterior of flat noise u, (N, d), for any whole number N / n of copies of its n problems, draw-major.

    Attributes:
        n: number of problems.
        d: number of entries of u.
        dtype: of u.
        calls: network calls so far.
        gaussian: whether `residual` is there.
    """

    def __init__(self, posterior: Posterior) -> None:
        if not isinstance(posterior.prior, NoisePrior):
            raise IncompatiblePrior(f"{type(posterior.prior).__name__} is no map of Gaussian noise")
        self.posterior, self.prior, self.n = posterior, posterior.prior, posterior.n
        self.shape, self.d = self.prior.noise_shape, self.prior.noise_shape.numel()
        self.dtype, self.device = precision(posterior.likelihood), self.prior.device
        self.gaussian = isinstance(posterior.likelihood, GaussianLikelihood)
        self.calls = 0
        self._copies: dict[int, Posterior] = {}

    def normal(self, rows: Rows) -> Tensor:
        """u ~ N(0, I), (len(rows), d)."""
        return rows.normal(self.d, dtype=self.dtype)

    def shaped(self, u: Tensor) -> Tensor:
        """Flat noise as the prior takes it."""
        return u.reshape(-1, *self.shape)

    def log_likelihood(self, u: Tensor) -> Tensor:
        """log L(decode(u)); (N, d) -> (N,)."""
        self.calls += len(u)
        return self._many(u).likelihood.log_prob(self.prior.decode(self.shaped(u)))

    def log_density(self, u: Tensor) -> Tensor:
        """log N(u; 0, I) + log L(decode(u)) + (d / 2) log 2 pi; (N, d) -> (N,)."""
        return self.log_likelihood(u) - 0.5 * u.square().sum(1)

    def residual(self, u: Tensor) -> Tensor:
        """(y - A decode(u)) / sigma as reals, (N, d) -> (N, m); only for Gaussian noise."""
        likelihood = self._many(u).likelihood
        if not isinstance(likelihood, GaussianLikelihood):
            raise IncompatiblePrior(f"a {type(likelihood).__name__} has no residual in units of its noise")
        self.calls += len(u)
        r = likelihood.residual(self.prior.decode(self.shaped(u)))
        level = likelihood.noise_level  # one number, one a row, or one an entry
        scaled = r / (level if level.dim() > 1 else per_row(level, r))
        return (torch.view_as_real(scaled) if scaled.is_complex() else scaled).flatten(1)

    def energy(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """-log density and its gradient; (N, d) -> (N,), (N, d)."""
        return differentiated(lambda v: -self.log_density(v), u)

    @property
    def measurements(self) -> int:
        """m, the number of reals in one measurement, where the noise is Gaussian."""
        likelihood = self.posterior.likelihood
        if not isinstance(likelihood, GaussianLikelihood):
            raise IncompatiblePrior(f"a {type(likelihood).__name__} has no residual in units of its noise")
        return likelihood.y[0].numel() * (2 if likelihood.y.is_complex() else 1)

    def events(self, u: Tensor) -> Tensor:
        """Flat noise of whole copies as events: (S n, d) -> (S, n, *event_shape)."""
        self.calls += len(u)
        with torch.no_grad():
            z = self.prior.decode(self.shaped(u))
        return self.posterior.events(z.unflatten(0, (-1, self.n)))

    def _many(self, u: Tensor) -> Posterior:
        times = len(u) // self.n if self.n else 1
        if times not in self._copies:
            self._copies[times] = self.posterior if times == 1 else self.posterior.repeat(times)
        return self._copies[times]


_OUTERMOST = 40.0  # exp(-40^2 / 2) is 0 in double precision: no draw of the prior is ever there


def lost(u: Tensor, value: Tensor) -> Tensor:
    """Where a density is NaN at noise that the prior can draw: (N, ...), (N,) -> (N,). A chain that called it a
    rejection would leave that part of the law out in silence; a path that has run away may find NaN and be rejected."""
    return value.isnan() & (u.flatten(1).abs().amax(1) < _OUTERMOST)


def stop_where_lost(bad: Tensor, name: str, n: int, step: int) -> None:
    """Stops where the network lost its way.

    Args:
        bad: (N,), of whole copies of n problems.
        name: of the method.
        n: number of problems.
        step: of the method.

    Raises:
        DivergedError: names the step and the problems.
    """
    if bool(bad.any()):
        rows = bad.reshape(-1, n).any(0).nonzero().flatten().tolist()
        raise DivergedError(f"{name}: the log density of rows {rows} is not a number at step {step}")


def differentiated(f: Callable[[Tensor], Tensor], u: Tensor) -> tuple[Tensor, Tensor]:
    """f(u), one number a row, and its gradient; (N, d) -> (N,), (N, d)."""
    with torch.enable_grad():
        u = u.detach().requires_grad_()
        value = f(u)
        (slope,) = torch.autograd.grad(value.sum(), u)
    return value.detach(), slope


class Linearisation:
    """r(u + w) = r(u) - K w + ..., with the graph kept for products.

    Args:
        target: whose residual it is.
        u: where, (N, d).
    """

    def __init__(self, target: Target, u: Tensor) -> None:
        self.target = target
        with torch.enable_grad(), still_weights():
            self.u = u.detach().requires_grad_()
            self._residual = target.residual(self.u)
            self._probe = torch.zeros_like(self._residual).requires_grad_()
            (self._pulled,) = torch.autograd.grad(self._residual, self.u, self._probe, create_graph=True)

    @property
    def residual(self) -> Tensor:
        """r(u), (N, m)."""
        return self._residual.detach()

    def forward(self, w: Tensor) -> Tensor:
        """K w; (N, d) -> (N, m)."""
        self.target.calls += len(w)
        return -torch.autograd.grad(self._pulled, self._probe, w, retain_graph=True)[0]

    def adjoint(self, v: Tensor) -> Tensor:
        """K' v; (N, m) -> (N, d)."""
        self.target.calls += len(v)
        return -torch.autograd.grad(self._residual, self.u, v, retain_graph=True)[0]

    def matrix(self) -> Tensor:
        """K, (N, m, d), in min(m, d) products."""
        (n, m), d = self._residual.shape, self.u.shape[1]
        out = self._residual.new_zeros(n, m, d)
        for k in range(min(m, d)):
            if m <= d:
                out[:, k] = self.adjoint(_unit(n, m, k, out))
            else:
                out[:, :, k] = self.forward(_unit(n, d, k, out))
        return out


def _unit(n: int, size: int, k: int, like: Tensor) -> Tensor:
    out = like.new_zeros(n, size)
    out[:, k] = 1
    return out

"""Many rows, each with an instrument of its own: y = A_theta x + b_theta, solved for x exactly where x is Gaussian.

A likelihood has one operator for all its rows, and closed forms are made once for it. When the instrument is inferred,
every draw has another theta. Then for x ~ N(m, C) and noise sigma,

    log p(y | theta) = log N(y - b - A m; 0, M),    M = A C A' + sigma^2 I,
    x | y, theta  =  x' + C A' M^-1 (y - b - A x' - sigma e),    x' ~ N(m, C), e ~ N(0, I)    (Matheron's rule),

row by row: with the matrices of A written out where they are small, by conjugate gradients where not (then without
the evidence). Whatever stands between x and the instrument (units, a linear decoder) is part of A and b; that it is
affine is measured before the work.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from oneprior.core import IncompatiblePrior, Rows, conjugate_gradient, norm
from oneprior.likelihoods.gaussian import GaussianLikelihood
from oneprior.likelihoods.measured import numbers
from oneprior.operators.uncertain import UncertainOperator, theta_of
from oneprior.priors.gaussian import Spectral

_NUMBERS = 1 << 24  # entries of the matrices that are worked on at once


class AffineRows:
    """The measurements of a likelihood as affine maps of x, one for each row's theta.

    Args:
        likelihood: Gaussian, by an uncertain operator; row i of what follows is its row i % n.
        event_shape: shape of one x.

    Raises:
        IncompatiblePrior: where the measurement is not affine in x when theta is given, or has no noise.
    """

    def __init__(self, likelihood: GaussianLikelihood, event_shape: torch.Size) -> None:
        assert isinstance(likelihood.operator, UncertainOperator)
        self.likelihood, self.operator = likelihood, likelihood.operator
        self.event_shape = torch.Size(event_shape)
        self.y = numbers(likelihood.y)
        self._check()

    @property
    def sizes(self) -> tuple[int, int]:
        """m numbers of a measurement, d numbers of an event."""
        return self.y.shape[1], self.event_shape.numel()

    def noise(self, row: Tensor, like: Tensor) -> Tensor:
        """sigma of each row, (N, 1)."""
        sigma = self.likelihood.noise_level.to(like)
        return sigma[row][:, None] if sigma.dim() else sigma.expand(len(row))[:, None]

    def measure(self, x: Tensor, theta: Tensor) -> Tensor:
        """A x + b as reals, (N, m); (N, *event_shape), (N, *theta_shape)."""
        through = self.likelihood.through
        return numbers(self.operator.evaluate(x if through is None else through(x), theta.to(x)))

    def offset(self, theta: Tensor, like: Tensor) -> Tensor:
        """b, (N, m)."""
        return self.measure(like.new_zeros(len(theta), *self.event_shape), theta)

    def matrices(self, theta: Tensor) -> Tensor:
        """A of every row, (N, m, d), float64."""
        d, n = self.event_shape.numel(), len(theta)
        theta = theta.double()
        b = self.offset(theta, theta)
        unit = torch.eye(d, dtype=torch.float64, device=theta.device)
        parts = []
        for some in unit.split(max(1, _NUMBERS // (n * d))):
            x = some[:, None].expand(-1, n, -1).reshape(-1, *self.event_shape)
            parts.append(self.measure(x, theta_of(theta, x)).unflatten(0, (len(some), n)) - b)
        return torch.cat(parts).permute(1, 2, 0)

    def gaps(self, x: Tensor, theta: Tensor, row: Tensor) -> Tensor:
        """y - A x - b, (N, m)."""
        return self.y[row].to(x) - self.measure(x, theta)

    def draw(self, mean: Tensor, covariance: Spectral, theta: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
        """A draw of x given y and theta for each row, and its mean, by conjugate gradients; (N, *event_shape).

        Args:
            mean: m, (N, *event_shape).
            covariance: C.
            theta: (N, *theta_shape).
            rows: one stream a row.
        """
        row = torch.arange(len(mean), device=mean.device) % len(self.y)
        sigma = self.noise(row, mean)
        x = mean + covariance.power(0.5)(rows.normal(*self.event_shape).to(mean))
        noise = sigma * rows.normal(self.y.shape[1]).to(mean)
        origin = torch.zeros_like(mean)
        with torch.enable_grad():
            leaf = origin.clone().requires_grad_()
            seen = self.measure(leaf, theta)

        def back(r: Tensor) -> Tensor:
            return covariance(torch.autograd.grad(seen, leaf, r, retain_graph=True)[0])

        b = seen.detach()
        tolerance = 1e-10 if mean.dtype == torch.float64 else 1e-5

        def solve(gap: Tensor) -> Tensor:
            return back(
                conjugate_gradient(
                    lambda r: self.measure(back(r), theta) - b + sigma.square() * r, gap, tolerance=tolerance
                )
            )

        return x + solve(self.gaps(x, theta, row) - noise), mean + solve(self.gaps(mean, theta, row))

    def _check(self) -> None:
        if self.likelihood.constraint:
            raise IncompatiblePrior("an instrument cannot be inferred without noise: give the noise level")
        if not affine_in_image(self.likelihood, self.event_shape):
            raise IncompatiblePrior(
                "this method needs a measurement that is linear in what the prior is built on, and "
                f"{self.operator.title}, or a decoder before it, is not: take `Blind` "
                "on the noise road"
            )


def affine_in_image(likelihood: GaussianLikelihood, event_shape: torch.Size) -> bool:
    """Whether A((u + v) / 2) is the mean of A(u) and A(v) at a theta drawn at random, in every row: measured, since
    whatever stands before the instrument is a function like any other."""
    operator, through, n = likelihood.operator, likelihood.through, len(likelihood.y)
    assert isinstance(operator, UncertainOperator)
    rows = Rows(n, seed=1, device=likelihood.y.device)
    theta = rows.normal(*operator.theta_shape)
    u, v = (rows.normal(*event_shape) for _ in range(2))

    def measure(x: Tensor) -> Tensor:
        return numbers(operator.evaluate(x if through is None else through(x), theta)).double()

    with torch.no_grad():
        ends = measure(u), measure(v)
        gap = norm(measure((u + v) / 2) - (ends[0] + ends[1]) / 2)
        size = norm(ends[0]) + norm(ends[1])
    return bool((gap <= 1e-4 * size).all())


class DenseRows:
    """x ~ N(m, C) given y for every row's theta, with the matrices written out: evidence, mean and draws, float64.

    Args:
        rows: the measurements.
        theta: (N, *theta_shape).
        row: which measurement each of them belongs to, (N,).
    """

    def __init__(self, rows: AffineRows, theta: Tensor, row: Tensor) -> None:
        self.rows, self.theta, self.row = rows, theta.double(), row
        self.matrix = rows.matrices(theta)  # (N, m, d)
        self.gap = rows.y[self.row].double() - rows.offset(self.theta, self.theta)
        self.sigma = rows.noise(self.row, self.theta)

    def _seen(self, covariance: Spectral) -> tuple[Tensor, Tensor]:
        """C A', (N, d, m), and the Cholesky factor of M, (N, m, m)."""
        n, m, d = self.matrix.shape
        spread = covariance(self.matrix.reshape(n * m, d)).reshape(n, m, d)
        square = spread @ self.matrix.mT
        square.diagonal(dim1=1, dim2=2).add_(self.sigma.square())
        factor, failed = torch.linalg.cholesky_ex(
            square
        )  # a chain may try a theta that overflows: NaN, in its row only
        return spread.mT, torch.where(failed[:, None, None] > 0, torch.nan, factor)

    def _residual(self, x: Tensor) -> Tensor:
        return self.gap - (self.matrix @ x.flatten(1).double()[..., None])[..., 0]

    def log_evidence(self, mean: Tensor, covariance: Spectral) -> Tensor:
        """log p(y | theta), (N,), for x ~ N(mean, covariance); mean (1 or N, *event_shape)."""
        _, factor = self._seen(covariance)
        white = torch.linalg.solve_triangular(factor, self._residual(mean)[..., None], upper=False)[..., 0]
        logdet = 2 * factor.diagonal(dim1=1, dim2=2).log().sum(1)
        return -0.5 * (white.square().sum(1) + logdet + white.shape[1] * math.log(2 * math.pi))

    def draw(self, mean: Tensor, covariance: Spectral, normal: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """A draw of x given y and theta, and its mean, (N, *event_shape).

        Args:
            mean: m, (N, *event_shape).
            covariance: C.
            normal: white noise, (N, *event_shape).
            noise: white noise, (N, m).
        """
        spread, factor = self._seen(covariance)
        mean = mean.double()
        x = mean + covariance.power(0.5)(normal.double())
        gaps = torch.stack([self._residual(x) - self.sigma * noise.double(), self._residual(mean)], -1)
        steps = spread @ torch.cholesky_solve(gaps, factor)
        shape = mean.shape
        return x + steps[..., 0].reshape(shape), mean + steps[..., 1].reshape(shape)


def dense_blocks(rows: AffineRows, theta: Tensor, row: Tensor) -> Iterator[tuple[DenseRows, Tensor]]:
    """Some rows of theta at a time, so that their matrices fit in memory, and which measurements they belong to."""
    m, d = rows.sizes
    size = max(1, _NUMBERS // (m * max(m, d)))
    for some, own in zip(theta.split(size), row.split(size), strict=True):
        yield DenseRows(rows, some, own), own


def fits_dense(rows: AffineRows, most: int) -> bool:
    """Whether the matrices of the rows, m x d each, are small enough to be written out."""
    m, d = rows.sizes
    return m <= most and d <= most

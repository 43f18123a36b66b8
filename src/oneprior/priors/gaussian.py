"""Probabilistic PCA: the Gaussian with a low-rank covariance, of which everything is known in closed form.

    x = mean + B sqrt(v) z + sqrt(s) eps,    z ~ N(0, I_q), eps ~ N(0, I_d),

so x ~ N(mean, S) with S = B diag(v) B' + s I and B orthonormal (Tipping and Bishop 1999). In the basis B the
covariance is diagonal, v_j + s on the q kept directions and s on all others, hence so is every function of it: powers,
the covariance of x given a noisy x_t, the best denoiser. Each costs two products with B. It is the baseline that every
deep prior must beat, the exact reference of all inference, and the guidance covariance of the diffusion samplers.

The decoder's noise eps is part of x. `noise_free` gives the law without it, x = mean + B sqrt(v) z.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from oneprior.core import InputError, ShapeError
from oneprior.operators.affine import Affine, Matrix
from oneprior.priors.base import DensityPrior, NoisePrior, StandardNormal
from oneprior.priors.moments import HeldOutMoments
from oneprior.priors.pushforward import NoisePushforward


@dataclass(frozen=True)
class Spectral:
    """The symmetric map B diag(on) B' + rest (I - B B'), with one set of values for all rows or one for each.

    Args:
        basis: orthonormal B, (d, q).
        on: values on the basis, (q,) or (n, q).
        rest: value on all other directions, () or (n,).
    """

    basis: Tensor
    on: Tensor
    rest: Tensor

    def __call__(self, v: Tensor) -> Tensor:
        """Apply it to each row of (n, *shape), d numbers a row."""
        flat = v.flatten(1)
        rest = self.rest[..., None]
        along = flat @ self.basis
        return (flat * rest + (along * (self.on - rest)) @ self.basis.T).reshape(v.shape)

    def power(self, p: float) -> Spectral:
        """The map to the power p: 0.5 for the symmetric root, -1 for the inverse."""
        return Spectral(self.basis, self.on**p, self.rest**p)

    def logdet(self) -> Tensor:
        """log of the determinant, () or (n,)."""
        d, q = self.basis.shape
        return self.on.log().sum(-1) + (d - q) * self.rest.log()

    def diagonal(self) -> Tensor:
        """Its diagonal, (d,) or (n, d)."""
        rest = self.rest[..., None]
        return rest + (self.on - rest) @ self.basis.square().T


class LowRankGaussian(NoisePrior, DensityPrior):
    """N(mean, B diag(v) B' + s I); u = (z, eps) flattened, q + d numbers.

    Args:
        mean: of shape `event_shape`.
        basis: orthonormal columns, (d, q), d the number of entries of an event; q may be 0.
        variances: extra variance v along each column, (q,), >= 0.
        noise_variance: s > 0, a number or a tensor ().

    Raises:
        ShapeError: where the shapes disagree.
        InputError: for a negative variance.
    """

    def __init__(self, mean: Tensor, basis: Tensor, variances: Tensor, noise_variance: Tensor | float) -> None:
        d = mean.numel()
        if basis.dim() != 2 or basis.shape[0] != d:
            raise ShapeError("basis of a LowRankGaussian", tuple(basis.shape), (d, "rank"))
        if variances.shape != basis.shape[1:]:
            raise ShapeError("variances of a LowRankGaussian", tuple(variances.shape), tuple(basis.shape[1:]))
        self.event_shape = torch.Size(mean.shape)
        self.noise_shape = torch.Size([basis.shape[1] + d])
        self.mean, self.basis, self.variances = mean, basis.to(mean), variances.to(mean)
        self.noise_variance = torch.as_tensor(noise_variance, dtype=mean.dtype, device=mean.device).reshape(())
        if not bool(self.noise_variance > 0) or bool((self.variances < 0).any()):
            raise InputError("a LowRankGaussian needs noise_variance > 0 and variances >= 0")

    @classmethod
    def fit(cls, batches: Iterable[Tensor], rank: int | None = None, dtype: torch.dtype = torch.float32) -> Self:
        """The maximum-likelihood PPCA of a stream of events (Tipping and Bishop 1999, equations 7 and 8).

        Args:
            batches: tensors (n, *event_shape), read once, summed in float64.
            rank: q; by default that with the best held-out likelihood.
            dtype: of the result.

        Raises:
            InputError: for fewer than two rows, or a rank beyond the data.
        """
        moments, shape = None, torch.Size()
        for x in batches:
            shape = x.shape[1:]
            moments = moments or HeldOutMoments(shape.numel(), x.device, rank or 0)
            moments.update(x.flatten(1))
        if moments is None:
            raise InputError("PPCA needs at least 2 rows, got none")
        mean, basis, variances, noise = moments.finish(rank)
        return cls(mean.reshape(shape).to(dtype), basis.to(dtype), variances.to(dtype), noise.to(dtype))

    @classmethod
    def standard(cls, shape: torch.Size | tuple[int, ...], like: Tensor) -> Self:
        """N(0, I) over events of this shape, with the type and device of `like`."""
        mean = like.new_zeros(tuple(shape))
        return cls(mean, like.new_zeros(mean.numel(), 0), like.new_zeros(0), 1.0)

    @property
    def device(self) -> torch.device:
        return self.mean.device

    @property
    def rank(self) -> int:
        """q."""
        return self.basis.shape[1]

    @property
    def size(self) -> int:
        """d."""
        return self.basis.shape[0]

    def to(self, target: torch.device | torch.dtype | str) -> LowRankGaussian:
        """The same law on another device or in another type."""
        return LowRankGaussian(
            self.mean.to(target), self.basis.to(target), self.variances.to(target), self.noise_variance.to(target)
        )

    def decode(self, u: Tensor) -> Tensor:
        z, eps = u[:, : self.rank], u[:, self.rank :]
        flat = (z * self.variances.sqrt()) @ self.basis.T + self.noise_variance.sqrt() * eps
        return flat.reshape(-1, *self.event_shape) + self.mean

    def noise_free(self) -> NoisePushforward:
        """The law of mean + B sqrt(v) z: no density in x, and another posterior."""
        base = StandardNormal((self.rank,), self.device)
        factor = Matrix(self.basis * self.variances.sqrt(), base.event_shape, self.event_shape)
        return NoisePushforward(base, Affine(factor, self.mean), self.event_shape)

    def encode(self, x: Tensor) -> Tensor:
        """E[u | x], u = (z, eps); `decode` gives x back exactly.

        Source: Tipping and Bishop 1999, equation 6; eps takes what z does not explain.
        """
        centred = (x - self.mean).flatten(1)
        z = (centred @ self.basis) * (self.variances.sqrt() / (self.variances + self.noise_variance))
        eps = (centred - (z * self.variances.sqrt()) @ self.basis.T) / self.noise_variance.sqrt()
        return torch.cat([z, eps], dim=1)

    def covariance(self) -> Spectral:
        """S; `.power(-1)` is its inverse, `.power(0.5)` its root."""
        return Spectral(self.basis, self.variances + self.noise_variance, self.noise_variance)

    def log_prob(self, x: Tensor) -> Tensor:
        return self.noised_log_prob(x, 1.0, 0.0)

    def noised_log_prob(self, x_t: Tensor, alpha: Tensor | float, sigma: Tensor | float) -> Tensor:
        """log p(x_t) of x_t = alpha x + sigma noise; alpha and sigma () or (n,); (n, *event_shape) -> (n,)."""
        alpha, sigma = _column(alpha, x_t), _column(sigma, x_t)
        basis = self.basis.double()
        centred = (x_t.double() - _spread(alpha, x_t) * self.mean.double()).flatten(1)
        along = centred @ basis
        beyond = (centred - along @ basis.T).square().sum(1)
        s = alpha.square() * self.noise_variance.double() + sigma.square()
        on = alpha.square()[..., None] * self.variances.double() + s[..., None]
        law = Spectral(basis, on, s)
        quadratic = (along.square() / on).sum(1) + beyond / s
        return (-0.5 * (quadratic + law.logdet() + self.size * math.log(2 * math.pi))).to(x_t.dtype)

    def posterior_covariance(self, alpha: Tensor | float, sigma: Tensor | float) -> Spectral:
        """Cov[x | x_t] = (S^-1 + (alpha / sigma)^2 I)^-1 for x_t = alpha x + sigma noise, diagonal in the basis.

        Args:
            alpha: () or (n,).
            sigma: () or (n,); 0 gives 0.
        """
        alpha, sigma = (torch.as_tensor(v).to(self.mean) for v in (alpha, sigma))
        prior, noise = self.covariance(), sigma.square()

        def shrink(value: Tensor, a2: Tensor, s2: Tensor) -> Tensor:
            return value * s2 / (a2 * value + s2).clamp_min(torch.finfo(value.dtype).tiny)

        a2 = alpha.square()
        return Spectral(
            self.basis, shrink(prior.on, a2[..., None], noise[..., None]), shrink(prior.rest, a2, noise)
        )  # fmt: skip

    def denoise(self, x_t: Tensor, alpha: Tensor | float, sigma: Tensor | float) -> Tensor:
        """E[x | x_t], exactly: mean + alpha S (alpha^2 S + sigma^2 I)^-1 (x_t - alpha mean).

        Args:
            x_t: (n, *event_shape).
            alpha: () or (n,).
            sigma: () or (n,).
        """
        alpha, sigma = (torch.as_tensor(v).to(x_t) for v in (alpha, sigma))
        prior, a2, s2 = self.covariance(), alpha.square(), sigma.square()
        tiny = torch.finfo(x_t.dtype).tiny
        on = alpha[..., None] * prior.on / (a2[..., None] * prior.on + s2[..., None]).clamp_min(tiny)
        rest = alpha * prior.rest / (a2 * prior.rest + s2).clamp_min(tiny)
        return self.mean + Spectral(self.basis, on, rest)(x_t - _spread(alpha, x_t) * self.mean)


def _column(value: Tensor | float, like: Tensor) -> Tensor:
    """() or (n,), in float64."""
    return torch.as_tensor(value).to(device=like.device, dtype=torch.float64)


def _spread(value: Tensor, like: Tensor) -> Tensor:
    """() or (n,) shaped to broadcast against (n, *shape)."""
    return value.reshape(-1, *[1] * (like.dim() - 1)) if value.dim() else value

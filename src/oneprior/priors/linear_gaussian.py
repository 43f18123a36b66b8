"""A low-rank Gaussian seen through a linear instrument: all that Bayes' rule needs, at the least cost.

With x ~ N(mean, S), S = B diag(v) B' + s I, and y = A x + sigma noise, the innovation r = y - A mean has covariance

    M = A S A' + sigma^2 I = W diag(v) W' + s A A' + sigma^2 I,     W = A B,

and everything follows from solves with M: the posterior mean, mean + S A' M^-1 r; an exact draw, by conditioning a
draw of the prior and of the noise (Matheron's rule: Hoffman and Ribak 1991; Doucet 2010); the evidence N(r; 0, M).
Four ways to solve, chosen by structure and size, never by the caller:

- `disjoint` operators (masks, box averages): A A' is diagonal and Woodbury's identity leaves q x q systems: exact and
  linear in the number of pixels.
- up to `DENSE_LIMIT` measurements: one m x m factorisation shared by all rows; Cholesky where one noise level serves
  all, an eigendecomposition where the rows differ or the level is 0 (then M may be singular, and its pseudo-inverse
  gives the constrained answer).
- above, while an event has up to `NORMAL_LIMIT` entries and there is noise (many coils, many views): the same
  factorisation of the d x d matrix S^(1/2) A'A S^(1/2) + sigma^2 I, by the matrix inversion lemma.
- else: conjugate gradients, and no evidence.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from oneprior.core import InputError, conjugate_gradient
from oneprior.operators.base import LinearOperator

DENSE_LIMIT = 4096
NORMAL_LIMIT = 2048


class Innovation(ABC):
    """Solves with M for the variances it was made with. y is flattened to m reals; rows carry their noise level."""

    has_logdet: ClassVar[bool] = True

    @abstractmethod
    def solve(self, r: Tensor, row: Tensor) -> Tensor:
        """M^-1 r; (N, m), and the problem of each row (N,) -> (N, m)."""

    @abstractmethod
    def logdet(self, row: Tensor) -> Tensor:
        """log det M for the problem of each row (N,); (N,) or () where it is one for all.

        Raises:
            InputError: where it is not available at this size.
        """


class Instrument:
    """A basis B seen through a linear operator A, prepared once for any variances and noise levels.

    Args:
        basis: orthonormal, (d, q).
        operator: A, from events of d entries.
        shape: the measurements' shape and type, one y, (*out_shape).
    """

    def __init__(self, basis: Tensor, operator: LinearOperator, like: Tensor) -> None:
        self.operator, self.complex = operator, like.is_complex()
        self.basis = basis
        self.out_shape = operator.out_shape
        self.seen = self.forward(basis.T) if basis.shape[1] else basis.new_zeros(0, self.size)  # W', (q, m)
        self.gram = self._diagonal() if operator.disjoint else None
        self.dense = self._square() if self.gram is None and self.size <= DENSE_LIMIT else None
        small = self.gram is None and self.dense is None and len(basis) <= NORMAL_LIMIT
        self.normal = self._normal() if small else None

    @property
    def size(self) -> int:
        """m, the number of reals in one measurement."""
        return self.out_shape.numel() * (2 if self.complex else 1)

    def vector(self, y: Tensor) -> Tensor:
        """Measurements (N, *out_shape) as reals (N, m)."""
        return torch.view_as_real(y).flatten(1) if self.complex else y.flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """A x; (N, d) -> (N, m)."""
        return self.vector(self.operator(x.reshape(-1, *self.operator.in_shape)))

    def adjoint(self, r: Tensor) -> Tensor:
        """A' r; (N, m) -> (N, d)."""
        if self.complex:
            y = torch.view_as_complex(r.reshape(-1, *self.out_shape, 2).contiguous())
        else:
            y = r.reshape(-1, *self.out_shape)
        return self.operator.adjoint(y).flatten(1)

    def innovation(self, variances: Tensor, rest: Tensor, noise_variance: Tensor) -> Innovation:
        """Solves with M = W diag(variances) W' + rest A A' + noise_variance I.

        Args:
            variances: v, (q,).
            rest: s, ().
            noise_variance: sigma^2, () or (n,).
        """
        if self.gram is not None:
            return _Woodbury(self.seen, self.gram, variances, rest, noise_variance)
        if self.dense is not None:
            square = (self.seen.T * variances) @ self.seen + rest * self.dense
            return _Dense(square, noise_variance)
        if self.normal is not None and bool((noise_variance > 0).all()):
            return _Normal(self, self.normal, variances, rest, noise_variance)
        return _Iterative(self, variances, rest, noise_variance)

    def _diagonal(self) -> Tensor:
        like = self.basis.new_zeros(())
        return self.vector(self.operator.gram(torch.complex(like, like) if self.complex else like)[None])[0]

    def _square(self, chunk: int = 256) -> Tensor:
        """A A', (m, m)."""
        unit = torch.eye(self.size, dtype=self.basis.dtype, device=self.basis.device)
        return torch.cat([self.forward(self.adjoint(part)) for part in unit.split(chunk)])

    def _normal(self, chunk: int = 256) -> Tensor:
        """A'A, (d, d), float64."""
        unit = torch.eye(len(self.basis), dtype=torch.float64, device=self.basis.device)
        return torch.cat([self.adjoint(self.forward(part)) for part in unit.split(chunk)])


class _Woodbury(Innovation):
    """M = D + W diag(v) W' with D = s gram + sigma^2 diagonal; one q x q Cholesky for each noise level.

    Source: Woodbury 1950; the determinant by the matrix determinant lemma.
    """

    def __init__(self, seen: Tensor, gram: Tensor, variances: Tensor, rest: Tensor, noise: Tensor) -> None:
        levels, self._level = torch.unique(noise.reshape(-1), return_inverse=True)
        diagonal = rest * gram + levels[:, None]
        self.inverse = torch.where(diagonal > 0, 1 / diagonal, 0.0)  # (L, m); an empty row of A tells nothing
        self.scaled = seen * variances.sqrt()[:, None]  # (q, m)
        capacity = torch.stack([(self.scaled * inverse) @ self.scaled.T for inverse in self.inverse])
        capacity.diagonal(dim1=-2, dim2=-1).add_(1.0)
        self.factor = torch.linalg.cholesky(capacity)  # (L, q, q)
        self._logdet = torch.where(diagonal > 0, diagonal, 1.0).log().sum(-1)
        self._logdet = self._logdet + 2 * self.factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def level(self, row: Tensor) -> Tensor:
        """The noise level of each row, as an index."""
        return self._level[row] if self._level.numel() > 1 else torch.zeros_like(row)

    def solve(self, r: Tensor, row: Tensor) -> Tensor:
        if len(self.factor) == 1:
            weighted = r * self.inverse
            inner = torch.cholesky_solve((weighted @ self.scaled.T).T, self.factor[0]).T
            return weighted - (inner @ self.scaled) * self.inverse
        out, level = torch.empty_like(r), self.level(row)
        for k in torch.unique(level):  # a factor is q x q: never one for each row
            here, inverse = level == k, self.inverse[k]
            weighted = r[here] * inverse
            inner = torch.cholesky_solve((weighted @ self.scaled.T).T, self.factor[k]).T
            out[here] = weighted - (inner @ self.scaled) * inverse
        return out

    def logdet(self, row: Tensor) -> Tensor:
        return self._logdet[self.level(row)]


class _Dense(Innovation):
    """M = square + sigma^2 I by one factorisation for all rows."""

    def __init__(self, square: Tensor, noise: Tensor) -> None:
        levels = noise.reshape(-1).unique()
        self.factor: Tensor | None = None
        if levels.numel() == 1 and bool(levels > 0):
            factor, failed = torch.linalg.cholesky_ex(square + levels * torch.eye(len(square)).to(square))
            self.factor = None if bool(failed) else factor
        if self.factor is None:
            values, self.vectors = torch.linalg.eigh(square)
            total = values.clamp_min(0.0) + noise.reshape(-1, 1)
            least = 1e-12 * total.amax(-1, keepdim=True)
            self.inverse = torch.where(total > least, 1 / total, 0.0)  # (1 or n, m)
            self._logdet = torch.where(total > least, total, 1.0).log().sum(-1)

    def solve(self, r: Tensor, row: Tensor) -> Tensor:
        if self.factor is not None:
            return torch.cholesky_solve(r.T, self.factor).T
        inverse = self.inverse[row] if len(self.inverse) > 1 else self.inverse
        return ((r @ self.vectors) * inverse) @ self.vectors.T

    def logdet(self, row: Tensor) -> Tensor:
        if self.factor is not None:
            return 2 * self.factor.diagonal().log().sum()
        return self._logdet[row] if len(self._logdet) > 1 else self._logdet[0]


class _Normal(Innovation):
    """M^-1 = (I - A R C^-1 R A') / sigma^2 with R = S^(1/2) and C = R A'A R + sigma^2 I, d x d; sigma > 0.

    In float64 whatever comes in: the difference loses as many digits as sigma^2 lies below the variances.
    """

    def __init__(self, instrument: Instrument, normal: Tensor, variances: Tensor, rest: Tensor, noise: Tensor) -> None:
        self.instrument, self.noise, self.dtype = instrument, noise.double(), variances.dtype
        self.basis, self.rest = instrument.basis.double(), rest.double().sqrt()
        self.extra = (variances.double() + rest.double()).sqrt() - self.rest
        self.core = _Dense(self._root(self._root(normal).T), self.noise)

    def _root(self, x: Tensor) -> Tensor:
        """R x; (N, d) -> (N, d)."""
        return self.rest * x + ((x @ self.basis) * self.extra) @ self.basis.T

    def solve(self, r: Tensor, row: Tensor) -> Tensor:
        wide = r.double()
        inner = self.core.solve(self._root(self.instrument.adjoint(wide)), row)
        level = self.noise[row][:, None] if self.noise.dim() else self.noise
        return ((wide - self.instrument.forward(self._root(inner))) / level).to(r.dtype)

    def logdet(self, row: Tensor) -> Tensor:
        spare = self.instrument.size - len(self.basis)
        level = self.noise[row] if self.noise.dim() else self.noise
        return (self.core.logdet(row) + spare * level.log()).to(self.dtype)


class _Iterative(Innovation):
    """Solves by conjugate gradients; no determinant."""

    has_logdet = False

    def __init__(self, instrument: Instrument, variances: Tensor, rest: Tensor, noise: Tensor) -> None:
        self.instrument, self.variances, self.rest, self.noise = instrument, variances, rest, noise

    def solve(self, r: Tensor, row: Tensor) -> Tensor:
        noise = self.noise[row][:, None] if self.noise.dim() else self.noise
        seen = self.instrument.seen

        def apply(v: Tensor) -> Tensor:
            spread = self.instrument.forward(self.instrument.adjoint(v))
            return ((v @ seen.T) * self.variances) @ seen + self.rest * spread + noise * v

        tolerance = 1e-10 if r.dtype == torch.float64 else 1e-6
        return conjugate_gradient(apply, r, tolerance=tolerance, max_steps=1000)

    def logdet(self, row: Tensor) -> Tensor:
        raise InputError(
            f"the evidence of {self.instrument.size} measurements under this operator needs a matrix of that size "
            f"squared, and the limit is {DENSE_LIMIT}: use one Gaussian component, or fewer measurements"
        )


def log_normal(r: Tensor, solved: Tensor, logdet: Tensor) -> Tensor:
    """log N(r; 0, M) given M^-1 r and log det M; (n, m) -> (n,)."""
    return -0.5 * ((r * solved).sum(1) + logdet + r.shape[1] * math.log(2 * math.pi))

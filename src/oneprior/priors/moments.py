"""Mean, covariance and probabilistic PCA of a stream of events, in float64 and in one pass.

Up to `DENSE_LIMIT` dimensions the (weighted) second moments are accumulated exactly and diagonalised. Above it the
leading directions are carried along, each batch merged with those found so far by a small SVD (Ross, Lim, Lin, Yang
2008, "Incremental learning for robust visual tracking", section 2); the total variance stays exact, so the noise
variance does too.

The rank, where nobody gives one, is the rank with the largest likelihood of every tenth row, held out. For PPCA
that is cheap: with c_j the held-out variance along the eigenvector j of the other rows, every rank q has

    log L(q) = -1/2 [ sum_{j<=q} (log l_j + c_j / l_j) + (d - q) log s_q + sum_{j>q} c_j / s_q ],

so all ranks are judged at once. The chosen rank is then fitted to all rows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from oneprior.core import InputError, ShapeError

DENSE_LIMIT = 4096
_CARRIED = 128  # directions carried along above DENSE_LIMIT when no rank is given
_HELD_OUT = 10  # every tenth row


class Moments:
    """Weighted mean and second moments of rows of d numbers, exact or of the leading directions.

    Args:
        size: d.
        carried: most directions kept when d > DENSE_LIMIT; 0 for the default of 128.
        device: where the sums live.
    """

    def __init__(self, size: int, carried: int = 0, device: torch.device | str = "cpu") -> None:
        self.size, self.carried, self.dense = size, carried or _CARRIED, size <= DENSE_LIMIT
        self.weight = torch.zeros((), dtype=torch.float64, device=device)
        self.mean = torch.zeros(size, dtype=torch.float64, device=device)
        self.trace = torch.zeros((), dtype=torch.float64, device=device)  # sum of squared deviations
        shape = (size, size) if self.dense else (0, size)
        self.scatter = torch.zeros(shape, dtype=torch.float64, device=device)  # S, or R with R'R ~ S

    def update(self, x: Tensor, weight: Tensor | None = None) -> None:
        """Take in rows (n, d), each with a weight >= 0 (n,); 1 by default."""
        if x.shape[0] == 0:
            return
        if x.dim() != 2 or x.shape[1] != self.size:
            raise ShapeError("rows for the moments", tuple(x.shape), ("n", self.size))
        x = x.to(self.mean)
        w = torch.ones(x.shape[0]).to(self.mean) if weight is None else weight.to(self.mean)
        total = w.sum()
        if not bool(total > 0):
            return
        mean = (w @ x) / total
        centred = (x - mean) * w.sqrt()[:, None]
        self._merge(total, mean, centred.T @ centred if self.dense else centred, centred.square().sum())

    def merge(self, other: Moments) -> None:
        """Take in the rows that another has seen (Chan, Golub, LeVeque 1979)."""
        if bool(other.weight > 0):
            self._merge(other.weight, other.mean, other.scatter, other.trace)

    def _merge(self, weight: Tensor, mean: Tensor, scatter: Tensor, trace: Tensor) -> None:
        total = self.weight + weight
        gap = (mean - self.mean) * (self.weight * weight / total).sqrt()
        self.mean = self.mean + (mean - self.mean) * (weight / total)
        self.trace = self.trace + trace + gap.square().sum()
        if self.dense:
            self.scatter = self.scatter + scatter + torch.outer(gap, gap)
        else:
            stack = torch.cat([self.scatter, scatter, gap[None]])
            values, vectors = torch.linalg.eigh(stack @ stack.T)
            keep = min(self.carried, values.numel())
            self.scatter = (vectors[:, -keep:].T @ stack).flip(0)
        self.weight = total

    def eigen(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues of the covariance, falling, (k,), and its eigenvectors, (d, k); k = d where dense."""
        if self.dense:
            values, vectors = torch.linalg.eigh(self.scatter / self.weight)
            return values.flip(0).clamp_min(0.0), vectors.flip(1)
        left, singular, _ = torch.linalg.svd(self.scatter.T, full_matrices=False)
        return singular.square() / self.weight, left


def noise_variances(values: Tensor, trace: Tensor, size: int) -> Tensor:
    """The maximum-likelihood noise variance of each rank 0 .. k-1: the mean of the eigenvalues left over.

    Args:
        values: falling eigenvalues, (k,).
        trace: total variance, the sum of all d eigenvalues.
        size: d.

    Source: Tipping and Bishop 1999, equation 8.
    """
    left = (trace - torch.cat([values.new_zeros(1), values.cumsum(0)]))[: min(values.numel(), size - 1) + 1]
    ranks = torch.arange(left.numel(), dtype=left.dtype, device=left.device)
    floor = 1e-4 * trace / size + 1e-10  # a constant pixel (a black border) must not make the density infinite
    return torch.maximum(left / (size - ranks), floor)


def choose_rank(fitted: Moments, held_out: Moments, most: int | None = None) -> int:
    """The rank, up to `most`, with the largest held-out likelihood; see the module's docstring."""
    values, vectors = fitted.eigen()
    size = fitted.size
    noise = noise_variances(values, fitted.trace / fitted.weight, size)
    top = max(1, min(noise.numel(), int(fitted.weight)))  # no more directions than rows
    top = top if most is None else min(top, most + 1)
    noise, values, vectors = noise[:top], values[: top - 1], vectors[:, : top - 1]
    gap = held_out.mean - fitted.mean
    along = _variance_along(held_out, vectors) + (gap @ vectors).square()
    total = held_out.trace / held_out.weight + gap.square().sum()
    kept = values.clamp_min(1e-30)
    inside = torch.cat([noise.new_zeros(1), (kept.log() + along / kept).cumsum(0)])
    outside = (total - torch.cat([noise.new_zeros(1), along.cumsum(0)])).clamp_min(0.0)
    ranks = torch.arange(top, dtype=noise.dtype, device=noise.device)
    return int((inside + (size - ranks) * noise.log() + outside / noise).argmin())


def _variance_along(moments: Moments, vectors: Tensor) -> Tensor:
    """The variance of the rows along each column of (d, k); (k,)."""
    if moments.dense:
        return (vectors * (moments.scatter @ vectors)).sum(0) / moments.weight
    return (moments.scatter @ vectors).square().sum(0) / moments.weight


class HeldOutMoments:
    """Moments of a stream, kept in two parts so that the rank can be chosen: nine rows in ten, and the tenth."""

    def __init__(self, size: int, device: torch.device | str = "cpu", rank: int = 0) -> None:
        carried = max(128, rank)  # directions that are followed where the events are too large for all
        self.fitted, self.held_out = (Moments(size, carried=carried, device=device) for _ in range(2))
        self.seen = 0

    @property
    def total(self) -> float:
        """The weight of all rows."""
        return float(self.fitted.weight + self.held_out.weight)

    def update(self, x: Tensor, weight: Tensor | None = None) -> None:
        """Take in rows (n, d) with weights (n,)."""
        index = torch.arange(self.seen, self.seen + x.shape[0], device=x.device) % _HELD_OUT == _HELD_OUT - 1
        self.seen += x.shape[0]
        self.fitted.update(x[~index], None if weight is None else weight[~index])
        self.held_out.update(x[index], None if weight is None else weight[index])

    def finish(self, rank: int | None, most: int | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Mean (d,), basis (d, q), extra variances (q,) and noise variance () of the maximum-likelihood PPCA.

        Args:
            rank: q; None for the best held-out likelihood among the ranks up to `most`.
            most: the largest rank that may be chosen.

        Raises:
            InputError: for fewer than two rows, or a rank that the data cannot carry.
        """
        if self.seen < 2 or not bool(self.fitted.weight + self.held_out.weight > 0):
            raise InputError(f"PPCA needs at least 2 rows, got {self.seen}")
        if rank is None:
            weighty = float(self.held_out.weight) >= 2.0
            few = min(self.fitted.size, self.seen, self.fitted.size if most is None else 2 * most) // 2
            rank = choose_rank(self.fitted, self.held_out, most) if weighty else few
        everything = self.fitted
        everything.merge(self.held_out)
        values, vectors = everything.eigen()
        noise = noise_variances(values, everything.trace / everything.weight, everything.size)
        if not 0 <= rank < noise.numel():
            raise InputError(f"rank {rank} cannot be fitted here: give 0 .. {noise.numel() - 1}")
        extra = (values[:rank] - noise[rank]).clamp_min(0.0)
        return everything.mean, vectors[:, :rank], extra, noise[rank]

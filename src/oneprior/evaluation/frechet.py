"""The Frechet distance between two Gaussians fitted to features: how far a set of samples is from a set of real events.

    d^2 = |m_a - m_b|^2 + tr S_a + tr S_b - 2 tr (S_a S_b)^(1/2)

(Dowson and Landau 1982; with Inception features it is the FID of Heusel et al. 2017.) Only the trace of the root is
needed. With any factor S_a = F F' the product S_a S_b has the eigenvalues of the symmetric matrix F' S_b F, so a
Cholesky factor (or, where S_a is singular, one from its eigenvectors) and one symmetric eigenvalue problem do: no
matrix square root, no complex numbers, no jitter on the diagonal, and singular covariances (fewer events than features)
need no exception.

The estimate from n events lies above the true distance by about c / n, so it depends on n: report n, and the distance
between two real sets of the same n (the floor). Distances are comparable only under the same feature network; those of
`evaluation.features` are not the FID of any paper.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from oneprior.core import InputError, Rows, ShapeError


@dataclass(frozen=True)
class FeatureStatistics:
    """Mean and scatter of a set of feature vectors; sets are joined by `+`, so that they can be streamed.

    Args:
        count: number of events.
        mean: (d,), float64.
        scatter: sum of (f - mean)(f - mean)', (d, d), float64.

    Source of the sum: Chan, Golub and LeVeque 1979 (no cancellation, unlike sums of squares).
    """

    count: int
    mean: Tensor
    scatter: Tensor

    @classmethod
    def of(cls, features: Tensor) -> FeatureStatistics:
        """Of one set of feature vectors, (n, d)."""
        if features.dim() != 2:
            raise ShapeError("features", features.shape, "(n, d)", "Flatten each event's features first.")
        if not bool(torch.isfinite(features).all()):
            raise InputError("features hold nan or infinity; the samples diverged, or the network did")
        f = features.detach().double()
        mean = f.mean(0) if len(f) else torch.zeros_like(f[:0].sum(0))
        centred = f - mean
        return cls(len(f), mean, centred.T @ centred)

    def __add__(self, other: FeatureStatistics) -> FeatureStatistics:
        """The statistics of both sets together."""
        if self.mean.shape != other.mean.shape:
            raise ShapeError("features to join", other.mean.shape, self.mean.shape, "Use one feature network.")
        count = self.count + other.count
        if not count:
            return self
        apart = other.mean - self.mean
        mean = self.mean + apart * (other.count / count)
        between = torch.outer(apart, apart) * (self.count * other.count / count)
        return FeatureStatistics(count, mean, self.scatter + other.scatter + between)

    @property
    def covariance(self) -> Tensor:
        """Unbiased covariance (divided by n - 1), (d, d)."""
        if self.count < 2:
            raise InputError(f"a covariance needs at least 2 events, got {self.count}")
        return self.scatter / (self.count - 1)


def frechet_distance(a: Tensor | FeatureStatistics, b: Tensor | FeatureStatistics) -> Tensor:
    """The squared Frechet (2-Wasserstein) distance between Gaussians fitted to two sets of features.

    Args:
        a: features (n, d), or their statistics.
        b: features (m, d), or their statistics.

    Returns:
        A scalar, float64, in squared units of the features, never below zero.

    Raises:
        ShapeError: for features of different length.
    """
    a = a if isinstance(a, FeatureStatistics) else FeatureStatistics.of(a)
    b = b if isinstance(b, FeatureStatistics) else FeatureStatistics.of(b)
    if a.mean.shape != b.mean.shape:
        raise ShapeError("features of the second set", b.mean.shape, a.mean.shape, "Use one feature network.")
    s_a, s_b = a.covariance, b.covariance
    factor = _factor(s_a)
    rank = min(a.count, b.count, len(s_a) + 1) - 1  # n events span n - 1 directions; the rest is rounding
    root = torch.linalg.eigvalsh(factor.T @ s_b @ factor)[-rank:].clamp_min(0).sqrt().sum()
    distance = (a.mean - b.mean).square().sum() + s_a.trace() + s_b.trace() - 2 * root
    return distance.clamp_min(0)


def _factor(s: Tensor) -> Tensor:
    """F with F F' = s, for a symmetric positive semidefinite matrix."""
    factor, failed = torch.linalg.cholesky_ex(s)
    if int(failed) == 0:
        return factor
    values, vectors = torch.linalg.eigh(s)
    return vectors * values.clamp_min(0).sqrt()


def frechet_error(a: Tensor, b: Tensor, rows: Rows, groups: int = 8) -> float:
    """Standard error of the Frechet distance: a jackknife over groups of both sets (Efron and Stein 1981).

    Args:
        a: features, (n, d).
        b: features, (m, d).
        rows: one row, which deals both sets into groups.
        groups: each is left out once, of both sets; n and m are at least twice as many.

    Returns:
        The error; nan for fewer events.
    """
    if min(len(a), len(b)) < 2 * groups:
        return float("nan")
    parts = []
    for x, name in ((a, "a"), (b, "b")):
        order = rows.stream(name).to(x.device).bits(len(x))[0].argsort()
        parts.append([FeatureStatistics.of(part) for part in x[order].tensor_split(groups)])
    found = []
    for out in range(groups):
        kept = [[p for k, p in enumerate(side) if k != out] for side in parts]
        left = [sum(side[1:], side[0]) for side in kept]
        found.append(frechet_distance(*left))
    spread = torch.stack(found)
    return float(((groups - 1) / groups * (spread - spread.mean()).square().sum()).sqrt())

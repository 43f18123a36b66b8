"""FD_infinity: the Frechet distance that infinitely many events would give (Chong and Forsyth 2020).

The distance between n events of each set lies above the true one by about c / n, and c differs between generators, so
that two of them may change places with n. The distance is measured at several n, and a line in 1 / n is followed to 0:

    FD(n) = FD_infinity + c / n

Chong and Forsyth cut only the samples, and keep all real events; both sets are finite, and both are cut here, so that
the bias of the real set goes as well. At each n the sets are cut into disjoint blocks, whose distances are averaged.
The error is a jackknife over parts of both sets (Efron and Stein 1981): the points of one line share their events, and
the scatter about the line says nothing of its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from oneprior.core import InputError, Rows, ShapeError
from oneprior.evaluation.frechet import FeatureStatistics, frechet_distance

_PARTS = 12  # of each set: the sizes are 3 to 12 of them, and the jackknife leaves out one
_SHARES = (3, 4, 6, 12)


@dataclass(frozen=True)
class Extrapolated:
    """The line.

    Args:
        value: FD_infinity; may fall below zero by chance.
        standard_error: of value.
        sizes: events of each set, (k,).
        distances: the mean distance at each size, (k,).
        slope: c, the bias of n events times n.
    """

    value: float
    standard_error: float
    sizes: tuple[int, ...]
    distances: tuple[float, ...]
    slope: float


def frechet_infinity(a: Tensor, b: Tensor, rows: Rows) -> Extrapolated:
    """The Frechet distance between two sets of features, extrapolated to infinitely many events of both.

    Args:
        a: features, (n, d).
        b: features, (m, d); of each set the first min(n, m) in a random order are used.
        rows: one row, which shuffles both.

    Returns:
        The end of the line, with its error.

    Raises:
        ShapeError: for features of different length.
        InputError: where a quarter of the smaller set has not more events than features: then no line is straight.

    Source: Chong and Forsyth 2020, "Effectively unbiased FID and Inception score and where to find them".
    """
    if a.dim() != 2 or b.dim() != 2 or a.shape[1] != b.shape[1]:
        raise ShapeError("features of the second set", tuple(b.shape), ("m", *a.shape[1:]), "Use one feature network.")
    n, d = min(len(a), len(b)), a.shape[1]
    needed = _PARTS // _SHARES[0] * (d + 1)
    if n < max(needed, 4 * _PARTS):
        raise InputError(
            f"extrapolating a distance over {d} features needs at least {max(needed, 4 * _PARTS)} events in each set, "
            f"got {len(a)} and {len(b)}: give more, features of fewer entries (pca:K), or take the kernel distance"
        )
    parts = [_parts(x, n, rows.stream(name)) for x, name in ((a, "a"), (b, "b"))]
    size = n // _PARTS
    sizes = torch.tensor([share * size for share in _SHARES], dtype=torch.float64)
    measured = torch.tensor([_at(parts, share, range(_PARTS)) for share in _SHARES], dtype=torch.float64)
    value, slope = _line(sizes, measured)
    left_out = torch.stack([_leave_out(parts, out, size) for out in range(0, _PARTS, 2)])
    groups = len(left_out)
    error = ((groups - 1) / groups * (left_out - left_out.mean()).square().sum()).sqrt()
    return Extrapolated(
        float(value), float(error), tuple(int(s) for s in sizes), tuple(measured.tolist()), float(slope)
    )


def _parts(x: Tensor, n: int, rows: Rows) -> list[FeatureStatistics]:
    order = rows.to(x.device).bits(len(x))[0].argsort()[: n // _PARTS * _PARTS]
    return [FeatureStatistics.of(part) for part in x[order].chunk(_PARTS)]


def _at(parts: Sequence[Sequence[FeatureStatistics]], share: int, kept: Sequence[int]) -> float:
    """The mean distance between disjoint blocks of `share` parts."""
    blocks = [list(kept)[k : k + share] for k in range(0, len(kept) - share + 1, share)]
    found = [frechet_distance(_joined(parts[0], block), _joined(parts[1], block)) for block in blocks]
    return float(torch.stack(found).mean())


def _joined(parts: Sequence[FeatureStatistics], block: Sequence[int]) -> FeatureStatistics:
    whole = parts[block[0]]
    for k in block[1:]:
        whole = whole + parts[k]
    return whole


def _leave_out(parts: Sequence[Sequence[FeatureStatistics]], out: int, size: int) -> Tensor:
    """The end of the line without parts `out` and `out + 1`."""
    kept = [k for k in range(_PARTS) if k not in (out, out + 1)]
    shares = tuple(share for share in (3, 5, 10))
    sizes = torch.tensor([share * size for share in shares], dtype=torch.float64)
    measured = torch.tensor([_at(parts, share, kept) for share in shares], dtype=torch.float64)
    return _line(sizes, measured)[0]


def _line(sizes: Tensor, distances: Tensor) -> tuple[Tensor, Tensor]:
    """Least squares of distance on 1 / n: (value at 0, slope)."""
    design = torch.stack([torch.ones_like(sizes), 1 / sizes], 1)
    solution = torch.linalg.lstsq(design, distances[:, None]).solution[:, 0]
    return solution[0], solution[1]

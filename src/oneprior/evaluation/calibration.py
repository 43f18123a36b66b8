"""All that posterior draws and truths say about calibration, in one call.

- Intervals: coverage at the levels that the number of draws has exactly (`coverage`), clustered by image, and again
  among the entries of each tenth of predicted deviation: a posterior may be right on average because it is too wide
  where it is sure and too narrow where it is not. Draws that happen to lie close together seem sure and miss the truth,
  so some draws say to which tenth an entry belongs and the others give its interval: then an exact posterior keeps its
  level in each. There the root mean square error of the mean of those S' draws is set beside their deviation; for an
  exact posterior they are as sqrt(1 + 1 / S') to 1.
- Ranks of scalar functions of the event and of distances to reference points (`ranks`, `tarp`), one trial an image.
- Proper scores (`accuracy.crps`, `energy`), which also reward a narrow posterior for being narrow: to compare two.
- The joint verdict (`verdict`).

All figures are over images, which have to be independent: slices of one volume are one image, not many. Truth and
measurement must come from the model that the posterior assumes, or its errors are judged too; and the draws of one
image must be independent. Coverage by pixel is no part of the verdict.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from oneprior.core import InputError, Rows, ShapeError
from oneprior.evaluation.accuracy import crps
from oneprior.evaluation.coverage import Coverage, clustered, share_inside
from oneprior.evaluation.energy import energy_score
from oneprior.evaluation.ranks import (
    Functional,
    RankHistogram,
    Ranks,
    counted_entries,
    functionals,
    rank_histogram,
    rank_truth,
)
from oneprior.evaluation.tarp import Tarp, distance, reference_points, tarp_curve
from oneprior.evaluation.verdict import FEWEST_DRAWS, Verdict, calibration_verdict

LEVELS = (0.5, 0.8, 0.9)
_CHUNK = 1 << 23  # entries of draws sorted at once


@dataclass(frozen=True)
class Score:
    """A mean over images.

    Args:
        value: in units of x.
        standard_error: over images; nan for one.
    """

    value: float
    standard_error: float


@dataclass(frozen=True)
class DeviationBin:
    """Entries whose predicted deviation lies in one tenth.

    Args:
        deviation: root mean square of the standard deviation of the draws behind the interval, in units of x.
        error: root mean square of truth minus the mean of these draws.
        coverage: of these entries.
    """

    deviation: float
    error: float
    coverage: Coverage


@dataclass(frozen=True)
class Calibration:
    """How honest a posterior is.

    Args:
        coverage: at each level that the draws have exactly; at 1 - 2 / (S + 1), if they have none of those asked for.
        by_deviation: in tenths of predicted deviation, rising (fewer if deviations tie), at the highest level that a
            third to four fifths of the draws have exactly.
        histograms: of the ranks under each function; the band is for one function, the verdict for all.
        tarp: expected coverage of balls around reference points.
        crps, energy: proper scores.
        verdict: of all functions and the distance to reference points.
        ranks: behind the verdict.
        images: with at least one counted entry; others are left out.
        draws: S.
    """

    coverage: tuple[Coverage, ...]
    by_deviation: tuple[DeviationBin, ...]
    histograms: Mapping[str, RankHistogram]
    tarp: Tarp
    crps: Score
    energy: Score
    verdict: Verdict
    ranks: Ranks
    images: int
    draws: int


def calibrate(
    draws: Tensor,
    x: Tensor,
    rows: Rows,
    *,
    mask: Tensor | None = None,
    levels: Sequence[float] = LEVELS,
    extra: Mapping[str, Functional] | None = None,
    references: Tensor | None = None,
) -> Calibration:
    """Measure posterior draws against truths.

    Args:
        draws: independent posterior draws, (S, n, *event_shape); S = 19, 39 or 99 has every default level.
        x: the truths, (n, *event_shape), of independent images.
        rows: n rows, for random directions, entries, reference points, the order of equal values, and exchanges.
        mask: which entries count, bool, broadcastable to x; all by default. It must not depend on the truth alone.
        levels: of the intervals, in (0, 1).
        extra: more functions for the ranks, events (n, *event_shape) -> (n,), such as the log-likelihood of the
            measurements, whose row i belongs to event i.
        references: reference points for TARP, (n, *event_shape), chosen without looking at the truths.

    Raises:
        ShapeError: if the shapes do not fit.
        InputError: for fewer than 4 draws, no event with a counted entry, values that are not finite, or an extra
            function with the name of another.
    """
    count = _check(draws, x, rows, extra or {})
    counted = counted_entries(x, mask)
    kept = counted.flatten(1).any(1)
    if not bool(kept.any()):
        raise InputError("the mask leaves no entry to count; give a mask with at least one true entry")
    if not bool(kept.all()) and extra:
        raise InputError("the mask leaves events without a counted entry; leave them out before giving extra functions")
    if not bool(kept.all()):
        draws, x, counted, rows = draws[:, kept], x[kept], counted[kept], rows.take(kept.to(rows.device))
        references = None if references is None else references[kept]
    asked = functionals(x, rows, counted)
    taken = sorted({*asked, "distance"} & {*(extra or {})})
    if taken:
        raise InputError(f"there is a function {taken[0]!r} already; give yours another name")
    points = reference_points(draws, x, rows) if references is None else references
    ranks = rank_truth(draws, x, {**asked, **(extra or {}), "distance": distance(points, x, counted)}, rows)
    coverage, score = _intervals(draws, x, counted, _exact(levels, count))
    return Calibration(
        coverage=coverage,
        by_deviation=_by_deviation(draws, x, counted, levels),
        histograms={name: rank_histogram(ranks.values[:, j], count) for j, name in enumerate(ranks.names)},
        tarp=tarp_curve(ranks.values[:, -1], count),
        crps=score,
        energy=_mean(energy_score(draws, x, counted)),
        verdict=calibration_verdict(ranks, rows.stream("verdict")),
        ranks=ranks,
        images=len(x),
        draws=count,
    )


def _check(draws: Tensor, x: Tensor, rows: Rows, extra: Mapping[str, Functional]) -> int:
    if draws.shape[1:] != x.shape:
        raise ShapeError("draws to calibrate", draws.shape, ("S", *x.shape), "Draws come first: (S, n, *event_shape).")
    if len(rows) != len(x):
        raise ShapeError("rows to calibrate", (len(rows),), (len(x),), "Give one row for each event.")
    if not len(x) or len(draws) < FEWEST_DRAWS:
        raise InputError(
            f"calibration needs at least one event and {FEWEST_DRAWS} draws of each, got {len(x)} and {len(draws)}"
        )
    for what, finite in (("truths", bool(x.isfinite().all())), ("draws", all(bool(d.isfinite().all()) for d in draws))):
        if not finite:
            raise InputError(f"the {what} hold values that are not finite; leave those events out, and say how many")
    return len(draws)


def _exact(levels: Sequence[float], draws: int) -> list[tuple[float, int]]:
    """(level, k) with 1 - 2k / (S + 1) = level, for the levels that have a whole k; else the widest interval."""
    found = []
    for level in levels:
        if not 0 < level < 1:
            raise InputError(f"level must lie in (0, 1), got {level}")
        k = (1 - level) * (draws + 1) / 2
        if k > 0.5 and abs(k - round(k)) < 1e-9 * (draws + 1):
            found.append((level, round(k)))
    return found or [(1 - 2 / (draws + 1), 1)]


def _intervals(
    draws: Tensor, x: Tensor, counted: Tensor, levels: list[tuple[float, int]]
) -> tuple[tuple[Coverage, ...], Score]:
    """Coverage at each level, and CRPS; some images at a time."""
    hits = torch.zeros(len(x), len(levels), dtype=torch.float64, device=x.device)
    width, scores = torch.zeros_like(hits), []
    for part in _parts(draws):
        some, truth, here = draws[:, part].flatten(2), x[part].flatten(1), counted[part].flatten(1)
        ordered = some.sort(0).values
        for j, (_, k) in enumerate(levels):
            inside, wide = _inside(ordered, truth, here, k)
            hits[part, j], width[part, j] = inside.sum(1), wide.sum(1)
        entry = crps(some.flatten(1)[..., None], truth.reshape(-1, 1)).reshape(truth.shape)
        scores.append((entry * here).sum(1) / here.sum(1))
    entries = counted.flatten(1).sum(1).double()
    found = [clustered(hits[:, j], width[:, j], entries, level, len(draws)) for j, (level, _) in enumerate(levels)]
    return tuple(found), _mean(torch.cat(scores))


def _by_deviation(draws: Tensor, x: Tensor, counted: Tensor, levels: Sequence[float]) -> tuple[DeviationBin, ...]:
    """Coverage by the last draws, in tenths of the deviation of the first ones."""
    count, level, k = _split(levels, len(draws))
    predicted = _deviation(draws[: len(draws) - count]).flatten(1)
    flat = counted.flatten(1)
    ordered = predicted[flat].sort().values
    edges = ordered[(torch.arange(1, 10, device=x.device) * len(ordered)) // 10].unique()
    edges = edges[edges > ordered[0]]
    draws, bins = draws[len(draws) - count :], len(edges) + 1
    sums = torch.zeros(5, len(x), bins, dtype=torch.float64, device=x.device)
    for part in _parts(draws):
        some, truth, here = draws[:, part].flatten(2), x[part].flatten(1), flat[part]
        inside, wide = _inside(some.sort(0).values, truth, here, k)
        error = (some.double().mean(0) - truth.double()).square() * here
        into = torch.bucketize(predicted[part], edges, right=True)
        for j, value in enumerate((inside, wide, here.double(), _deviation(some).square() * here, error)):
            sums[j, part] = sums[j, part].scatter_add(1, into, value)
    found = []
    for b in range(bins):
        hits, width, entries, variance, error = sums[:, :, b]
        total = float(entries.sum())
        deviation, error = (math.sqrt(float(value.sum()) / total) for value in (variance, error))
        found.append(DeviationBin(deviation, error, clustered(hits, width, entries, level, count)))
    return tuple(found)


def _split(levels: Sequence[float], draws: int) -> tuple[int, float, int]:
    """How many draws give the interval, its level and k: the highest level that a third to four fifths of them have."""
    most = draws - max(2, draws // 5)
    for level in sorted(levels, reverse=True):
        for count in range(most, draws // 3, -1):
            (exact, k), *_ = _exact([level], count)
            if exact == level and count > 1:
                return count, level, k
    return most, 1 - 2 / (most + 1), 1


def _parts(draws: Tensor) -> Iterator[slice]:
    """Slices of images, few enough to sort their draws at once."""
    step = max(1, _CHUNK // draws[:, 0].numel())
    return (slice(start, start + step) for start in range(0, draws.shape[1], step))


def _inside(ordered: Tensor, x: Tensor, counted: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Whether each counted entry lies in its interval (a share, where draws equal it), and how wide that is; 0 else."""
    low, high = ordered[k - 1], ordered[len(ordered) - k]
    return share_inside(ordered, x, k) * counted, (high.double() - low.double()) * counted


def _deviation(draws: Tensor) -> Tensor:
    """Standard deviation over the draws, one draw at a time (Welford's update)."""
    mean, square = torch.zeros_like(draws[0], dtype=torch.float64), torch.zeros_like(draws[0], dtype=torch.float64)
    for s, draw in enumerate(draws):
        step = draw.double() - mean
        mean += step / (s + 1)
        square += step * (draw.double() - mean)
    return (square / (len(draws) - 1)).sqrt()


def _mean(score: Tensor) -> Score:
    error = float(score.std()) / math.sqrt(len(score)) if len(score) > 1 else math.nan
    return Score(float(score.mean()), error)

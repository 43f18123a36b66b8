"""Tests of accuracy with random points (TARP): expected coverage of balls around reference points.

For each truth x_i take a reference point a_i that does not depend on it, and the share of posterior draws that lie
nearer to a_i than the truth does:

    f_i = #{s : |x_s - a_i| < |x_i - a_i|} / S.

The ball around a_i that holds a share 1 - alpha of the posterior holds the truth if f_i < 1 - alpha. Over many i that
happens with probability 1 - alpha exactly if the posterior is exact; and if it does for every distribution of
reference points, the posterior is exact (Lemos, Coogan, Hezaveh, Perreault-Levasseur 2023, theorem 3). Unlike the ranks
of functions of x it looks at the event as a whole, in any dimension. With reference points that all lie in the centre
of the posterior it is the test of the highest-density regions, and blind to much.

S f_i is a rank: uniform on 0 to S for an exact posterior. So the curve is given at the levels k / (S + 1), where its
expectation is exact, and the ranks go to `verdict` with those of other functions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from oneprior.core import InputError, Rows, ShapeError
from oneprior.evaluation.ranks import NULLS, Functional, counted_entries, null_counts, rank_truth, simultaneous_band


@dataclass(frozen=True)
class Tarp:
    """Expected coverage against credibility.

    Args:
        levels: credibility k / (S + 1), k = 1 to S, (S,) float64.
        coverage: share of truths inside the ball of that credibility, (S,) float64.
        standard_error: of coverage, binomial over images, (S,).
        low, high: band in which the whole curve of an exact posterior lies with probability 0.95, (S,).
        ranks: S f_i, int64 (n,).
        draws: S.
    """

    levels: Tensor
    coverage: Tensor
    standard_error: Tensor
    low: Tensor
    high: Tensor
    ranks: Tensor
    draws: int

    @property
    def inside(self) -> bool:
        """Whether the whole curve lies in the band."""
        return bool(((self.coverage >= self.low) & (self.coverage <= self.high)).all())

    @property
    def largest_gap(self) -> float:
        """Largest distance of the curve from the diagonal, in its sign: above 0 the balls hold the truth too often."""
        gap = self.coverage - self.levels
        return float(gap[gap.abs().argmax()])


def tarp(draws: Tensor, x: Tensor, rows: Rows, *, references: Tensor | None = None, mask: Tensor | None = None) -> Tarp:
    """Expected coverage of balls around reference points.

    Args:
        draws: independent posterior draws, (S, n, *event_shape).
        x: the truth, (n, *event_shape).
        rows: n rows, for the reference points and for the order of equal distances.
        references: one point for each truth, (n, *event_shape), chosen without looking at it; `reference_points` by
            default.
        mask: which entries the distance counts, bool, broadcastable to x; all by default.

    Raises:
        ShapeError: if the shapes do not fit.
        InputError: for no event or no draw.

    Source: Lemos, Coogan, Hezaveh, Perreault-Levasseur 2023, "Sampling-based accuracy testing of posterior estimators
    for general inference", algorithm 2.
    """
    if references is None:
        references = reference_points(draws, x, rows)
    ranks = rank_truth(draws, x, {"distance": distance(references, x, mask)}, rows)
    return tarp_curve(ranks.values[:, 0], len(draws))


def reference_points(draws: Tensor, x: Tensor, rows: Rows) -> Tensor:
    """A point for each truth: the mean of another event's truth and draws, and white noise of the posterior's size.

    Both are symmetric in truth and draws, so that exchanging them moves no point and ranks stay exact.

    Args:
        draws: posterior draws, (S, n, *event_shape).
        x: the truth, (n, *event_shape).
        rows: n rows, for the noise.

    Returns:
        (n, *event_shape), float64.
    """
    if draws.shape[1:] != x.shape:
        raise ShapeError("draws for TARP", draws.shape, ("S", *x.shape), "Draws come first: (S, n, *event_shape).")
    if not len(x) or not len(draws):
        raise InputError(f"TARP needs at least one event and one draw, got {len(x)} and {len(draws)}")
    mean, square = x.double(), torch.zeros_like(x, dtype=torch.float64)
    for s, draw in enumerate(draws):  # Welford's update: no second copy of the draws
        step = draw.double() - mean
        mean = mean + step / (s + 2)
        square += step * (draw.double() - mean)
    deviation = (square.mean() / len(draws)).sqrt()
    noise = rows.stream("references").normal(*x.shape[1:], dtype=torch.float64).to(x.device)
    return mean.roll(1, 0) + deviation * noise


def distance(references: Tensor, x: Tensor, mask: Tensor | None = None) -> Functional:
    """Euclidean distance of each event to its reference point, over the counted entries, as a function for ranks."""
    if references.shape != x.shape:
        raise ShapeError("reference points", references.shape, tuple(x.shape), "Give one for each event.")
    counted = counted_entries(x, mask)
    return lambda e: ((e.double() - references) * counted).flatten(1).norm(dim=1)


def tarp_curve(ranks: Tensor, draws: int) -> Tarp:
    """The curve of ranks S f_i.

    Args:
        ranks: int64 (n,), 0 to S.
        draws: S.
    """
    n = len(ranks)
    below = torch.bincount(ranks.cpu(), minlength=draws + 1).cumsum(0)[:-1]  # ranks under k, for k = 1 to S
    levels = torch.arange(1, draws + 1, dtype=torch.float64) / (draws + 1)
    coverage = below.double() / n
    simulated = null_counts(n, draws).cumsum(1)[:, :-1].reshape(NULLS, draws)
    low, high = simultaneous_band(simulated, n, levels)
    error = (coverage * (1 - coverage) / n).sqrt()
    return Tarp(levels, coverage, error, low.double() / n, high.double() / n, ranks, draws)

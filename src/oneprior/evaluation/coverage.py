"""Does the truth lie inside the intervals that posterior draws give, as often as they promise?

Between the k-th smallest and the k-th largest of S exact draws lies a further exact draw with probability
1 - 2k / (S + 1), whatever the law: the truth is exchangeable with the draws (Wilks 1941). So S must fit the level:
19, 39 or 99 draws for 90 %. Interpolated quantiles do not do this: those of 16 exact draws at 5 % and 95 % cover 80 %.

Where values tie (the black of an 8-bit picture), the truth takes a place among its equals at random, as the ranks of
`ranks` do, and the share of places inside counts: closed intervals would hold more than they promise, and a posterior
that knows the atoms of its data would look wrong (randomised intervals: Geyer and Meeden 2005). For draws without ties
nothing changes.

Pixels of one image err together, so the standard error is computed from one figure per image (a cluster), not from
the pixels: the ratio estimator sum_i h_i / sum_i m_i over hits h_i among m_i counted pixels (Cochran 1977, chapter 6).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from oneprior.core import InputError, ShapeError


@dataclass(frozen=True)
class Coverage:
    """How often the intervals held the truth.

    Args:
        value: share of counted entries inside their interval, 0 to 1.
        standard_error: of `value`, clustered by image; nan for one image.
        level: what was promised.
        images: number of images with at least one counted entry.
        draws: number of draws behind each interval.
        width: mean width of the counted intervals, in units of x (a wide interval is an honest but weak one).
    """

    value: float
    standard_error: float
    level: float
    images: int
    draws: int
    width: float

    @property
    def z(self) -> float:
        """(value - level) / standard_error: beyond +-3 the posterior is miscalibrated."""
        return (self.value - self.level) / self.standard_error if self.standard_error > 0 else math.nan


def interval_coverage(draws: Tensor, x: Tensor, level: float = 0.9, mask: Tensor | None = None) -> Coverage:
    """Share of entries of x inside the central interval of their draws, between order statistics.

    Args:
        draws: posterior draws, (S, n, *event_shape); (1 - level) (S + 1) / 2 is whole: S = 19, 39, 99 for 0.9.
        x: the truth, (n, *event_shape).
        level: probability that the interval promises, in (0, 1).
        mask: which entries count, bool, broadcastable to x (constant borders flatter every figure); all by default.

    Returns:
        The share, with its standard error clustered by image; of entries that equal draws, see the module's docstring.

    Raises:
        ShapeError: if the shapes do not fit.
        InputError: if S and the level do not fit, or nothing is counted.
    """
    if draws.shape[1:] != x.shape:
        raise ShapeError("draws for coverage", draws.shape, ("S", *x.shape), "Draws come first: (S, n, *event_shape).")
    count = draws.shape[0]
    k = _rank(count, level)
    ordered = draws.sort(0).values
    low, high = ordered[k - 1], ordered[count - k]
    counted = torch.ones_like(x, dtype=torch.bool) if mask is None else mask.to(x.device).bool().expand(x.shape)
    entries = counted.flatten(1).sum(1).double()
    if not bool(entries.any()):
        raise InputError("the mask leaves no entry to count; give a mask with at least one true entry")
    hits = (share_inside(draws, x, k) * counted).flatten(1).sum(1)
    width = ((high.double() - low.double()) * counted).flatten(1).sum(1)
    return clustered(hits, width, entries, level, count)


def share_inside(draws: Tensor, x: Tensor, k: int) -> Tensor:
    """The chance that x lies between the k-th smallest and the k-th largest draw, its place among equal draws taken at
    random: 0 or 1 where no draw equals x.

    Args:
        draws: (S, *shape).
        x: (*shape).
        k: rank, from 1.

    Returns:
        (*shape), float64.
    """
    less = torch.zeros(x.shape, dtype=torch.int16, device=x.device)
    ties = torch.zeros_like(less)
    for draw in draws:
        less += draw < x
        ties += draw == x
    first, last = less.clamp_min(k), (less + ties).clamp_max(len(draws) - k)
    return (last - first + 1).clamp_min(0).double() / (ties + 1)


def clustered(hits: Tensor, width: Tensor, entries: Tensor, level: float, draws: int) -> Coverage:
    """Coverage from sums of each image, by the ratio estimator.

    Args:
        hits: counted entries inside their interval, (n,) float64.
        width: sum of the widths of the counted intervals, (n,).
        entries: counted entries, (n,); not all 0.
        level: what was promised.
        draws: behind each interval.
    """
    total, images = float(entries.sum()), int((entries > 0).sum())
    value = float(hits.sum()) / total
    scatter = float((hits - value * entries).square().sum())
    error = math.sqrt(images / (images - 1) * scatter) / total if images > 1 else math.nan
    return Coverage(value, error, level, images, draws, float(width.sum()) / total)


def _rank(count: int, level: float) -> int:
    """k with 1 - 2k / (S + 1) = level."""
    if not 0 < level < 1:
        raise InputError(f"level must lie in (0, 1), got {level}")
    k = (1 - level) * (count + 1) / 2
    if k < 0.5 or abs(k - round(k)) > 1e-9 * (count + 1):
        smallest = next((s for s in range(1, 2000) if _fits(s, level)), None)
        hint = f"{smallest}, or any S with (1 - level) (S + 1) / 2 whole" if smallest else "another level"
        raise InputError(f"{count} draws have no exact {level:.4g} interval between order statistics; draw {hint}")
    return round(k)


def _fits(count: int, level: float) -> bool:
    k = (1 - level) * (count + 1) / 2
    return k >= 0.5 and abs(k - round(k)) <= 1e-9 * (count + 1)

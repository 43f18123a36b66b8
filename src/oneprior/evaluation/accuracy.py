"""How far a restored event, or a set of posterior draws, lies from the truth. One number per row, in float64.

Two tables must never be mixed: a posterior mean minimises the squared error and has about 3 dB more PSNR than one
draw of the same posterior (for exact draws the expected squared error is twice that of the mean). A whole posterior is
judged by a proper score: the continuous ranked probability score (CRPS; Matheson and Winkler 1976) is least in
expectation for the true posterior alone, and is the mean absolute error when the posterior is a point.

An ensemble of S draws enters the CRPS through E|X - x| - E|X - X'| / 2. The mean over all S^2 pairs counts each
draw against itself and so rewards small ensembles for being narrow; the mean over the S (S - 1) distinct pairs is
unbiased for the law that the draws come from, whatever S ("fair", Ferro 2014; Zamo and Naveau 2018).
"""

from __future__ import annotations

import torch
from torch import Tensor

from oneprior.core import InputError, ShapeError


def mse(x: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean squared error of each row.

    Args:
        x: events, (n, *event_shape).
        y: the truth, same shape.
        mask: which entries count, bool, broadcastable to x; all by default.

    Returns:
        (n,), float64, in squared units of x; nan for a row of which nothing counts.

    Raises:
        ShapeError: if the shapes differ.
    """
    _same(x, y)
    return region_mean((x.double() - y.double()).square(), mask)


def region_mean(values: Tensor, mask: Tensor | None = None) -> Tensor:
    """The mean of each row over the entries that count, (n, ...) -> (n,); nan where none does."""
    if mask is None:
        return values.flatten(1).mean(1)
    counted = mask.to(values.device).bool().expand(values.shape).flatten(1)
    return (values.flatten(1) * counted).sum(1) / counted.sum(1)


def psnr(x: Tensor, y: Tensor, data_range: float = 2.0, mask: Tensor | None = None) -> Tensor:
    """Peak signal-to-noise ratio of each row, 10 log10(data_range^2 / mse), in decibels.

    Args:
        x: events, (n, *event_shape).
        y: the truth, same shape.
        data_range: high - low of the values; 2 for [-1, 1].
        mask: which entries count, as of `mse`.

    Returns:
        (n,), float64; infinite where x equals y.

    Raises:
        InputError: for a range that is not positive.
    """
    if not data_range > 0:
        raise InputError(f"psnr needs data_range > 0, got {data_range}; it is the highest minus the lowest value")
    return 10.0 * torch.log10(data_range**2 / mse(x, y, mask))


def crps(draws: Tensor, x: Tensor) -> Tensor:
    """Fair continuous ranked probability score, mean over the entries of each row.

    mean_s |X_s - x| - sum_{s < t} |X_s - X_t| / (S (S - 1)), the second sum from order statistics in S log S.

    Args:
        draws: posterior draws, (S, n, *event_shape), S >= 2.
        x: the truth, (n, *event_shape).

    Returns:
        (n,), float64, in units of x; unbiased, so that one row may be below zero.

    Raises:
        ShapeError: if the shapes do not fit.
        InputError: for fewer than two draws.

    Source: Ferro 2014, "Fair scores for ensemble forecasts".
    """
    _same(draws[0] if len(draws) else draws, x)
    count = draws.shape[0]
    if count < 2:
        raise InputError(f"a fair CRPS needs at least 2 draws of each row, got {count}")
    total = torch.zeros(x.shape, dtype=torch.float64, device=x.device)
    rank = 2.0 * torch.arange(count, dtype=torch.float64, device=draws.device) - (count - 1)
    for s, ordered in enumerate(draws.sort(0).values):  # one draw at a time: the float64 copy stays small
        total += (ordered.double() - x.double()).abs() / count - rank[s] * ordered.double() / (count * (count - 1))
    return total.flatten(1).mean(1)


def _same(x: Tensor, y: Tensor) -> None:
    if x.shape != y.shape:
        raise ShapeError("events to compare with the truth", x.shape, y.shape, "Compare row by row.")

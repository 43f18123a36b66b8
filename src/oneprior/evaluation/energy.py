"""The energy score: one proper score for the whole joint posterior of an event (Gneiting and Raftery 2007).

    ES = E|X - x| - E|X - X'| / 2,    |.| the Euclidean norm over the event,

with X, X' independent draws. It is the CRPS of an event of one number; in more dimensions it is least in expectation
for the true law alone (Szekely and Rizzo 2013), so that a posterior with right marginals and wrong dependence between
the entries loses, which the mean CRPS cannot see (though the loss may be small: Pinson and Tastu 2013).

As for the CRPS, the mean over the S (S - 1) distinct pairs makes the estimate unbiased for any number of draws.
"""

from __future__ import annotations

import torch
from torch import Tensor

from oneprior.core import InputError, ShapeError
from oneprior.evaluation.ranks import counted_entries

_CHUNK = 1 << 22  # float64 entries worked on at once


def energy_score(draws: Tensor, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Fair energy score of each row.

    mean_s |X_s - x| - sum_{s < t} |X_s - X_t| / (S (S - 1)).

    Args:
        draws: posterior draws, (S, n, *event_shape), S >= 2.
        x: the truth, (n, *event_shape).
        mask: which entries the norm counts, bool, broadcastable to x; all by default.

    Returns:
        (n,), float64, in units of x; unbiased, so that one row may be below zero. It grows as the root of the number
        of counted entries.

    Raises:
        ShapeError: if the shapes do not fit.
        InputError: for fewer than two draws.

    Source: Gneiting and Raftery 2007, "Strictly proper scoring rules, prediction, and estimation", section 4.3.
    """
    if draws.shape[1:] != x.shape:
        raise ShapeError("draws to score", draws.shape, ("S", *x.shape), "Draws come first: (S, n, *event_shape).")
    count, n = draws.shape[0], len(x)
    if count < 2:
        raise InputError(f"a fair energy score needs at least 2 draws of each row, got {count}")
    counted = counted_entries(x, mask)
    step = max(1, _CHUNK // max(1, count * max(count, x.shape[1:].numel())))
    scores = [torch.empty(0, dtype=torch.float64, device=x.device)]
    for start in range(0, n, step):
        rows = slice(start, start + step)
        # errors, not draws: their norms are as small as their distances, so that the Gram matrix loses no digits
        error = ((draws[:, rows].double() - x[rows].double()) * counted[rows]).flatten(2).transpose(0, 1)  # (m, S, d)
        gram = error @ error.transpose(1, 2)
        square = gram.diagonal(dim1=1, dim2=2)
        apart = (square[:, :, None] + square[:, None, :] - 2 * gram).clamp_min(0).sqrt()
        apart.diagonal(dim1=1, dim2=2).zero_()
        scores.append(square.sqrt().mean(1) - apart.sum((1, 2)) / (2 * count * (count - 1)))
    return torch.cat(scores)

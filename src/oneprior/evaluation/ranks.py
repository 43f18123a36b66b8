"""Simulation-based calibration: the rank of the truth among posterior draws.

Draw a truth x from the prior and a measurement y of it, then S independent draws from the posterior given y. If the
posterior is exact, the truth is exchangeable with the draws, and so for every function f of an event

    r = #{s : f(x_s) < f(x)}    is uniform on 0, 1, ..., S,

whatever prior, instrument and function (Cook, Gelman, Rubin 2006; Talts, Betancourt, Simpson, Vehtari, Gelman 2018).
Equal values stand in random order, else constants would pile up at rank 0. A U-shaped histogram of ranks says that the
posterior is too narrow, a hump that it is too wide, a slope that it is biased. The draws have to be independent: states
of one chain are to be thinned first.

An image gives one independent trial for each function, not one for each pixel. What a function does not see is not
tested (a posterior equal to the prior passes for every f of x alone if x is drawn from the prior): functions that also
know y, such as its log-likelihood, and distances to reference points (`tarp`) find what pixels and means do not
(Modrak, Moon, Kim, Buerkner, Huurre, Faltejskova, Gelman, Vehtari 2023).

One image's truth may be exchanged with any of its draws, and all functions move together. `Ranks.exchanged` keeps the
rank that each member would have had as the truth; from it `verdict` has the exact joint law of dependent functions.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from oneprior.core import InputError, Rows, ShapeError

Functional = Callable[[Tensor], Tensor]

NULLS = 7999  # simulated exact posteriors behind every band and every p-value of independent ranks
_CHUNK = 1 << 20  # ranks simulated at once


@dataclass(frozen=True)
class Ranks:
    """Ranks of n truths, under k functions.

    Args:
        names: of the functions, k.
        values: rank of the truth among its draws, int64 (n, k), 0 to `draws`.
        draws: S.
        exchanged: rank of each member (first the truth, then the draws) among the S others, int64 (S + 1, n, k); None
            where only the ranks of the truth are known, and then nothing is known of how the functions depend.
    """

    names: tuple[str, ...]
    values: Tensor
    draws: int
    exchanged: Tensor | None = None

    def __post_init__(self) -> None:
        if self.values.dim() != 2 or self.values.shape[1] != len(self.names):
            raise ShapeError("ranks", self.values.shape, ("n", len(self.names)), "One column for each function.")
        if self.values.numel() and not 0 <= int(self.values.min()) <= int(self.values.max()) <= self.draws:
            given = f"{int(self.values.min())} to {int(self.values.max())}"
            raise InputError(f"ranks among {self.draws} draws run from 0 to {self.draws}, got {given}")


@dataclass(frozen=True)
class RankHistogram:
    """Ranks counted in bins, with the band in which all counts of an exact posterior lie together.

    Args:
        counts: images in each bin, (bins,).
        expected: under an exact posterior, (bins,).
        low, high: lowest and highest count inside the band, (bins,).
        level: probability with which every bin of an exact posterior lies in its band, by simulation.
    """

    counts: tuple[int, ...]
    expected: tuple[float, ...]
    low: tuple[int, ...]
    high: tuple[int, ...]
    level: float

    @property
    def inside(self) -> bool:
        """Whether every bin lies in the band."""
        return all(a <= c <= b for a, c, b in zip(self.low, self.counts, self.high, strict=True))


def functionals(x: Tensor, rows: Rows, mask: Tensor | None = None, *, projections: int = 2) -> dict[str, Functional]:
    """Scalar functions of an event, for ranks: a small set that sees level, texture, one entry and random directions.

    - mean: over the counted entries;
    - contrast: mean absolute difference of neighbours along the space axes (where there are any);
    - entry: one counted entry of each event, chosen at random;
    - projection 1, 2, ...: inner products with white noise, the same for all events;
    - coarse projection 1, 2, ...: with noise that is constant over quarters of each space axis, which sees smooth
      errors better.

    An event of one number has only its value.

    Args:
        x: events, (n, *event_shape); only their shape is used.
        rows: n rows; the directions depend on its seed and stream alone.
        mask: which entries count, bool, broadcastable to x; all by default.
        projections: how many of each kind.

    Returns:
        {name: function of (n, *event_shape) that returns (n,) float64}.

    Raises:
        InputError: for an event without a counted entry.
    """
    shape, space = x.shape[1:], x.shape[2:]
    counted = counted_entries(x, mask)
    total = counted.flatten(1).sum(1)
    if not bool((total > 0).all()):
        raise InputError("the mask leaves an event without a counted entry; leave that event out")
    if shape.numel() == 1:
        return {"value": lambda e: e.double().reshape(len(e))}
    pick = (rows.stream("entry").uniform(dtype=torch.float64).to(x.device) * total).long() + 1
    place = (counted.flatten(1).cumsum(1) >= pick[:, None]).double().argmax(1, keepdim=True)
    found: dict[str, Functional] = {
        "mean": lambda e: (e.double() * counted).flatten(1).sum(1) / total,
        "entry": lambda e: e.flatten(1).gather(1, place)[:, 0].double(),
    }
    if space and max(space) > 1:
        found["contrast"] = lambda e: _contrast(e.double(), counted)
    direction = Rows(max(projections, 1), rows.seed, stream=f"{rows.name}/projections")
    for k, v in enumerate(direction.normal(*shape, dtype=torch.float64).to(x.device)[:projections]):
        found[f"projection {k + 1}"] = _projection(v, counted)
    if 1 <= len(space) <= 3 and max(space) > 4:
        coarse = direction.normal(shape[0], *(min(4, size) for size in space), dtype=torch.float64).to(x.device)
        for k, v in enumerate(torch.nn.functional.interpolate(coarse, size=tuple(space))[:projections]):
            found[f"coarse projection {k + 1}"] = _projection(v, counted)
    return found


def rank_truth(draws: Tensor, x: Tensor, functions: Mapping[str, Functional], rows: Rows) -> Ranks:
    """Ranks of the truth among its posterior draws, under each function.

    Args:
        draws: independent posterior draws, (S, n, *event_shape).
        x: the truth, (n, *event_shape).
        functions: {name: events (n, *event_shape) -> (n,)}; row i of the events always belongs to measurement i.
        rows: n rows, which put equal values in random order.

    Raises:
        ShapeError: if draws, truth and rows do not fit.
        InputError: for no draw or no function, or one with a value that is not a number.
    """
    if draws.shape[1:] != x.shape:
        raise ShapeError("draws for ranks", draws.shape, ("S", *x.shape), "Draws come first: (S, n, *event_shape).")
    if len(rows) != len(x):
        raise ShapeError("rows for ranks", (len(rows),), (len(x),), "Give one row for each event.")
    if not len(draws) or not functions:
        raise InputError(f"ranks need at least one draw and one function, got {len(draws)} and {len(functions)}")
    values = torch.empty(len(draws) + 1, len(x), len(functions), dtype=torch.float64, device=x.device)
    for s in range(len(draws) + 1):  # one draw at a time: nothing of the size of all draws is made
        for j, (name, function) in enumerate(functions.items()):
            found = function(draws[s - 1] if s else x)
            if found.shape != (len(x),):
                raise ShapeError(f"function {name!r}", found.shape, (len(x),), "Return one number for each event.")
            values[s, :, j] = found
    broken = [name for name, bad in zip(functions, values.isnan().any(0).any(0).tolist(), strict=True) if bad]
    if broken:
        raise InputError(f"function {broken[0]!r} gives NaN for some event; ranks need numbers (or infinities)")
    exchanged = exchanged_ranks(values, rows)
    return Ranks(tuple(functions), exchanged[0], len(draws), exchanged)


def exchanged_ranks(values: Tensor, rows: Rows) -> Tensor:
    """Rank of each member among the others, equal values in random order (one order for all functions of a row).

    Args:
        values: (S + 1, n, k).
        rows: n rows.

    Returns:
        int64 (S + 1, n, k): along the first axis a permutation of 0 to S.
    """
    members = len(values)
    shuffle = rows.stream("ties").bits(members).to(values.device).argsort(1).T[..., None].expand(values.shape)
    order = values.gather(0, shuffle).argsort(dim=0, stable=True)
    place = torch.arange(members, device=values.device)[:, None, None].expand(values.shape)
    return torch.empty_like(order).scatter_(0, shuffle.gather(0, order), place)


def rank_histogram(ranks: Tensor, draws: int, *, bins: int | None = None, level: float = 0.95) -> RankHistogram:
    """Count ranks in bins.

    Args:
        ranks: (n,), 0 to `draws`.
        draws: S.
        bins: how many; by default at most 20, with at least 5 images expected in each, dividing S + 1 where they can.
        level: probability of the band.

    Raises:
        InputError: for no rank, or more bins than S + 1.
    """
    n = ranks.numel()
    if not n:
        raise InputError("a histogram needs at least one rank")
    if bins is None:
        most = max(2, min(20, draws + 1, n // 5))
        bins = next((b for b in range(most, most // 2, -1) if (draws + 1) % b == 0), most)
    if not 1 <= bins <= draws + 1:
        raise InputError(f"ranks among {draws} draws fill 1 to {draws + 1} bins, got {bins}")
    into = torch.arange(draws + 1) * bins // (draws + 1)
    share = torch.bincount(into, minlength=bins).double() / (draws + 1)
    simulated = torch.zeros(NULLS, bins, dtype=torch.int64).index_add_(1, into, null_counts(n, draws))
    low, high = simultaneous_band(simulated, n, share, level)
    counts = torch.bincount(into[ranks.reshape(-1).cpu()], minlength=bins)
    expected = tuple((n * share).tolist())
    return RankHistogram(tuple(counts.tolist()), expected, tuple(low.tolist()), tuple(high.tolist()), level)


def simultaneous_band(simulated: Tensor, n: int, share: Tensor, level: float = 0.95) -> tuple[Tensor, Tensor]:
    """The band in which m dependent binomial counts lie together: exact tails, at a level found by simulation.

    Each band is the central interval of its own binomial law; all have one tail probability, the largest with which
    `level` of the simulated sets lie inside everywhere (Saeilynoja, Buerkner, Vehtari 2022).

    Args:
        simulated: sets of counts under the null, int64 (B, m).
        n: trials of each count.
        share: success probability of each count, (m,), strictly between 0 and 1 (or 1 for a lone bin).
        level: joint probability.

    Returns:
        The lowest and the highest count inside, int64 (m,) each.
    """
    c = torch.arange(n + 1, dtype=torch.float64)
    choose = math.lgamma(n + 1) - torch.lgamma(c + 1) - torch.lgamma(n - c + 1)
    p = share.double()[:, None]
    mass = (choose + torch.xlogy(c, p) + torch.xlogy(n - c, 1 - p)).exp()  # (m, n + 1)
    tail = torch.minimum(mass.cumsum(1), mass.flip(1).cumsum(1).flip(1))
    least = tail.gather(1, simulated.T).amin(0).sort().values
    threshold = least[math.floor((1 - level) * len(least))] * (1 - 1e-9)
    inside = (tail >= threshold).double()
    return inside.argmax(1), n - inside.flip(1).argmax(1)


@functools.lru_cache(maxsize=8)
def null_counts(n: int, draws: int) -> Tensor:
    """How often n independent ranks of an exact posterior take each value: `NULLS` simulations, (NULLS, S + 1).

    Always the same numbers, so that a band or a p-value depends on the ranks alone.
    """
    rows = Rows(n, stream="ranks of exact posteriors")
    counts, made, step = [], 0, max(1, _CHUNK // max(n, draws + 1))
    while made < NULLS:
        part = min(step, NULLS - made)
        shifted = rows.integers(draws + 1, part) + (draws + 1) * torch.arange(part)
        counts.append(torch.bincount(shifted.reshape(-1), minlength=part * (draws + 1)).reshape(part, -1))
        made += part
    return torch.cat(counts)


def counted_entries(x: Tensor, mask: Tensor | None) -> Tensor:
    """The mask as bool of the shape of x; all true without one."""
    if mask is None:
        return torch.ones(1, dtype=torch.bool, device=x.device).expand(x.shape)
    try:
        return mask.to(x.device).bool().expand(x.shape)
    except RuntimeError:
        raise ShapeError("mask", mask.shape, tuple(x.shape), "A mask is broadcastable to the events.") from None


def _projection(direction: Tensor, counted: Tensor) -> Functional:
    return lambda e: (e.double() * counted).flatten(1) @ direction.flatten()


def _contrast(x: Tensor, counted: Tensor) -> Tensor:
    total, pairs = x.new_zeros(len(x)), x.new_zeros(len(x))
    for axis in range(2, x.dim()):
        length = x.shape[axis] - 1
        both = counted.narrow(axis, 1, length) & counted.narrow(axis, 0, length)
        total += (x.diff(dim=axis).abs() * both).flatten(1).sum(1)
        pairs += both.flatten(1).sum(1)
    return total / pairs.clamp_min(1)

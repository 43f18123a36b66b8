"""Bits per dimension: the log-likelihood of a set in the one unit that is independent of the size of an event.

A file holds whole numbers (grey levels 0 .. 255, Hounsfield units), a prior has a density over real x in [-1, 1]. One
step of the data is w = 2 / (levels - 1) wide in x, and a bin of that width holds the probability P(v) = integral of p
over the bin of v. With u uniform in the bin, Jensen's inequality says (Uria, Murray, Larochelle 2013; Theis, van den
Oord, Bethge 2016, equations 3 to 6)

    log P(v) = log(w^D E_u p(x + u)) >= E_u log p(x + u) + D log w,

so that, for D numbers an event, the mean over events and u of

    bits per dimension = -log p(x + u) / (D log 2) - log2 w

is an upper bound on the bits that a lossless code made from the prior spends on one number. Two things follow. The
density must be taken at x + u (`dequantise`): at x itself it is no bound, and a prior that puts spikes on the grey
levels has any score it likes. And what is reported for a density that is itself a lower bound (a VAE's) stays a bound.
A uniform law over the levels scores log2 levels: 8 bits for 256 levels.

Events are independent, so the standard error is that of a mean over events; it holds the noise of u and of an
estimated log p, as these are drawn anew for each event.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from oneprior.core import AffineMap, InputError, Rows, ShapeError

_OFF = 0.05  # of a step: how far from a level a value may lie; float32 of 65,536 levels is off by 0.002


@dataclass(frozen=True)
class Bits:
    """Bits for each number of the data.

    Args:
        mean: over the events.
        standard_error: of `mean`, over the events; nan for one.
        each: of each event, (n,), float64: two priors are compared by paired differences.
    """

    mean: float
    standard_error: float
    each: Tensor

    @classmethod
    def of(cls, each: Tensor) -> Bits:
        """Mean and standard error of (n,) numbers."""
        if not each.numel():
            raise InputError("bits per dimension need at least one event, got none")
        error = float(each.std()) / math.sqrt(len(each)) if len(each) > 1 else math.nan
        return cls(float(each.mean()), error, each)


def bits_per_dimension(
    log_prob: Tensor, event_shape: torch.Size | tuple[int, ...], levels: int | AffineMap | None = 256
) -> Bits:
    """-log p / (D log 2) - log2 w, see the module.

    Args:
        log_prob: nats of events x in [-1, 1], dequantised, (n,).
        event_shape: of x; D is the product.
        levels: how many values a number of the data can take, evenly from -1 to 1; or the map to units in which the
            data are whole numbers; or None for continuous data, w = 1: then the unit is that of x, and the result may
            be negative.

    Raises:
        ShapeError: if log_prob is not (n,).
        InputError: for fewer than two levels, no event, or a log_prob that is nan.
    """
    if log_prob.dim() != 1:
        raise ShapeError("log_prob", log_prob.shape, "(n,)", "Give one number for each event.")
    if bool(log_prob.isnan().any()):
        raise InputError("log_prob holds nan: the events do, or the prior diverged")
    size = math.prod(event_shape)
    each = -log_prob.detach().double() / (size * math.log(2))
    return Bits.of(each if levels is None else each - math.log2(bin_width(levels)))


def dequantise(x: Tensor, rows: Rows, levels: int | AffineMap = 256) -> Tensor:
    """x plus noise, uniform in the bin around each value.

    Args:
        x: events in [-1, 1], (n, *event_shape), on the levels.
        rows: one stream for each event.
        levels: see `bits_per_dimension`.

    Returns:
        Events of the same shape and type; the outer bins reach half a step beyond [-1, 1].

    Raises:
        ShapeError: if there is not one row for each event.
        InputError: if x does not lie on the levels.
    """
    if len(rows) != len(x):
        raise ShapeError("rows of the noise", (len(rows),), (len(x),), "Give one row for each event.")
    value = _units(levels).to_units(x.double())
    off = float((value - value.round()).abs().amax()) if x.numel() else 0.0
    if not off <= _OFF:
        raise InputError(
            f"the events lie up to {off:.2g} steps off their levels ({levels}): give the number of levels that the "
            "data have, or None if they were resampled or are continuous"
        )
    noise = rows.to(x.device).stream("dequantise").uniform(*x.shape[1:], dtype=torch.float64) - 0.5
    return (x.double() + bin_width(levels) * noise).to(x.dtype)


def bin_width(levels: int | AffineMap) -> float:
    """w: one step of the data, in units of x."""
    return 1.0 / _units(levels).scale


def _units(levels: int | AffineMap) -> AffineMap:
    if isinstance(levels, AffineMap):
        return levels
    if levels < 2:
        raise InputError(f"bits per dimension need at least 2 levels, got {levels}; 256 for 8-bit pictures")
    return AffineMap.from_range(0.0, levels - 1.0)

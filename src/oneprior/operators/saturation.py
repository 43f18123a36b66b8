"""A sensor with a limited range: what is too dark or too bright is clipped.

    y = min(max(x, low), high)

A clipped pixel says only that x lies beyond the limit, and the likelihood of N(y; A(x), sigma^2) is flat there: the
gradient is 0 because the data say no more, and the prior fills the burnt-out sky. With `soft` > 0 the corners are
rounded as real sensors round them,

    y = low + s log(1 + e^((x - low) / s)) - s log(1 + e^((x - high) / s)),    s = soft (high - low),

which is smooth, increasing, and tends to the clip as soft falls to 0. Overexposed film and HDR merging (Debevec and
Malik 1997) are this instrument behind a gain.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from oneprior.core import InputError
from oneprior.operators.base import Operator
from oneprior.operators.ranges import parse_range
from oneprior.operators.words import Grammar, no_values, number


class Saturation(Operator):
    """Clipping to [low, high], entry by entry, in the user's units.

    Args:
        in_shape: shape of one x.
        low: the darkest value that is recorded.
        high: the brightest.
        soft: width of the rounded corners, as a share of high - low; 0 clips sharply.

    Raises:
        InputError: where low < high does not hold, or soft < 0.
    """

    def __init__(self, in_shape: torch.Size | tuple[int, ...], low: float, high: float, soft: float = 0.0) -> None:
        super().__init__()
        if not low < high or not 0 <= soft < 1:
            raise InputError(f"saturation needs LOW < HIGH and a soft in [0, 1); got {low:g}..{high:g}, soft {soft:g}")
        if soft and not (math.isfinite(low) and math.isfinite(high)):
            raise InputError(
                f"soft corners are a share of high - low, which {low:g}..{high:g} has not: soft=0, or limits"
            )
        self.in_shape = self.out_shape = torch.Size(in_shape)
        self.low, self.high, self.soft = low, high, soft
        self.spec = f"saturation:{low!r}..{high!r}" + (f":soft={soft!r}" if soft else "")

    def apply(self, x: Tensor) -> Tensor:
        if not self.soft:
            return x.clamp(self.low, self.high)
        s = self.soft * (self.high - self.low)
        return self.low + s * (F.softplus((x - self.low) / s) - F.softplus((x - self.high) / s))


def _parse(values: list[str], options: dict[str, str], in_shape: torch.Size) -> Operator:
    no_values("saturation", values, 1)
    span = parse_range(options)
    low, dots, high = (values[0] if values else "").partition("..")
    if not dots:
        raise InputError("saturation is written LOW..HIGH, in units or shares: saturation:0..200, saturation:5%..80%")
    soft = number("soft", options.get("soft", "0"))
    return Saturation(in_shape, span.level(low), span.level(high), soft)


WORDS = Grammar(
    "saturation",
    ("saturation:LOW..HIGH:soft=SHARE:range=BLACK..WHITE",),
    "Clips values below LOW and above HIGH, in units, or in per cent of the range (0..255 by default).",
    ("saturation:20..200", "saturation:5%..80%", "saturation:0%..70%:range=-1..1:soft=0.02"),
    _parse,
    ("soft", "range"),
)

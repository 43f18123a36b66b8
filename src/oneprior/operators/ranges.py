"""Value ranges in the words of an operator: "0..255", and levels as numbers or as shares of a range, "5%"."""

from __future__ import annotations

import math
from dataclasses import dataclass

from oneprior.core import InputError


@dataclass(frozen=True)
class ValueRange:
    """The values of black and white, in the user's units, that a nonlinear instrument is told.

    A linear instrument needs no such thing; a camera that saturates, or a file format of whole grey levels, does.

    Args:
        low: black.
        high: white; high > low.
    """

    low: float = 0.0
    high: float = 255.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.high > self.low):
            raise InputError(
                f"a value range is LOW..HIGH with LOW < HIGH, as in 0..255; got {self.low:g}..{self.high:g}"
            )

    @property
    def size(self) -> float:
        """high - low."""
        return self.high - self.low

    @property
    def words(self) -> str:
        """ "range=0..255"."""
        return f"range={self.low!r}..{self.high!r}".replace(".0..", "..").removesuffix(".0")

    def level(self, text: str) -> float:
        """A level in the user's units: "200" as it is, "80%" from black to white.

        Raises:
            InputError: for anything else.
        """
        share = text.endswith("%")
        try:
            value = float(text.removesuffix("%"))
        except ValueError:
            raise InputError(
                f"a level is a number or a share of the value range, such as 200 or 80%; got {text!r}"
            ) from None
        return self.low + self.size * value / 100 if share else value


def parse_range(options: dict[str, str]) -> ValueRange:
    """The option `range=LOW..HIGH`; 0..255 where it is not given.

    Raises:
        InputError: for anything but two numbers in order.
    """
    return parse_interval(options.get("range", "0..255"), "range")


def parse_interval(text: str, name: str) -> ValueRange:
    """LOW..HIGH, two numbers in order.

    Raises:
        InputError: for anything else.
    """
    low, _, high = text.partition("..")
    try:
        return ValueRange(float(low), float(high))
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{name} is written LOW..HIGH, as in 0..255; got {text!r}") from None

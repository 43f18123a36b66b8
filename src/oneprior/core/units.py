"""From the user's units to the package's range [-1, 1] and back.

Every run keeps the map of its data, so that a 16-bit film comes back as a 16-bit film. The map is affine: a linear
measurement with Gaussian noise stays linear with Gaussian noise when it is pulled through it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Self

from torch import Tensor

from oneprior.core.errors import InputError


@dataclass(frozen=True)
class AffineMap:
    """units = scale * x + offset, with x in [-1, 1].

    Args:
        scale: units per unit of x; positive.
        offset: the value, in the user's units, of x = 0.
        unit: the name of the unit ("grey level", "Hounsfield unit"), or empty.
    """

    scale: float = 1.0
    offset: float = 0.0
    unit: str = ""

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise InputError(f"the value range is empty or reversed (scale {self.scale}); give low < high")

    @classmethod
    def from_range(cls, low: float, high: float, unit: str = "") -> Self:
        """The map that takes [low, high] to [-1, 1]."""
        if not high > low:
            raise InputError(f"value range {low} .. {high} is empty; give low < high")
        return cls((high - low) / 2, (high + low) / 2, unit)

    @property
    def range(self) -> tuple[float, float]:
        """The values of x = -1 and x = 1."""
        return self.offset - self.scale, self.offset + self.scale

    def to_units(self, x: Tensor) -> Tensor:
        """x in [-1, 1] -> the user's units; any shape."""
        return x * self.scale + self.offset

    def to_model(self, value: Tensor) -> Tensor:
        """The user's units -> x in [-1, 1]; any shape."""
        return (value - self.offset) / self.scale

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Self:
        return cls(**state)

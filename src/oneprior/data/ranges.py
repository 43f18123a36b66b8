"""Value ranges: which numbers in the user's units become -1 and 1.

The rule, in this order:

1. `value_range=(low, high)`, where the user gives it; values outside are cut off.
2. The range that the files declare (DICOM's bits stored, when fewer than 16).
3. bool: 0 .. 1. uint8: 0 .. 255, whatever the set holds, so that the map does not depend on the set.
4. Wider unsigned integers: 0 .. 2^k - 1 with the smallest k >= 8 that holds the largest value of the set. A 16-bit
   film keeps 0 .. 65535; a 12-bit one stored in 16 bits gets 0 .. 4095, where the type's full range would squeeze it
   into a sixteenth of [-1, 1].
5. Signed integers and floats: the smallest and largest value of the set, as recorded when it was opened.
"""

from __future__ import annotations

import math

import numpy as np

from oneprior.core import AffineMap, InputError


def needs_survey(dtype: np.dtype) -> bool:
    """Whether the range of this type depends on the values."""
    return dtype.kind != "b" and dtype != np.uint8


def map_for(
    dtype: np.dtype,
    low: float,
    high: float,
    *,
    declared: tuple[float, float] | None = None,
    given: tuple[float, float] | None = None,
    unit: str = "",
    what: str = "the set",
) -> AffineMap:
    """The map between units and [-1, 1] by the rule above.

    Args:
        dtype: the stored type.
        low, high: smallest and largest value of the set (not used for bool and uint8).
        declared: the range that the files declare.
        given: the user's `value_range`.
        unit: the name of the unit.
        what: named in the error where all values are equal.
    """
    if given is not None:
        return AffineMap.from_range(float(given[0]), float(given[1]), unit)
    if declared is not None:
        return AffineMap.from_range(*declared, unit)
    if dtype.kind == "b":
        return AffineMap.from_range(0, 1, unit)
    if dtype == np.uint8:
        return AffineMap.from_range(0, 255, unit or "grey level")
    if dtype.kind == "u":
        bits = max(8, math.ceil(math.log2(high + 1))) if high > 0 else 8
        return AffineMap.from_range(0, 2.0**bits - 1, unit or "grey level")
    if not high > low:
        raise InputError(
            f"{what}: all values equal {low:g}, so there is no range to learn; give value_range=(low, high) "
            "(--value-range LOW HIGH)"
        )
    return AffineMap.from_range(low, high, unit)

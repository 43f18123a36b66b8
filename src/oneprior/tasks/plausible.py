"""What is said of a measurement's numbers before the work, where they can hardly be meant as they stand.

Two slips are common, and neither shows in the result, which is a posterior of something else: a picture of 0 .. 255
read in the range 0 .. 1 or the other way round, and a noise level in other units than the measurement's (0.05 for 5 %).
Whole numbers were rounded to them, which alone has a deviation of 1 / sqrt(12) = 0.29; who says less believes the last
digit. A measurement of which no value is half as large as its noise was not made with that noise.
"""

from __future__ import annotations

import math
import warnings

import torch

from oneprior.likelihoods.noise import GaussianNoise
from oneprior.operators.base import LinearOperator
from oneprior.tasks.measurement import Measurement

ROUNDING = 1 / math.sqrt(12)  # the deviation of rounding to whole numbers
WHOLE = 10.0  # from this width on, a range is one of levels; 0 .. 1 in whole numbers is yes or no


def doubt_values(measurement: Measurement) -> None:
    """Warn where values or noise level of a measurement do not go with the range that it is read by."""
    for said in doubts_of_values(measurement):
        warnings.warn(said, stacklevel=3)


def doubts_of_values(measurement: Measurement) -> list[str]:
    """A sentence for each of what cannot be meant as it stands: its values, its noise level."""
    return [said for said in (_doubt_range(measurement), _doubt_level(measurement)) if said]


def _doubt_level(measurement: Measurement) -> str:
    """What to say where the noise is said to be less than rounding, or more than all values; 0 is a constraint."""
    if not isinstance(measurement.noise, GaussianNoise):
        return ""
    sigma = torch.as_tensor(measurement.noise.sigma, dtype=torch.float64)
    low, high = measurement.units.range
    width, y = high - low, measurement.y
    top = float(y.abs().max())
    if bool((sigma > 2 * top).all()) and top > 0:  # noise itself would reach further
        said = f"is more than any value of the measurement, {top:.3g} at most, whose range is {low:g} .. {high:g}"
    elif (
        not y.is_complex()
        and width >= WHOLE
        and bool(((sigma > 0) & (sigma < ROUNDING)).all())
        and bool((y == y.round()).all())
        and top > 0
    ):
        said = (
            f"is less than the rounding of the measurement to whole numbers, {ROUNDING:.2f}: it is in their units, of "
            f"which {low:g} .. {high:g} is the range"
        )
    else:
        return ""
    level = float(sigma.flatten()[0])
    return f"the noise, {level:.3g}, {said}; a share of the range is written 5%"


def _doubt_range(measurement: Measurement) -> str:
    """What to say where the values of a measurement hardly touch the range that they are read by."""
    operator = measurement.operator
    if not isinstance(operator, LinearOperator):
        return ""
    values = measurement.y if operator.keeps_pixels else measurement.picture()
    seen = measurement.units.to_model(values.double()).flatten()
    some = seen[:: 1 + len(seen) // (1 << 20)]
    low, middle, high = some.quantile(some.new_tensor([0.005, 0.5, 0.995])).tolist()
    if high < -0.8 or low > 0.8 or high - low < 0.02 or abs(middle) > 3:
        a, b = (float(measurement.units.to_units(torch.tensor(v))) for v in (low, high))
        return (
            f"the measurement's values, {a:.4g} .. {b:.4g}, hardly touch the range they are read by, "
            f"{measurement.units.range[0]:g} .. {measurement.units.range[1]:g}: say which values are black and white "
            "(units=, --value-range), or take a prior of such pictures"
        )
    return ""

"""A measurement as inference sees it: beside the prior, by the instrument that stands for its own, as it was found."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch

from oneprior.likelihoods.noise import GaussianNoise
from oneprior.operators.uncertain import UncertainOperator
from oneprior.tasks.measurement import Measurement
from oneprior.training.run import Run


def limits(run: Run, measurement: Measurement) -> tuple[float, float] | None:
    """The range that no event leaves, in the user's units: that of data of whole numbers, such as 0 .. 255. Draws are
    brought into it, as the files are that hold them."""
    whole = run.geometry.dtype.startswith(("uint", "bool"))
    stated = run.geometry.format not in ("nifti", "dicom")
    return measurement.units.range if whole and stated else None


def placed(measurement: Measurement, device: torch.device) -> Measurement:
    """The measurement in single precision beside the prior; the user's own operator stays where it is."""
    y = measurement.y.to(device, torch.complex64 if measurement.y.is_complex() else torch.float32)
    operator = measurement.operator
    if device.type != "cpu":
        operator = deepcopy(operator).to(device)
    return replace(measurement, y=y, operator=operator)


def smoothed(measurement: Measurement) -> Measurement:
    """The measurement by the linear stand-in of an instrument that rounds (`Operator.surrogate`), or itself."""
    noise = measurement.noise
    if not isinstance(noise, GaussianNoise):
        return measurement
    level = torch.as_tensor(noise.noise_level)
    smooth = measurement.operator.surrogate(float(level.max()))
    if smooth is None or (level.dim() and bool((level != level.flatten()[0]).any())):
        return measurement
    smooth = smooth.to(measurement.y.device)
    return replace(measurement, y=smooth(measurement.y), operator=smooth, noise=GaussianNoise(1.0))


def clipped(measurement: Measurement) -> list[bool]:
    """For each row whether more than a twentieth of its numbers lie at the very ends of the range of values."""
    if measurement.y.is_complex():
        return [False] * len(measurement)
    low, high = measurement.units.range
    y = measurement.y.flatten(1)
    return (((y == low) | (y == high)).double().mean(1) > 0.05).tolist()


def as_found(measurement: Measurement, found: Mapping[str, Any], draw: int | None = None) -> Measurement:
    """The measurement as made by the instrument that was found, where some of its numbers were unknown: that of one
    draw, which belongs to the event of that draw, or their mean."""
    operator = measurement.operator
    if isinstance(operator, UncertainOperator) and "theta" in found:
        theta = found["theta"]
        return replace(measurement, operator=operator.at(theta.mean(0) if draw is None else theta[draw]))
    return measurement

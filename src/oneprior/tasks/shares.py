"""Rows of a measurement that are worked on together: how they are shared out, and what of a condition is theirs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from oneprior.core import InputError
from oneprior.priors.base import Prior
from oneprior.priors.pushforward import Tilted
from oneprior.tasks.measurement import Measurement
from oneprior.training.run import RESIDUAL, Run


def shares(prior: Prior | Tilted | Run, measurement: Measurement, batch: int | None, residual: bool) -> list[Tensor]:
    """The numbers of the rows that are worked on together, `batch` at most.

    A run's residual is integrated out (`Residue.serves`), and an instrument that rounds replaced (`smoothed`), for one
    noise level at a time: a row's law does not depend on the levels of the rows beside it. (Conditions that are bound
    to a given prior keep all rows together.)

    Raises:
        InputError: where there are no rows, or a batch of none.
    """
    if not len(measurement):
        raise InputError("there is nothing to restore: the measurement has no rows")
    if batch is not None and batch < 1:
        raise InputError(f"batch is the number of rows worked on at once, at least 1; got {batch}")
    level, groups = measurement.noise.noise_level, [torch.arange(len(measurement))]
    if isinstance(prior, Run) and isinstance(level, Tensor) and level.dim() == 1:
        own = residual and (prior.path / RESIDUAL).exists()
        if own or measurement.operator.surrogate(float(level.max())) is not None:
            groups = [(level.cpu() == one).nonzero().flatten() for one in level.cpu().unique()]
    return [part for group in groups for part in group.split(batch or len(measurement))]


def part_of(condition: Mapping[str, Any] | None, part: Tensor, n: int) -> Mapping[str, Any] | None:
    """The rows of a condition that belong to a share; what is one for all stays."""
    if condition is None:
        return None
    return {k: v[part] if isinstance(v, Tensor) and v.dim() and len(v) == n else v for k, v in condition.items()}

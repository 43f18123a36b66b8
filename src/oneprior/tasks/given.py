"""What a mask leaves of a sequence is known: a given voice comes back note by note.

An event of tokens is one-hot, and a prior's decoder only nearly so. Where a mask leaves all channels of a token, and
the noise is small against the distance of two tokens, the posterior holds one token for certain; it is put in place of
what the decoder says there, in every draw.
"""

from __future__ import annotations

import torch
from torch import Tensor

from oneprior.data.one_hot import likeliest, one_hot
from oneprior.likelihoods.noise import GaussianNoise
from oneprior.operators.mask import Mask
from oneprior.tasks.measurement import Measurement

_SURE = 0.3
"""Noise in [-1, 1] below which a token is mistaken for another in less than one of 10^5 places: Q(sqrt 2 / 0.3)."""


def as_given(measurement: Measurement, draws: Tensor, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Restorations with the tokens that were measured; others, and other events, as they are.

    Args:
        measurement: what was seen.
        draws: (S, n, *event_shape) in its units.
        mean: (n, *event_shape).
        std: (n, *event_shape).
    """
    geometry, operator, noise = measurement.geometry, measurement.operator, measurement.noise
    if not (geometry.tokens and isinstance(operator, Mask) and isinstance(noise, GaussianNoise)):
        return draws, mean, std
    if float(torch.as_tensor(measurement.noise_level).max()) > _SURE * measurement.units.scale:
        return draws, mean, std
    kept = operator.keep.unflatten(0, (geometry.groups, -1))
    where = kept.all(1, keepdim=True).expand_as(kept).flatten(0, 1)
    seen = operator.adjoint(measurement.y)
    tokens = one_hot(likeliest(seen, geometry.groups), kept.shape[1])
    known = measurement.units.to_units(tokens).to(mean)
    return torch.where(where, known, draws), torch.where(where, known, mean), std.masked_fill(where, 0.0)

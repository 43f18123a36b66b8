"""Cartesian undersampling: which phase encodings are measured.

The readout is free, so it is sampled in full. In the plane it is the first spatial axis and lines are chosen along the
last (as in fastMRI); in three dimensions it is the first too, and points are chosen in the plane of the other two. The
centre holds the contrast of a picture and the calibration of its coils, and is measured in full.

- random, variable density: encodings outside the centre are drawn without replacement with probability weights
  (1 - r)^2, r the distance from the centre, 1 at the edge (Lustig, Donoho, Pauly 2007); the number is exact.
- equispaced: every R-th along the last axis, the zero frequency among them, and the centre: what a scanner with
  parallel imaging does (Griswold et al. 2002). The centre comes on top, so the true acceleration is below R.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from oneprior.core import InputError, Rows
from oneprior.operators.fourier import coordinates, middle

Space = torch.Size | tuple[int, ...]


def random_encodings(space: Space, acceleration: float, center: float = 0.08, seed: int = 0) -> Tensor:
    """Variable density; bool, of shape `space`.

    Args:
        space: spatial shape, at least two axes.
        acceleration: R >= 1; round(encodings / R) are measured, the centre included.
        center: share of the encodings, in their middle, that is measured in full.
        seed: of the draw.

    Raises:
        InputError: where the centre alone is more than may be measured.
    """
    phase = _phase_axes(space, acceleration, center)
    keep = _centre(phase, center)
    total = max(1, round(keep.numel() / acceleration))
    if int(keep.sum()) > total:
        less = next(c for c in range(math.floor(100 * center), -1, -1) if int(_centre(phase, c / 100).sum()) <= total)
        slower = math.floor(100 * keep.numel() / int(keep.sum())) / 100
        raise InputError(
            f"the fully sampled centre has {int(keep.sum())} of {keep.numel()} phase encodings, and an acceleration of "
            f"{acceleration:g} measures only {total}: lower center={center:g} to {less / 100:g}, or the acceleration "
            f"to {slower:g}"
        )
    reach = [coordinates(n, dtype=torch.float64).abs() / max(n // 2, 1) for n in phase]
    radius = torch.stack(torch.meshgrid(*reach, indexing="ij")).square().sum(0).sqrt().clamp_max(1)
    weight = (1 - radius).square() + 1e-3
    chance = Rows(1, seed=seed).stream("k-space").uniform(keep.numel(), dtype=torch.float64)[0].reshape(keep.shape)
    order = (chance.log() / weight).masked_fill(keep, math.inf)  # the largest are a weighted draw: Efraimidis 2006
    chosen = order.flatten().argsort(descending=True, stable=True)[:total]
    return _whole(torch.zeros(keep.numel(), dtype=torch.bool).index_fill(0, chosen, True).reshape(keep.shape), space)


def equispaced_encodings(space: Space, acceleration: float, center: float = 0.08) -> Tensor:
    """Every R-th encoding along the last axis and the whole centre; bool, of shape `space`."""
    phase = _phase_axes(space, acceleration, center)
    if acceleration != int(acceleration):
        raise InputError(f"equispaced encodings have a whole acceleration, got {acceleration:g}")
    regular = coordinates(phase[-1]) % int(acceleration) == 0
    return _whole(_centre(phase, center) | regular, space)


def _phase_axes(space: Space, acceleration: float, center: float) -> tuple[int, ...]:
    if not 2 <= len(space) <= 3:
        raise InputError(f"k-space masks are made for 2 or 3 spatial axes, and the event has {len(space)}")
    if not 1 <= acceleration < math.inf or not 0 <= center <= 1:
        raise InputError(
            f"k-space masks need an acceleration >= 1 and a centre between 0 and 1; got {acceleration:g}, {center:g}"
        )
    return tuple(space[1:])


def _centre(phase: tuple[int, ...], center: float) -> Tensor:
    """The middle block with `center` of all encodings, at least the zero frequency."""
    keep = torch.zeros(phase, dtype=torch.bool)
    side = center ** (1 / len(phase))
    keep[tuple(middle(n, min(n, max(1, round(side * n)))) for n in phase)] = True
    return keep


def _whole(keep: Tensor, space: Space) -> Tensor:
    """Encodings with their whole readout."""
    return keep.expand(tuple(space)).contiguous()

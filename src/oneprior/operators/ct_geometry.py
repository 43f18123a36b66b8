"""Rays of a scanner, and the weights with which they read pixels.

The picture lies round the origin, pixels have side 1, x grows to the right and y upwards. A ray is the line

    s = x cos(theta) + y sin(theta),

theta the direction of its normal and s its distance from the origin. Parallel beams: every view has one theta, and its
detectors one s each, spread evenly over the diagonal. Fan beams (equiangular detectors): a source on a circle of
radius D sees the ray at the fan angle gamma under theta = beta + gamma, s = D sin(gamma), beta the angle of the view;
the outermost rays touch the circle round the picture.

Joseph's method (1982, IEEE TMI 1:192): a ray is followed along the axis that it runs along more nearly, one step a row
(or column) of pixels; there it reads the two nearest pixels by linear interpolation, times the length of a step. Beyond
the picture it reads zeros.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from oneprior.core import InputError
from oneprior.operators.sparse import SparseMap
from oneprior.operators.spectral_norm import largest_singular_value


@dataclass(frozen=True)
class Geometry:
    """Where the rays of a planar scan run.

    Args:
        plane: (rows, columns) of the picture.
        views: number of angles.
        first, last: range of the angles in degrees; `last` is not measured.
        detectors: number of rays a view.
        distance: of the source from the centre, in half diagonals of the picture (> 1), for a fan; 0 for parallel rays.
    """

    plane: tuple[int, int]
    views: int
    first: float
    last: float
    detectors: int
    distance: float = 0.0

    def __post_init__(self) -> None:
        if self.views < 1 or self.detectors < 1 or not -math.inf < self.first < self.last < math.inf:
            raise InputError(
                f"CT needs at least one view, one detector and a range of angles; got {self.views} views, "
                f"{self.detectors} detectors, {self.first:g}..{self.last:g} degrees"
            )
        if self.distance and not 1 < self.distance < math.inf:
            raise InputError(
                f"the source of a fan lies outside of the picture: distance > 1 half diagonals, got {self.distance:g}"
            )

    @property
    def fan(self) -> bool:
        """Whether the rays of a view start at one source."""
        return self.distance > 0

    @property
    def radius(self) -> float:
        """Half the diagonal of the picture, in pixels."""
        return 0.5 * math.hypot(*self.plane)

    @property
    def angles(self) -> Tensor:
        """The angle of each view in radians, (views,)."""
        step = (self.last - self.first) / self.views
        return torch.deg2rad(self.first + step * torch.arange(self.views, dtype=torch.float64))

    @property
    def places(self) -> Tensor:
        """The detectors: distances s in pixels, or fan angles gamma in radians; (detectors,), symmetric about 0."""
        centred = torch.arange(self.detectors, dtype=torch.float64) - (self.detectors - 1) / 2
        return centred * self.spacing

    @property
    def spacing(self) -> float:
        """Between two detectors, in pixels or radians."""
        across = self.radius if not self.fan else math.asin(1 / self.distance)
        return 2 * across / max(self.detectors, 1)

    def rays(self) -> tuple[Tensor, Tensor]:
        """theta and s of every ray, (views, detectors) each."""
        angle, place = self.angles[:, None], self.places[None]
        if self.fan:
            return angle + place, (self.distance * self.radius * place.sin()).expand(self.views, -1)
        return angle.expand(-1, self.detectors), place.expand(self.views, -1)


def default_detectors(plane: tuple[int, int]) -> int:
    """As many detectors as the diagonal has pixels."""
    return math.ceil(math.hypot(*plane))


@lru_cache(maxsize=2)
def projector(geometry: Geometry) -> tuple[SparseMap, float]:
    """The matrix of all rays, (views * detectors, pixels), and its norm; kept for the last two geometries."""
    places, weights, counts = [], [], []
    for theta, s in zip(*geometry.rays(), strict=True):
        place, weight, inside = _weights(theta, s, geometry.plane)
        counts.append(inside.sum(1))
        places.append(place[inside].int())
        weights.append(weight[inside].float())
    ray = torch.repeat_interleave(torch.arange(geometry.views * geometry.detectors).int(), torch.cat(counts))
    shape = (geometry.views * geometry.detectors, math.prod(geometry.plane))
    matrix = SparseMap(ray, torch.cat(places), torch.cat(weights), shape)
    start = torch.ones(1, shape[1])
    norm = largest_singular_value(lambda v: matrix.adjoint(matrix.apply_to(v)), start, steps=12)
    return matrix, norm


def _weights(theta: Tensor, s: Tensor, plane: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels, weights and whether they lie in the picture, for the rays (r,) of a view; (r, 2 * steps) each."""
    rows, columns = plane
    cos, sin = theta.cos()[:, None], theta.sin()[:, None]
    upright = cos.abs() >= sin.abs()  # the ray runs up rather than across: one step a row
    steps = torch.arange(max(plane))
    row_y = (rows - 1) / 2 - steps  # height of a row's centre
    column_x = steps - (columns - 1) / 2
    far = torch.where(upright, cos, sin)
    across = torch.where(upright, (s[:, None] - row_y * sin) / far, (s[:, None] - column_x * cos) / far)
    place = torch.where(upright, across + (columns - 1) / 2, (rows - 1) / 2 - across)
    lower = place.floor()
    share = place - lower
    length = 1 / far.abs()
    both = torch.stack([lower, lower + 1], dim=2).long()
    weight = torch.stack([(1 - share) * length, share * length], dim=2)
    along = torch.where(upright, torch.tensor(rows), torch.tensor(columns))
    sideways = torch.where(upright, torch.tensor(columns), torch.tensor(rows))[..., None]
    inside = (both >= 0) & (both < sideways) & (steps < along)[..., None] & (weight > 0)
    step = steps[None, :, None]
    index = torch.where(upright[..., None], step * columns + both, both * columns + step)
    return index.flatten(1), weight.flatten(1), inside.flatten(1)


def backprojection_places(geometry: Geometry, angle: Tensor) -> tuple[Tensor, Tensor]:
    """Which detector sees each pixel in a view, as a number that need not be whole, and the squared distance of the
    pixel from the source in units of D (1 for parallel rays); (rows, columns) each."""
    rows, columns = geometry.plane
    y = ((rows - 1) / 2 - torch.arange(rows, dtype=torch.float64))[:, None]
    x = (torch.arange(columns, dtype=torch.float64) - (columns - 1) / 2)[None]
    s = x * angle.cos() + y * angle.sin()
    if not geometry.fan:
        return s / geometry.spacing + (geometry.detectors - 1) / 2, torch.ones_like(s)
    source = geometry.distance * geometry.radius
    depth = source - (y * angle.cos() - x * angle.sin())
    gamma = torch.atan2(s, depth)
    return gamma / geometry.spacing + (geometry.detectors - 1) / 2, (s.square() + depth.square()) / source**2

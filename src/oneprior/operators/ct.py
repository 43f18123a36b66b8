"""Computed tomography: line integrals of a picture, by parallel or fan beams, from few views or a limited range.

    y(view, detector) = scale * sum over the ray of x * length,      log(I0 / I) of a scanner up to the scale

The matrix of all rays is made once (`ct_geometry`), and the adjoint is its transpose, so the two match exactly; the
projector and back-projector of most packages do not, and iterations with them drift. `scale` makes the norm of the
operator 1: y / scale is in units of x times pixels, and a noise level of those is multiplied by it.

Volumes are scanned slice by slice along their first spatial axis, channels apart. The weights are held in single
precision: 360 MB for 180 views of 256 x 256, with the transpose.

`fbp` is filtered back-projection, the baseline of the clinic: the ramp filter of Ramachandran and Lakshminarayanan 1971
in its sampled form, with the weights of equiangular fans (Kak and Slaney 1988, sections 3.3 and 3.4.1).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from oneprior.core import InputError, ShapeError
from oneprior.operators.base import Operator
from oneprior.operators.ct_geometry import Geometry, backprojection_places, default_detectors, projector
from oneprior.operators.ill_conditioned import IllConditioned
from oneprior.operators.words import Grammar, near, no_values, number, spelled, whole

_VIEWS = 30


class CT(IllConditioned):
    """Line integrals, (channels, [slices,] views, detectors).

    Args:
        in_shape: (channels, rows, columns) or (channels, slices, rows, columns).
        views: number of angles, spread evenly over the range; the end of the range is left out.
        angles: the range in degrees; by default 0..180 for parallel beams and 0..360 for a fan.
        detectors: rays of a view, spread over the diagonal; by default as many as it has pixels.
        distance: of the source from the centre in half diagonals, above 1, for a fan; 0 for parallel beams.

    Attributes:
        scale: what line integrals in pixels are multiplied by, so that the norm is 1.

    Raises:
        InputError: for an event without 2 or 3 spatial axes, or an impossible scanner.
    """

    def __init__(
        self,
        in_shape: torch.Size | tuple[int, ...],
        views: int = _VIEWS,
        *,
        angles: tuple[float, float] | None = None,
        detectors: int | None = None,
        distance: float = 0.0,
    ) -> None:
        super().__init__()
        self.in_shape = torch.Size(in_shape)
        if len(self.in_shape) not in (3, 4):
            raise InputError(f"CT scans pictures or volumes (2 or 3 spatial axes); got {tuple(self.in_shape)}")
        plane = (self.in_shape[-2], self.in_shape[-1])
        first, last = angles or (0.0, 360.0 if distance else 180.0)
        count = default_detectors(plane) if detectors is None else detectors
        self.geometry = Geometry(plane, views, float(first), float(last), count, float(distance))
        self.out_shape = torch.Size([*self.in_shape[:-2], views, count])
        matrix, norm = projector(self.geometry)
        self.matrix, self.scale = matrix.shared(), 1 / norm
        kind = "fan" if distance else "parallel"
        self.spec = f"ct:{kind}:{views}:angles={spelled(first)}..{spelled(last)}:detectors={count}"
        self.spec += f":distance={spelled(distance)}" if distance else ""

    def apply(self, x: Tensor) -> Tensor:
        y = self.matrix.apply_to(x.reshape(-1, self.matrix.shape[1]))
        return self.scale * y.reshape(-1, *self.out_shape)

    def adjoint(self, y: Tensor) -> Tensor:
        x = self.matrix.adjoint(y.reshape(-1, self.matrix.shape[0]))
        return self.scale * x.reshape(-1, *self.in_shape)

    def fbp(self, y: Tensor) -> Tensor:
        """Filtered back-projection; (n, *out_shape) -> (n, *in_shape), an approximate inverse where views are many."""
        if y.shape[1:] != self.out_shape:
            raise ShapeError("sinogram", tuple(y.shape), ("n", *self.out_shape))
        geometry = self.geometry
        views, detectors = self.out_shape[-2:]
        p = y.reshape(-1, views, detectors) / self.scale
        places = geometry.places.to(p)
        filtered = (p * places.cos() if geometry.fan else p) @ self._ramp(places)
        turned = math.radians(geometry.last - geometry.first)
        weight = turned / views * math.pi / max(turned, math.pi)
        if geometry.fan:
            weight /= geometry.distance * geometry.radius
        x = p.new_zeros(len(p), geometry.plane[0] * geometry.plane[1])
        for view, angle in enumerate(geometry.angles):
            place, distance = (v.flatten().to(p) for v in backprojection_places(geometry, angle))
            seen = (place > -1) & (place < detectors)
            lower = place.floor()
            share = place - lower
            left, right = (torch.nn.functional.pad(filtered[:, view], (1, 1))[:, at] for at in self._beside(lower))
            x += torch.where(seen, ((1 - share) * left + share * right) / distance, 0.0)
        return weight * x.reshape(-1, *self.in_shape)

    def _beside(self, lower: Tensor) -> tuple[Tensor, Tensor]:
        """The two detectors beside a place, in a view that has a zero added at both ends."""
        last = self.geometry.detectors + 1
        return (lower.long() + 1).clamp(0, last), (lower.long() + 2).clamp(0, last)

    def _ramp(self, places: Tensor) -> Tensor:
        """The ramp filter as a symmetric matrix, (detectors, detectors)."""
        step = self.geometry.spacing
        apart = torch.arange(len(places), device=places.device)
        apart = apart[:, None] - apart
        odd = apart % 2 == 1
        gap = torch.where(odd, apart * step, 1.0).to(places.dtype)
        reach = gap.sin() if self.geometry.fan else gap
        ramp = torch.where(odd, -1 / (math.pi * reach).square(), 0.0)
        return step * (ramp + torch.eye(len(places)).to(ramp) / (4 * step**2))


def _parse(values: list[str], options: dict[str, str], in_shape: torch.Size) -> Operator:
    kinds = ("parallel", "fan", "limited")
    kind = values[0] if values else "parallel"
    if kind not in kinds:
        raise InputError(f"ct has no form {kind!r}{near(kind, kinds)}")
    no_values(f"ct:{kind}", values, 2)
    if kind == "limited":
        if "angles" in options or len(values) < 2:
            raise InputError("ct:limited takes the range of its views in degrees, as in ct:limited:120:views=60")
        angles: tuple[float, float] | None = (0.0, number("the range of angles", values[1]))
        views = whole("views", options.get("views", f"{_VIEWS}"))
    else:
        if "views" in options and len(values) > 1:
            raise InputError(f"ct:{kind} got its views twice: {values[1]!r} and views={options['views']}")
        views = whole("views", options.get("views", values[1] if len(values) > 1 else f"{_VIEWS}"))
        angles = _range(options["angles"]) if "angles" in options else None
    if kind != "fan" and "distance" in options:
        raise InputError(f"ct:{kind} has parallel rays and no distance; ct:fan:{views} has")
    distance = number("distance", options.get("distance", "2")) if kind == "fan" else 0.0
    if kind == "fan" and not distance:
        raise InputError("the source of a fan is more than 1 half diagonal away, got distance=0; ct:parallel has none")
    return CT(
        in_shape,
        views,
        angles=angles,
        detectors=whole("detectors", options["detectors"]) if "detectors" in options else None,
        distance=distance,
    )


def _range(text: str) -> tuple[float, float]:
    first, dots, last = text.partition("..")
    if not dots:
        raise InputError(f"angles are a range in degrees, as in angles=0..120; got {text!r}")
    return number("the first angle", first), number("the last angle", last)


WORDS = Grammar(
    "ct",
    ("ct:parallel:VIEWS", "ct:fan:VIEWS:distance=D", "ct:limited:DEGREES:views=V"),
    "Line integrals; angles=A..B and detectors=N; the source of a fan is D half diagonals away.",
    ("ct:parallel:30", "ct:fan:60:distance=2", "ct:limited:120:views=60"),
    _parse,
    ("views", "angles", "detectors", "distance"),
)

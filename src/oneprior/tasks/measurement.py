"""A measurement and what must be known to undo it, as one file.

The file is a NumPy archive: `y`, the noise level, and a JSON text with the operator's words, the value range and the
geometry of the picture. Nothing is pickled. It is written under another name and renamed into place, so that a reader
never meets half a file.

Noise is told in the units of the file ("0.05") or as a share of its value range ("5%").
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from oneprior.core import AffineMap, Geometry, InputError, Rows, ShapeError, replacing
from oneprior.likelihoods.gaussian import GaussianLikelihood
from oneprior.operators.base import LinearOperator, Operator
from oneprior.operators.grammar import parse_operator

_FORMAT = 1


def parse_noise(text: str | float, units: AffineMap) -> float:
    """The noise's standard deviation in the user's units.

    Args:
        text: a number in the units of the measurement, or "5%" of its value range.
        units: says what the range is.

    Raises:
        InputError: for anything else, or a negative number.
    """
    share = isinstance(text, str) and text.strip().endswith("%")
    try:
        number = float(text.strip().rstrip("%")) if isinstance(text, str) else float(text)
    except ValueError:
        raise InputError(f"noise is a number or a percentage, such as 0.05 or 5%; got {text!r}") from None
    if not 0 <= number < float("inf"):
        raise InputError(f"noise is a standard deviation >= 0, got {text!r}")
    low, high = units.range
    return number / 100 * (high - low) if share else number


@dataclass(frozen=True)
class Measurement:
    """n measurements by one instrument, in the user's units.

    Args:
        y: (n, *operator.out_shape).
        operator: the instrument.
        noise_level: standard deviation of the noise in the units of y, one number or one a row (n,).
        units: the range of values of x, and with it the meaning of the numbers of y.
        geometry: how to write a restored x.
        truth: what was measured, where it is known, (n, *event_shape), in the user's units.
    """

    y: Tensor
    operator: Operator
    noise_level: Tensor | float
    units: AffineMap = field(default_factory=AffineMap)
    geometry: Geometry = field(default_factory=Geometry)
    truth: Tensor | None = None

    def __post_init__(self) -> None:
        if self.y.shape[1:] != self.operator.out_shape:
            raise ShapeError("measurement y", tuple(self.y.shape), ("n", *self.operator.out_shape))

    def __len__(self) -> int:
        return self.y.shape[0]

    @property
    def event_shape(self) -> torch.Size:
        """Shape of one x."""
        return self.operator.in_shape

    @property
    def likelihood(self) -> GaussianLikelihood:
        """log p(y | x) of x in [-1, 1]."""
        return GaussianLikelihood(self.y, self.operator, self.noise_level).pullback(self.units)

    def told(
        self, operator: str | list[str] | Operator | None = None, noise: str | float | Tensor | None = None
    ) -> Measurement:
        """The same numbers, said to be made by another operator or with another noise level."""
        if operator is None and noise is None:
            return self
        words = self.operator if operator is None else operator
        level = self.noise_level if noise is None else noise
        again = measured(self.y, words, level, self.event_shape, self.units, self.geometry)
        return replace(again, truth=self.truth)

    def take(self, index: Tensor | slice) -> Measurement:
        """Some of the rows."""
        level = self.noise_level
        if isinstance(level, Tensor) and level.dim():
            level = level[index]
        truth = None if self.truth is None else self.truth[index]
        return replace(self, y=self.y[index], noise_level=level, truth=truth)

    def picture(self) -> Tensor:
        """Something to look at, in the user's units: y itself where it has the form of a picture, else `baseline`."""
        if len(self.operator.out_shape) == len(self.operator.in_shape) and not self.y.is_complex():
            return self.y
        return self.baseline()

    def baseline(self) -> Tensor:
        """A^+ y, the restoration that knows no prior; the middle of the range where nothing is measured.

        Raises:
            InputError: for a nonlinear operator.
        """
        if not isinstance(self.operator, LinearOperator):
            raise InputError(f"{type(self.operator).__name__} is not linear and has no pseudo-inverse")
        middle = torch.full((1, *self.event_shape), self.units.offset).to(self.y.real)
        return middle + self.operator.pinv(self.y - self.operator(middle))

    def save(self, path: str | Path) -> Path:
        """Write the file; the suffix .npz is added where it is missing.

        Raises:
            InputError: for an operator that has no words.
        """
        path = Path(path).expanduser()
        path = path if path.suffix == ".npz" else path.with_name(path.name + ".npz")
        if not self.operator.spec:
            raise InputError(f"{type(self.operator).__name__} has no words, and the file could not name it")
        about = {
            "oneprior": "measurement",
            "format": _FORMAT,
            "operator": self.operator.spec.split(" "),
            "event_shape": list(self.event_shape),
            "units": self.units.to_dict(),
            "geometry": self.geometry.to_dict(),
        }
        arrays: dict[str, Any] = {
            "y": self.y.numpy(force=True),
            "noise_level": torch.as_tensor(self.noise_level, dtype=torch.float64).numpy(force=True),
            "about": np.array(json.dumps(about)),
        }
        if self.truth is not None:
            arrays["truth"] = self.truth.numpy(force=True)
        with replacing(path, durable=True) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)
        return path

    @classmethod
    def load(cls, path: str | Path) -> Measurement:
        """Read a file that `save` wrote.

        Raises:
            InputError: where it is missing, damaged, or something else.
        """
        path = Path(path).expanduser()
        if not path.is_file():
            raise InputError(f"measurement {str(path)!r} does not exist")
        try:
            with np.load(path, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            about = json.loads(str(arrays["about"]))
            if about["oneprior"] != "measurement" or about["format"] > _FORMAT:
                raise InputError(
                    f"{path} has format {about['format']} and this version reads {_FORMAT}: update oneprior"
                )
            level = torch.from_numpy(arrays["noise_level"])
            return cls(
                torch.from_numpy(arrays["y"]),
                parse_operator(about["operator"], tuple(about["event_shape"])),
                level if level.dim() else float(level),
                AffineMap.from_dict(about["units"]),
                Geometry.from_dict(about["geometry"]),
                torch.from_numpy(arrays["truth"]) if "truth" in arrays else None,
            )
        except (KeyError, ValueError, OSError, EOFError, TypeError, zipfile.BadZipFile) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"{path} is no measurement written by `oneprior simulate`, or it is damaged: {error}"
            ) from None


def measured(
    y: Tensor,
    operator: str | list[str] | Operator,
    noise: str | float | Tensor,
    event_shape: torch.Size | tuple[int, ...],
    units: AffineMap | None = None,
    geometry: Geometry | None = None,
) -> Measurement:
    """A user's own measurement, brought into form.

    Args:
        y: (n, *out_shape) or one without its row; for a mask also the picture, of which the kept entries are read.
        operator: words or an operator.
        noise: see `parse_noise`, or one level a row (n,).
        event_shape: shape of one x.
        units: value range; [-1, 1] by default.
        geometry: how to write a restored x.

    Raises:
        ShapeError: where y is no output of the operator.
    """
    units = units or AffineMap()
    if not isinstance(operator, Operator):
        operator = parse_operator(operator, event_shape)
    y = y if y.is_complex() or y.is_floating_point() else y.float()
    for shape in (operator.out_shape, operator.in_shape):
        if y.shape == shape:
            y = y[None]
    if y.shape[1:] != operator.out_shape and y.shape[1:] == operator.in_shape and operator.keeps_pixels:
        y = operator(y)
    if y.shape[1:] != operator.out_shape:
        remedy = (
            f"Of an event of {_words(operator.in_shape)} the operator {operator.spec or type(operator).__name__} "
            f"measures {_words(operator.out_shape)} numbers: bring the input to that size (before it is measured: "
            "oneprior simulate --size), or take a prior of its size."
        )
        raise ShapeError("measurement y", tuple(y.shape), ("n", *operator.out_shape), remedy)
    level = noise if isinstance(noise, Tensor) else parse_noise(noise, units)
    return Measurement(y, operator, level, units, geometry or Geometry())


def _words(shape: torch.Size) -> str:
    return " x ".join(map(str, shape))


def simulate(
    x: Tensor,
    operator: str | list[str] | Operator,
    noise: str | float | Tensor,
    rows: Rows,
    *,
    units: AffineMap | None = None,
    geometry: Geometry | None = None,
) -> Measurement:
    """Measure known events: y = A x + noise in the user's units, and the truth kept beside it.

    Args:
        x: events in [-1, 1], (n, *event_shape).
        operator: words or an operator.
        noise: see `parse_noise`, or one level a row (n,).
        rows: of the noise, one row an event.
        units: what x in [-1, 1] reads in the user's units.
        geometry: how to write an x.
    """
    units = units or AffineMap()
    if len(rows) != len(x):
        raise ShapeError("rows", (len(rows),), (len(x),), "Give one row for each event.")
    if not isinstance(operator, Operator):
        operator = parse_operator(operator, x.shape[1:])
    truth = units.to_units(x)
    clean = operator(truth)
    level = noise if isinstance(noise, Tensor) else parse_noise(noise, units)
    parts = (2,) if clean.is_complex() else ()
    white = rows.to(x.device).stream("measurement").normal(*operator.out_shape, *parts, dtype=clean.real.dtype)
    white = torch.view_as_complex(white) if clean.is_complex() else white
    scale = level.reshape(-1, *[1] * len(operator.out_shape)).to(clean.real) if isinstance(level, Tensor) else level
    return Measurement(clean + scale * white, operator, level, units, geometry or Geometry(), truth)

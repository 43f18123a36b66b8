"""A measurement and what must be known to undo it, as one file.

The file is a NumPy archive: `y`, the noise level, and a JSON text with the words of the operator and of the noise, the
value range and the geometry of the picture. Nothing is pickled. It is written under another name and renamed into
place, so that a reader never meets half a file. Files of format 1 knew Gaussian noise only and are read as they were.

Noise is told in the units of the file ("0.05"), as a share of its value range ("5%"), or as another law
("poisson:200", "rician:5%", "unknown"); see `likelihoods.noise_words`.
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
from oneprior.likelihoods.measured import MeasuredLikelihood
from oneprior.likelihoods.noise import GaussianNoise, LevelledNoise, Noise, RicianNoise
from oneprior.likelihoods.noise_words import parse_noise, parse_noise_law
from oneprior.operators.base import LinearOperator, Operator
from oneprior.operators.grammar import parse_operator
from oneprior.operators.ill_conditioned import IllConditioned

_FORMAT = 2

__all__ = ["Measurement", "measured", "parse_noise", "simulate"]


@dataclass(frozen=True)
class Measurement:
    """n measurements by one instrument, in the user's units.

    Args:
        y: (n, *operator.out_shape).
        operator: the instrument.
        noise: the law of the noise, in the units of y; a number or one a row (n,) is the level of Gaussian noise.
        units: the range of values of x, and with it the meaning of the numbers of y.
        geometry: how to write a restored x.
        truth: what was measured, where it is known, (n, *event_shape), in the user's units.
    """

    y: Tensor
    operator: Operator
    noise: Noise
    units: AffineMap = field(default_factory=AffineMap)
    geometry: Geometry = field(default_factory=Geometry)
    truth: Tensor | None = None

    def __post_init__(self) -> None:
        if self.y.shape[1:] != self.operator.out_shape:
            raise ShapeError("measurement y", tuple(self.y.shape), ("n", *self.operator.out_shape))
        if not isinstance(self.noise, Noise):
            object.__setattr__(self, "noise", parse_noise_law(self.noise, self.units))

    def __len__(self) -> int:
        return self.y.shape[0]

    @property
    def event_shape(self) -> torch.Size:
        """Shape of one x."""
        return self.operator.in_shape

    @property
    def noise_level(self) -> Tensor | float:
        """sigma in the units of y, one number or one a row (n,).

        Raises:
            InputError: for a law of noise without one, such as Poisson's; ask `noise` and `exact`.
        """
        level = self.noise.noise_level
        if level is None:
            raise InputError(f"the noise {self.noise.spec} has no one level")
        return level

    @property
    def exact(self) -> bool:
        """Whether some row was measured without noise: a constraint, which has no density."""
        return self.noise.exact

    @property
    def likelihood(self) -> MeasuredLikelihood:
        """log p(y | x) of x in [-1, 1]."""
        return self.noise.likelihood(self.y, self.operator).pullback(self.units)

    def misfit(self, x: Tensor) -> Tensor:
        """How far y lies from what x predicts, in standard deviations of the noise, root mean square over a row's
        numbers: about 1 where x is what was measured, whatever the law of the noise.

        For Gaussian and Laplace noise (y - A x) / sigma; for Poisson and Rician noise what has mean 0 and variance 1 by
        their moments; for outliers the normal score of the residual's tail probability, which foreseen outliers do
        not move; for noise of unknown level the residual over its inferred level, 1 by construction up to the largest:
        see `whiteness`.

        Args:
            x: (n, *event_shape), in the user's units.

        Returns:
            (n,).
        """
        return self.noise.likelihood(self.y, self.operator).misfit(x)

    def misfit_p(self, x: Tensor) -> Tensor:
        """The chance of a misfit at least this large where x, in the user's units, is the truth; (n,), float64.

        Chi-square for Gaussian noise, its first two moments elsewhere. A restored x was fitted to y and fits better.
        """
        return self.noise.likelihood(self.y, self.operator).misfit_p(x)

    def whiteness(self, x: Tensor) -> Tensor:
        """How alike neighbouring residuals of y are for x in the user's units, (n,): standard normal where x is the
        truth, many standard deviations from 0 where structure is left, of another image or another operator. It asks
        noise of unknown level too, which `misfit` cannot doubt; few numbers, or scattered ones, tell it little.
        """
        return self.noise.likelihood(self.y, self.operator).whiteness(x)

    def told(
        self, operator: str | list[str] | Operator | None = None, noise: str | float | Tensor | Noise | None = None
    ) -> Measurement:
        """The same numbers, said to be made by another operator or with another noise."""
        if operator is None and noise is None:
            return self
        words = self.operator if operator is None else operator
        law = self.noise if noise is None else noise
        again = measured(self.y, words, law, self.event_shape, self.units, self.geometry)
        return replace(again, truth=self.truth)

    def take(self, index: Tensor | slice) -> Measurement:
        """Some of the rows."""
        truth = None if self.truth is None else self.truth[index]
        operator = self.operator.take(torch.arange(len(self), device=self.y.device)[index])
        return replace(self, y=self.y[index], operator=operator, noise=self.noise.take(index), truth=truth)

    def picture(self) -> Tensor:
        """Something to look at, in the user's units: y itself where it has the form of a picture, else `baseline`."""
        if len(self.operator.out_shape) == len(self.operator.in_shape) and not self.y.is_complex():
            return self.y
        return self.baseline()

    def baseline(self) -> Tensor:
        """A^+ y, the restoration that knows no prior; the middle of the range where nothing is measured.

        Of scanners, whose A^+ y is mostly noise, conjugate gradients stopped at the noise (`IllConditioned.stopped`).

        Raises:
            InputError: for a nonlinear operator.
        """
        if not isinstance(self.operator, LinearOperator):
            raise InputError(f"{type(self.operator).__name__} is not linear and has no pseudo-inverse")
        middle = torch.full((1, *self.event_shape), self.units.offset).to(self.y.real)
        rest, level = self.y - self.operator(middle), self.noise.noise_level
        if isinstance(self.operator, IllConditioned) and level is not None:
            return middle + self.operator.stopped(rest, level)
        return middle + self.operator.pinv(rest)

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
            "noise": self.noise.spec,
            "event_shape": list(self.event_shape),
            "units": self.units.to_dict(),
            "geometry": self.geometry.to_dict(),
        }
        arrays: dict[str, Any] = {"y": self.y.numpy(force=True), "about": np.array(json.dumps(about))}
        if self.noise.noise_level is not None:
            level = torch.as_tensor(self.noise.noise_level, dtype=torch.float64)
            arrays["noise_level"] = level.numpy(force=True)
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
            units = AffineMap.from_dict(about["units"])
            return cls(
                torch.from_numpy(arrays["y"]),
                parse_operator(about["operator"], tuple(about["event_shape"])),
                _noise_of(about, arrays, units),
                units,
                Geometry.from_dict(about["geometry"]),
                torch.from_numpy(arrays["truth"]) if "truth" in arrays else None,
            )
        except (KeyError, ValueError, OSError, EOFError, TypeError, zipfile.BadZipFile) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"{path} is no measurement written by `oneprior simulate`, or it is damaged: {error}"
            ) from None


def _noise_of(about: dict[str, Any], arrays: dict[str, Any], units: AffineMap) -> Noise:
    """The noise that a file tells: its words, and its level where there is one, perhaps one a row."""
    law = parse_noise_law(about["noise"], units) if about["format"] > 1 else GaussianNoise(0.0)
    if not isinstance(law, LevelledNoise):
        return law
    level = torch.from_numpy(arrays["noise_level"])
    return law.with_level(level if level.dim() else float(level))


def measured(
    y: Tensor,
    operator: str | list[str] | Operator,
    noise: str | float | Tensor | Noise,
    event_shape: torch.Size | tuple[int, ...],
    units: AffineMap | None = None,
    geometry: Geometry | None = None,
) -> Measurement:
    """A user's own measurement, brought into form.

    Args:
        y: (n, *out_shape) or one without its row; for a mask also the picture, of which the kept entries are read.
        operator: words or an operator.
        noise: its words, see `likelihoods.noise_words`; its level, or one a row (n,); or the law itself.
        event_shape: shape of one x.
        units: value range; [-1, 1] by default.
        geometry: how to write a restored x.

    Raises:
        ShapeError: where y is no output of the operator.
        InputError: where y is complex and the operator's output is not, or the other way round.
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
            f"Of an event of {_words(operator.in_shape)} the operator {operator.title} "
            f"measures {_words(operator.out_shape)} numbers: bring the input to that size (before it is measured: "
            "oneprior simulate --size), or take a prior of its size."
        )
        raise ShapeError("measurement y", tuple(y.shape), ("n", *operator.out_shape), remedy)
    law = parse_noise_law(noise, units)
    if _is_complex(operator) != y.is_complex() and not isinstance(law, RicianNoise):  # whose y are magnitudes
        made, given = ("real", "complex") if y.is_complex() else ("complex", "real")
        raise InputError(
            f"{operator.title} measures {made} numbers, and these are {given}: give them as "
            "the instrument makes them (k-space as complex samples), or magnitudes with noise rician:SIGMA"
        )
    return Measurement(y, operator, law, units, geometry or Geometry())


def _is_complex(operator: Operator) -> bool:
    """Whether an instrument measures complex numbers, by one trial."""
    place = next(operator.buffers(), torch.empty(0)).device
    with torch.no_grad():
        return operator(torch.zeros(1, *operator.in_shape, device=place)).is_complex()


def _words(shape: torch.Size) -> str:
    return " x ".join(map(str, shape))


def simulate(
    x: Tensor,
    operator: str | list[str] | Operator,
    noise: str | float | Tensor | Noise,
    rows: Rows,
    *,
    units: AffineMap | None = None,
    geometry: Geometry | None = None,
) -> Measurement:
    """Measure known events, with noise, in the user's units, and keep the truth beside the measurement.

    Args:
        x: events in [-1, 1], (n, *event_shape).
        operator: words or an operator.
        noise: its words, see `likelihoods.noise_words`; its level, or one a row (n,); or the law itself.
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
    law = parse_noise_law(noise, units)
    y = law.simulate(clean, operator, rows.to(x.device).stream("measurement"))
    return Measurement(y, operator, law, units, geometry or Geometry(), truth)

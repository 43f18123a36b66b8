"""`oneprior simulate`: a known image, an instrument and noise give a measurement file that `restore` understands."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from oneprior.apps.command import Command, Mistake, Outcome
from oneprior.apps.record import check_place

if TYPE_CHECKING:
    from torch import Tensor

    from oneprior.core import AffineMap, Geometry
    from oneprior.tasks import Measurement


@dataclass(frozen=True, kw_only=True)
class Simulate(Command):
    """Measure an image with an operator and noise; the file keeps the operator, the noise and the truth.

    Args:
        image: a picture, volume or array; a folder or an array of several gives several measurements.
        operator: name:value:key=value, applied left to right; see `oneprior operators`.
        noise: 0.05 in the units of the measurement, 5% of the range of values, or another law: poisson:200, rician:5%,
            laplace:5%, outliers:5%; see `oneprior operators`.
        out: the measurement, y.npz; a picture of it, y.preview.png, is written beside it.
        size: of the image: 32 or 80x96; the file's own where not given.
        fit: how it comes to that size.
        channels: grey or rgb; the file's own where not given.
        value_range: the two values that are black and white; by the file's type where not given.
        key: the array of a .npz.
        dims: spatial axes of the events of an array: 1 for signals, 3 for volumes.
        n: the most images of a folder or array.
    """

    image: tyro.conf.Positional[Path]
    operator: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    noise: str = "0"
    out: Path
    size: str | None = None
    fit: Literal["resize", "cover", "crop", "pad"] = "resize"
    channels: Literal["grey", "rgb"] | None = None
    value_range: tuple[float, float] | None = None
    key: str | None = None
    dims: Literal[1, 2, 3] = 2
    n: int = 64

    def execute(self) -> Outcome:
        from oneprior.core import Rows
        from oneprior.tasks import simulate

        if not self.operator:
            raise Mistake("simulate needs --operator, such as --operator downsample:4 (see oneprior operators)")
        if self.out.suffix not in ("", ".npz"):
            raise Mistake(f"simulate writes a .npz (and a picture of it beside): --out {self.out.with_suffix('.npz')}")
        if self.out.with_suffix(".npz").resolve() == self.image.resolve():
            raise Mistake(f"--out {self.out} is the image itself, which would be lost; give another name")
        check_place(self.out.with_suffix(".npz"), self)
        x, units, geometry = self._events()
        rows = Rows(len(x), seed=self.common.seed)
        measurement = simulate(x, list(self.operator), self.noise, rows, units=units, geometry=geometry)
        out = measurement.save(self.out)
        law = measurement.noise
        figures = {"n": len(x), "noise": law.spec, "operator": measurement.operator.spec}
        if law.noise_level is not None:
            figures["noise_level"] = float(law.noise_level)
        first = "the first " if len(x) == self.n else ""
        said = f"measured {first}{len(x)} of {_shape(x)}: {_shape(measurement.y)} numbers each"
        low, high = units.range
        noise = f"{figures['noise_level']:g}" if law.name == "gaussian" else law.spec
        said += f", noise {noise} of the range {low:g} .. {high:g}; {out}"
        if float(x.max()) < -0.5 and not self.value_range:
            said += f"\nthe image reaches {float(units.to_units(x.max())):g} only: is that its --value-range?"
        return Outcome(out.parent, (out, *look(measurement, out.with_name(f"{out.stem}.preview.png"))), figures, said)

    def _events(self) -> tuple[Tensor, AffineMap, Geometry]:
        """The events in [-1, 1], their units and geometry."""
        import torch

        from oneprior.data import open_dataset, read_events

        options = {"size": self.size, "fit": self.fit, "channels": self.channels, "value_range": self.value_range}
        if self.image.is_dir():
            data = open_dataset(self.image, labels=False, cache=False, key=self.key, **options)
            return data.batch(torch.arange(min(self.n, len(data)))).x, data.units, data.geometry
        events, units, geometry = read_events(self.image, self.dims, key=self.key, most=self.n, **options)
        return units.to_model(events).float(), units, geometry


def look(measurement: Measurement, path: Path) -> list[Path]:
    """A PNG of the measurements, where they look like something; the files that were written."""
    from oneprior.apps import pictures
    from oneprior.core import InputError

    try:
        shown = measurement.units.to_model(measurement.picture().float())
    except InputError:
        return []
    return [pictures.grid(shown[:64]).save(path)]


def _shape(x: Tensor) -> str:
    return " x ".join(map(str, x.shape[1:]))

"""`oneprior restore`: a measurement and a prior give the posterior: mean, deviation, interval, samples, and a page."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from oneprior.apps import screen
from oneprior.apps.command import Command, Mistake, Outcome
from oneprior.apps.record import check_place

if TYPE_CHECKING:
    from oneprior.tasks import Measurement, Restoration
    from oneprior.tasks.methods import Guide
    from oneprior.training import Run


@dataclass(frozen=True, kw_only=True)
class Restore(Command):
    """Restore a measurement with a trained prior.

    Args:
        run: a trained run.
        input: y.npz of `oneprior simulate`, which knows its operator and noise; or a picture, a volume, or an array
            of one or several.
        operator: how the input was made, left to right; see `oneprior operators`.
        noise: standard deviation in the units of the input, or 5% of the range of values.
        out: the folder of the results.
        samples: draws of each; 19, 39 or 99 have exact 90 % intervals.
        aim: how the method is chosen: quickly, for the smallest error, or for honest intervals.
        method: its name instead: closed-form, daps, moment-matching, hmc, elliptical-slice, resampling.
        guide: a trained ppca or mixture of the same data, which lends a denoiser its covariance.
        condition: name=value, such as label=3; may be repeated.
        batch_size: measurements worked on at once.
        key: the array of a .npz that is no measurement file.
        channels: grey or rgb, to turn the input into; its own where not given.
        value_range: the two values of the input that are black and white; where not given the run's, but for whole
            numbers of another type than the run's that type's.
    """

    run: tyro.conf.Positional[Path]
    input: Path
    operator: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    noise: str | None = None
    out: Path
    samples: int = 19
    aim: Literal["fast", "best", "calibrated"] = "best"
    method: str | None = None
    guide: Path | None = None
    condition: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    batch_size: int = 64
    key: str | None = None
    channels: Literal["grey", "rgb"] | None = None
    value_range: tuple[float, float] | None = None

    def execute(self) -> Outcome:
        from oneprior.apps.restored import judge, write_page, write_restoration
        from oneprior.training import load

        if self.samples < 1 or self.batch_size < 1:
            raise Mistake("--samples and --batch-size must be at least 1")
        check_place(self.out, self)
        run = load(self.run, device=self.common.torch_device())
        measurement = self._measurement(run)
        states = self._states(run, measurement)
        result = screen.track(
            states, f"restore with {run.family}", lambda state: state.done, lambda state: state.method
        )
        figures = judge(result)
        written = write_restoration(result, self.out)
        page = write_page(result, figures, self.out / "report.html", f"{run.family}: {self.run}")
        said = f"restored {len(measurement)} by {result.method} in {result.seconds:.1f} s"
        if "psnr_mean" in figures:
            said += f", {figures['psnr_mean']:.2f} dB"
        if figures["misfit"] > 2:
            said += f"\nmisfit {figures['misfit']:.1f}: the draws do not explain the measurement (about 1 would)"
        return Outcome(self.out, (*written, page), figures, said, whole=True)

    def _measurement(self, run: Run) -> Measurement:
        from oneprior.core import AffineMap
        from oneprior.data import read_events
        from oneprior.tasks import Measurement, measured, range_of

        operator = list(self.operator) or None
        stated = AffineMap.from_range(*self.value_range) if self.value_range else None
        if _is_measurement(self.input):
            known = Measurement.load(self.input)
            units = stated or range_of(run, known.geometry, known.units)
            return replace(known, units=units).told(operator, self.noise)
        if operator is None or self.noise is None:
            raise Mistake(
                f"{self.input} does not say how it was made: give --operator and --noise, such as "
                "--operator mask:left --noise 5% (files of `oneprior simulate` know theirs)"
            )
        wanted, *space = run.event_shape
        if self.input.is_dir() and len(space) == 2:
            raise Mistake(f"--input {self.input} is a folder: give a picture, or an array of several")
        y, own, geometry = read_events(self.input, len(space), wanted=wanted, key=self.key, channels=self.channels)
        if (y.shape[1], wanted) == (3, 1) and bool((y == y[:, :1]).all()):
            y = y[:, :1]  # grey, stored as RGB
        if {y.shape[1], wanted} == {1, 3}:
            kinds = {1: "grey", 3: "rgb"}
            raise Mistake(
                f"--input {self.input} is {kinds[y.shape[1]]} and the prior is of {kinds[wanted]} pictures: give "
                f"--channels {kinds[wanted]} to turn it so, or another prior"
            )
        units = stated or range_of(run, geometry, own)
        geometry = replace(geometry, dtype=geometry.dtype or run.geometry.dtype)
        return measured(y.float(), operator, self.noise, run.event_shape, units, geometry)

    def _states(self, run: Run, measurement: Measurement) -> Iterator[Restoration]:
        """The restoration as it grows, batch by batch; the last one is whole."""
        import torch

        from oneprior.apps.conditions import for_rows, read_conditions
        from oneprior.tasks import restore_iter

        told = read_conditions(self.condition, run.conditions)
        return restore_iter(
            run,
            measurement,
            samples=self.samples,
            aim=self.aim,
            method=self.method,
            guide=lent(self.guide, run, self.run),
            condition=for_rows(told, torch.arange(len(measurement))),
            units=measurement.units,
            seed=self.common.seed,
            batch=self.batch_size,
        )


def lent(guide: Path | None, run: Run, name: Path) -> Guide | None:
    """The law that lends its covariance: that of another run of the same data."""
    from oneprior.tasks.methods import Guide
    from oneprior.training import load

    if guide is None:
        return None
    lender = load(guide, device=run.model.device)
    law = lender.prior()
    if not isinstance(law, Guide):
        raise Mistake(f"--guide {guide} is a {lender.family}; a covariance is lent by a ppca or its mixture")
    if lender.event_shape != run.event_shape or lender.units != run.units:
        raise Mistake(
            f"--guide {guide} and {name} were trained on events of other sizes or ranges of values: train the guide on "
            "the same data"
        )
    return law


def _is_measurement(path: Path) -> bool:
    """Whether a file is one of `oneprior simulate`; what cannot be read is left to the reader's own message."""
    try:
        with zipfile.ZipFile(path) as archive:
            return "about.npy" in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False

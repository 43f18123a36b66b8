"""What is left of a restoration: files in the user's own units and types, figures where the truth is known, a page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from oneprior.apps import pictures, report
from oneprior.core import Geometry
from oneprior.data import write_arrays, write_events
from oneprior.evaluation import crps, interval_coverage, psnr
from oneprior.tasks import Restoration

_SHOWN = 8  # restorations on a page


def judge(result: Restoration) -> dict[str, Any]:
    """Figures of a restoration; with the truth, its errors as well, on the scale of [-1, 1]."""
    figures: dict[str, Any] = {
        "n": len(result.mean),
        "draws": len(result.draws),
        "method": result.method,
        "exact": result.exact,
        "network_calls": result.network_calls,
        "seconds": round(result.seconds, 3),
        "misfit": float(result.diagnostics["misfit"].mean()),
    }
    truth = result.measurement.truth
    if truth is None:
        return figures
    to_model = result.units.to_model
    x, mean, draws = (to_model(t.double().cpu()) for t in (truth, result.mean, result.draws))
    figures |= {"psnr_mean": float(psnr(mean, x).mean()), "psnr_draw": float(psnr(draws[0], x).mean())}
    if len(draws) > 1:
        figures["crps"] = float(crps(draws, x).mean())
    if _has_interval(draws):
        figures["coverage"] = interval_coverage(draws, x, 0.9).value
    return figures


def _has_interval(draws: Tensor) -> bool:
    """Whether two order statistics of so many draws hold exactly 90 % between them."""
    return (len(draws) + 1) % 20 == 0


def write_restoration(result: Restoration, folder: Path) -> list[Path]:
    """Means and samples in the user's own type, deviations as floats, and everything in restoration.npz.

    The ends of the 90 % interval are there where the draws have an exact one: 19, 39, ... of them.
    """
    units, geometry = result.units, result.measurement.geometry
    n, exact = len(result.mean), replace(geometry, dtype="float32")
    arrays: dict[str, Tensor] = {"mean": result.mean, "std": result.std, "draws": result.draws}
    if _has_interval(result.draws):
        arrays["low"], arrays["high"] = result.interval(0.9)
    written = [write_arrays(folder / "restoration.npz", **arrays)]

    def write(x: Tensor, name: str, form: Geometry) -> None:
        names = [name] if n == 1 else [f"{name}_{k:04d}" for k in range(n)]
        files = write_events(units.to_model(x.cpu()), folder, units, form, names=names)
        written.extend(files)

    write(result.mean, "mean", geometry)
    write(result.std, "std", exact)
    if n == 1:
        for s, draw in enumerate(result.draws):
            write(draw, f"sample_{s:02d}", geometry)
    return written


def write_page(result: Restoration, figures: dict[str, Any], path: Path, prior: str) -> Path:
    """The restoration as one self-contained HTML page."""
    strips = panel(result)
    highest, n = _highest(result), len(result.mean)
    shown = f", the first {_SHOWN} of {n}" if n > _SHOWN else ""
    rows = [(name.replace("_", " "), _format(value)) for name, value in figures.items()]
    sections: list[report.Section] = [
        report.Strips(
            strips, f"Each column is one measurement{shown}. The deviation is the posterior's, entry by entry."
        ),
        report.Picture(pictures.colour_bar(0, highest, "posterior deviation")),
        report.Heading("Figures"),
        report.Table(("figure", "value"), rows, _LEGEND),
    ]
    operator = result.measurement.operator.spec or type(result.measurement.operator).__name__
    lead = f"Operator `{operator}`, prior {prior}, method {result.method}."
    return report.Report("Restored", sections, lead=lead).write(path)


def panel(result: Restoration, shown: int = _SHOWN, samples: int = 2) -> list[tuple[str, pictures.Picture]]:
    """Labelled strips: measurement, mean, deviation, some samples, and the truth where it is known."""
    measurement, to_model = result.measurement, result.units.to_model
    clip, operator = measurement.geometry.format == "clip", measurement.operator

    def strip(x: Tensor, **options: Any) -> pictures.Picture:
        return pictures.grid(x[:shown], columns=shown, pixels=72, clip=clip, **options)

    rows = []
    if len(operator.out_shape) == len(operator.in_shape) or operator.linear:
        rows.append(("measurement", strip(to_model(measurement.picture().float().cpu()))))
    rows.append(("posterior mean", strip(to_model(result.mean.cpu()))))
    rows.append(("deviation", strip(result.std.cpu(), low=0.0, high=_highest(result), colours="magma")))
    rows += [(f"sample {s + 1}", strip(to_model(draw.cpu()))) for s, draw in enumerate(result.draws[:samples])]
    if measurement.truth is not None:
        rows.append(("truth", strip(to_model(measurement.truth.cpu()))))
    return rows


def _highest(result: Restoration) -> float:
    """The end of the scale of deviations: all but their highest hundredth lie below."""
    values = result.std[:_SHOWN].flatten().float().cpu()
    return max(float(values.sort().values[int(0.99 * (len(values) - 1))]), 1e-6)


def _format(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


_LEGEND = (
    "Misfit: root mean square of (y - A mean) / sigma; about 1 or below where measurement and prior agree. "
    "PSNR, CRPS and coverage of the 90 % interval are against the truth, where the measurement file holds it."
)

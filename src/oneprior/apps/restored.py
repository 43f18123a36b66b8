"""What is left of a restoration: files in the user's own units and types, and figures, of each event and of all.

A restoration of one event is a folder of its own: mean, deviation, the ends of the 90 % interval and the samples as
files of the input's kind (NIfTI with its affine for NIfTI), `panel.png` to look at, and `restoration.npz` with
everything, from which the restoration can be read back. Several events of one file stand in one folder, numbered.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from oneprior.apps import panels
from oneprior.apps.record import plain
from oneprior.apps.restored_words import told_of
from oneprior.core import Geometry, InputError
from oneprior.data import read_arrays, write_arrays, write_events
from oneprior.evaluation import crps, interval_coverage, psnr, ssim
from oneprior.tasks import Measurement, Restoration

ACCURACY = ("psnr_mean", "psnr_draw", "ssim", "crps", "coverage")
_PANELS = 256  # panels of the events of one file


def figures_of_events(result: Restoration) -> list[dict[str, Any]]:
    """Figures of each event; with the truth its errors as well, on the scale of [-1, 1].

    `misfit` is None where there is no noise, which any residual is infinitely far above; `doubt` says why the event is
    not to be trusted, and is empty where nothing speaks against it; `warnings` are of the numbers that were given,
    `notes` of what the restoration found beside. Operator, noise and range of values are told of each as well, and
    `about` says in words what the method did (latent space, perceptual distance, a residual left out).
    """
    judged = not result.measurement.exact
    n, rows, doubts = len(result.mean), [], result.doubts
    warnings, notes, tiles = result.warnings, result.notes, result.diagnostics.get("tiles")
    accuracy = _accuracy(result)
    for k in range(n):
        misfit = float(result.diagnostics["misfit"][k])
        rows.append(
            {
                "method": result.method,
                "exact": result.exact,
                "draws": len(result.draws),
                "network_calls": result.network_calls / n,
                "seconds": result.seconds / n,
                "misfit": misfit if judged else None,
                "doubt": doubts[k],
                "warnings": warnings[k],
                "notes": notes[k],
                **({"tiles": tiles} if tiles else {}),
                "about": {k: v for k, v in result.diagnostics.items() if isinstance(v, str)},
                **told_of(result.measurement, k),
                **{name: float(values[k]) for name, values in accuracy.items()},
                "diagnostics": {
                    name: float(value[k])
                    for name, value in result.diagnostics.items()
                    if name != "misfit" and isinstance(value, Tensor) and value.shape == (n,)
                },
            }
        )
    return rows


def judge(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """Figures of all events together, from those of each: sums of work, means of errors, medians of diagnostics."""
    seconds = math.fsum(row["seconds"] for row in rows)
    misfits = [row["misfit"] for row in rows if row["misfit"] is not None]
    figures: dict[str, Any] = {
        "n": len(rows),
        "draws": rows[0]["draws"],
        "method": ", ".join(dict.fromkeys(row["method"] for row in rows)),
        "exact": all(row["exact"] for row in rows),
        "network_calls": round(math.fsum(row["network_calls"] for row in rows)),
        "seconds": round(seconds, 3),
        "images_per_second": len(rows) / max(seconds, 1e-9),
        "misfit": math.fsum(misfits) / len(misfits) if misfits else None,
        "doubtful": {name: row["doubt"] for name, row in zip(names, rows, strict=True) if row["doubt"]},
        "warnings": {name: row["warnings"] for name, row in zip(names, rows, strict=True) if row.get("warnings")},
        "notes": {name: row["notes"] for name, row in zip(names, rows, strict=True) if row.get("notes")},
    }
    if tiles := next((row["tiles"] for row in rows if "tiles" in row), None):
        figures["tiles"] = tiles
    for name in dict.fromkeys(name for row in rows for name in row.get("about", {})):
        figures[name] = "; ".join(dict.fromkeys(row["about"][name] for row in rows if name in row.get("about", {})))
    ranges = {name: row["value_range"] for name, row in zip(names, rows, strict=True) if "value_range" in row}
    if ranges:
        first = next(iter(ranges.values()))
        figures["value_range"] = first if all(one == first for one in ranges.values()) else ranges
    for name in ACCURACY:
        known = [row[name] for row in rows if name in row]
        if known:
            figures[name] = math.fsum(known) / len(known)
    for name in dict.fromkeys(name for row in rows for name in row["diagnostics"]):
        known = sorted(row["diagnostics"][name] for row in rows if name in row["diagnostics"])
        figures[name] = known[len(known) // 2]
    return figures


def _accuracy(result: Restoration) -> dict[str, Tensor]:
    """What is known against the truth, one number an event."""
    truth = result.measurement.truth
    if truth is None:
        return {}
    to_model = result.units.to_model
    x, mean, draws = (to_model(t.cpu().double()) for t in (truth, result.mean, result.draws))
    found = {"psnr_mean": psnr(mean, x), "psnr_draw": psnr(draws[0], x)}
    if min(x.shape[2:]) >= 11:
        found["ssim"] = ssim(mean, x)
    if len(draws) > 1:
        found["crps"] = crps(draws, x)
    if has_interval(draws):
        covered = [interval_coverage(draws[:, k : k + 1], x[k : k + 1], 0.9).value for k in range(len(x))]
        found["coverage"] = torch.tensor(covered)
    return found


def has_interval(draws: Tensor) -> bool:
    """Whether two order statistics of so many draws hold exactly 90 % between them."""
    return (len(draws) + 1) % 20 == 0


def write_restoration(result: Restoration, folder: Path) -> list[Path]:
    """Means and samples in the user's own type, deviations as floats, panels, and everything in restoration.npz.

    The ends of the 90 % interval are there where the draws have an exact one: 19, 39, ... of them. The archive comes
    last: where it stands, all else does.
    """
    units, geometry, n = result.units, result.measurement.geometry, len(result.mean)
    written: list[Path] = []

    def write(x: Tensor, name: str, form: Geometry = geometry) -> None:
        names = [name] if n == 1 else [f"{name}_{k:04d}" for k in range(n)]
        x = units.to_model(x.cpu())
        if form.format == "nifti" and x.dim() > 3:  # pictures too, which then keep their place in the scanner
            paths = [folder / f"{one}.nii.gz" for one in names]
            written.extend(p for k, path in enumerate(paths) for p in write_events(x[k : k + 1], path, units, form))
        else:
            written.extend(write_events(x, folder, units, form, names=names))

    folder.mkdir(parents=True, exist_ok=True)
    write(result.mean, "mean")
    if not geometry.tokens:  # a deviation is no music and no molecule: there the samples tell it
        write(result.std, "std", replace(geometry, dtype="float32"))
    if n == 1:
        if has_interval(result.draws) and not geometry.tokens:
            low, high = result.interval(0.9)
            write(low, "low")
            write(high, "high")
        for s, draw in enumerate(result.draws):
            write(draw, f"sample_{s:02d}")
    for k in range(min(n, _PANELS)):
        written.append(panels.panel(result, k).save(folder / ("panel.png" if n == 1 else f"panel_{k:04d}.png")))
    return [*written, keep(result, folder / "restoration.npz")]


def keep(result: Restoration, path: Path) -> Path:
    """Everything of a restoration but its measurement in one archive; `kept` reads it."""
    arrays: dict[str, Tensor] = {"mean": result.mean, "std": result.std, "draws": result.draws}
    if has_interval(result.draws):
        arrays["low"], arrays["high"] = result.interval(0.9)
    facts = {
        "method": result.method,
        "exact": result.exact,
        "network_calls": result.network_calls,
        "seconds": result.seconds,
    }
    told = {k: v for k, v in result.diagnostics.items() if not isinstance(v, Tensor)}
    n = len(result.mean)
    for name, value in result.diagnostics.items():
        if name == "theta" or _of_rows(value, n):
            arrays[f"diagnostics.{name}"] = value
    return write_arrays(path, **arrays, facts=json.dumps(plain(facts | {"diagnostics": told})))


def kept(paths: Sequence[Path], measurement: Measurement) -> Restoration:
    """The restoration of a measurement from its archives, which hold its events in order.

    Raises:
        InputError: where one is missing or damaged.
    """
    parts, by_draw = [read_arrays(path) for path in paths], ("draws", "diagnostics.theta")
    try:
        facts = [json.loads(str(part["facts"])) for part in parts]
        arrays = {
            name: torch.cat([torch.from_numpy(part[name]) for part in parts], 1 if name in by_draw else 0)
            for name in parts[0]
            if name in ("mean", "std", "draws") or name.startswith("diagnostics.")
        }
    except (KeyError, ValueError, RuntimeError) as error:
        raise InputError(f"{paths[0].parent}: a restoration that was kept there is damaged ({error})") from None
    rowwise = {k.removeprefix("diagnostics."): v for k, v in arrays.items() if k.startswith("diagnostics.")}
    return Restoration(
        arrays["draws"],
        arrays["mean"],
        arrays["std"],
        measurement,
        facts[0]["method"],
        all(fact["exact"] for fact in facts),
        sum(fact["network_calls"] for fact in facts),
        math.fsum(fact["seconds"] for fact in facts),
        diagnostics={**facts[0]["diagnostics"], **rowwise},
    )


def event_of(result: Restoration, row: int, measurement: Measurement) -> Restoration:
    """One event of a restoration, with its share of the work.

    Args:
        result: of several events.
        row: which of them.
        measurement: its own, of one row, with the geometry of its file.
    """
    n, one = len(result.mean), slice(row, row + 1)
    mine = {
        name: value[:, one] if name == "theta" else value[one] if _of_rows(value, n) else value
        for name, value in result.diagnostics.items()
    }
    return replace(
        result,
        draws=result.draws[:, one],
        mean=result.mean[one],
        std=result.std[one],
        measurement=measurement,
        network_calls=round(result.network_calls / n),
        seconds=result.seconds / n,
        diagnostics=mine,
    )


def _of_rows(value: Any, n: int) -> bool:
    return isinstance(value, Tensor) and value.shape[:1] == (n,)

"""What is measured of a restoration whose truth is known, for the benchmarks that restore held-out events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from oneprior.core import Rows
from oneprior.evaluation import crps, perceptual_distance, psnr
from oneprior.evaluation.coverage import Coverage, clustered, share_inside
from oneprior.evaluation.embed import Features
from oneprior.tasks import Restoration
from oneprior.tasks.real import as_stored
from oneprior.training import Run


def score(result: Restoration, run: Run, features: Features, body: Tensor | None = None) -> dict[str, Any]:
    """The figures of a restoration, per event where pairs are compared.

    Args:
        result: with its truth.
        run: whose prior.
        features: behind the perceptual distance.
        body: entries of which CRPS and coverage are taken, bool, shaped as the events; all by default.
    """
    truth = result.measurement.truth
    assert truth is not None
    x = run.units.to_model(truth.double())
    mean = run.units.to_model(result.mean.double())
    draws = torch.stack([as_stored(run, run.units.to_model(draw)).double() for draw in result.draws])
    figures = of_pictures(mean, draws[0], x, features)
    figures |= {
        "method": result.method,
        "exact": result.exact,
        "network_calls_per_draw": result.network_calls / (len(draws) * len(x)),
        "seconds": result.seconds,
        "misfit": float(result.diagnostics["misfit"].mean()),
        "doubted": sum(map(bool, result.doubts)),
    }
    if len(draws) >= 19:
        figures["psnr_mean_of_19"] = psnr(draws[:19].mean(0), x).tolist()
    where = torch.ones_like(x, dtype=torch.bool) if body is None else body
    if len(draws) > 3:
        figures["crps"] = (crps(draws * where, x * where) * x[0].numel() / where.flatten(1).sum(1)).tolist()
    if (len(draws) + 1) % 20 == 0:
        coverage = covered(draws, x, where)
        figures |= {"coverage": coverage.value, "coverage_error": coverage.standard_error}
        found = deciles(draws, result.std / run.units.scale, x, where)
        figures["deciles"] = [part.value for part in found]
        figures["decile_errors"] = [part.standard_error for part in found]
    return figures


def of_pictures(mean: Tensor, draw: Tensor, x: Tensor, features: Features) -> dict[str, Any]:
    """PSNR of the mean and of one draw, and the perceptual distance of both, a number for each event."""
    return {
        "psnr_mean": psnr(mean, x).tolist(),
        "psnr_draw": psnr(draw, x).tolist(),
        "perceptual_mean": perceptual_distance(mean.float(), x.float(), features).tolist(),
        "perceptual_draw": perceptual_distance(draw.float(), x.float(), features).tolist(),
    }


def covered(draws: Tensor, x: Tensor, where: Tensor) -> Coverage:
    """Coverage of the 90 % interval among some entries."""
    inside = share_inside(draws, x, round(0.05 * (len(draws) + 1)))
    count = where.flatten(1).sum(1).double()
    return clustered((inside * where).flatten(1).sum(1), count, count, 0.9, len(draws))


def deciles(draws: Tensor, predicted: Tensor, x: Tensor, where: Tensor) -> list[Coverage]:
    """Coverage of the 90 % interval among the entries of each tenth of predicted deviation.

    Args:
        draws: (S, n, *event_shape).
        predicted: deviations, (n, *event_shape).
        x: the truth.
        where: the entries that count, bool.
    """
    inside = share_inside(draws, x, round(0.05 * (len(draws) + 1))).flatten(1)
    flat, counts = predicted.flatten(1).double(), where.flatten(1)
    jitter = Rows(len(x), seed=0, stream="ties").uniform(flat.shape[1], dtype=torch.float64)  # equal deviations: by lot
    key = (flat + 1e-9 * jitter).masked_fill(~counts, torch.inf)
    order = key.flatten().argsort().argsort().reshape(flat.shape)
    tenth = order * 10 // int(counts.sum())
    found = []
    for b in range(10):
        here = ((tenth == b) & counts).double()
        found.append(clustered((inside * here).sum(1), here.sum(1), here.sum(1), 0.9, len(draws)))
    return found


def paired(a: list[float], b: list[float]) -> tuple[float, float]:
    """Mean and standard error of a - b over events."""
    gap = torch.tensor(a, dtype=torch.float64) - torch.tensor(b, dtype=torch.float64)
    return float(gap.mean()), float(gap.std() / len(gap) ** 0.5)


def row_of(cell: Mapping[str, Any]) -> dict[str, Any]:
    """What a table tells of a cell: means over its events, and the standard error of the first."""

    def mean(key: str) -> float | None:
        return sum(cell[key]) / len(cell[key]) if key in cell else None

    values, spread = torch.tensor(cell["psnr_mean"]), cell.get("deciles")
    return {
        "method": cell["method"],
        "PSNR of mean": mean("psnr_mean"),
        "error": float(values.std() / len(values) ** 0.5),
        "PSNR of a draw": mean("psnr_draw"),
        "perceptual": mean("perceptual_draw"),
        "perceptual of mean": mean("perceptual_mean"),
        "CRPS": mean("crps"),
        "coverage": cell.get("coverage"),
        "deciles": f"{min(spread):.2f} .. {max(spread):.2f}" if spread else None,
        "calls": cell.get("network_calls_per_draw"),
        "seconds": cell["seconds"],
    }

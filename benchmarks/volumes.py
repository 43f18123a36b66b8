"""Whole heads restored in 3-D: slices four times as thick, and a slab of ten slices lost, at half the size.

35 held-out subjects (`volume_sets`: 40 x 48 x 40 voxels of 4 mm), sigma = 0.05 on [0, 1]. The latent diffusion of the
heads stands beside the exact posterior of their ppca, total variation with its weight tuned for each instrument, and
cubic interpolation along the axis of slices (cubic splines through what was measured, straight lines across the slab if
they are better, both with the Gaussian smoothing that is best), all tuned on training volumes. PSNR of the mean of 19
draws and of one draw; "better" is a paired difference above two standard errors.

Each part of a cell (contender, aim, task, five volumes) is one call of `oneprior.tasks.restore` and one file that stays
(`benchmarks.kept`), so that a broken-off benchmark goes on where it stood; the record is made of what is there, and its
table says of how many volumes. `--only ldm-fast`, `--only classical` works on one contender; `--only table` gathers.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import kept
from benchmarks.harness import Figure, Options, record
from benchmarks.scores import paired
from benchmarks.total_variation import restore_by_total_variation
from benchmarks.train import trained
from benchmarks.volume_sets import FORM, Heads, heads, save
from oneprior.core import AffineMap, Rows, replacing
from oneprior.data.volumes import decode_nifti
from oneprior.evaluation import crps, psnr
from oneprior.evaluation.coverage import share_inside
from oneprior.tasks import Measurement, Restoration, restore, simulate
from oneprior.tasks.real import as_stored
from oneprior.training import Run, load

TASKS = {"thick": "downsample:1x1x4", "slab": "mask:{slab}"}
SLAB = slice(15, 25)
"""The ten axial slices that are lost: a quarter of the volume, through the middle of the brain."""
SIGMA = 0.05 * 255
UNITS = AffineMap.from_range(0, 255, "grey level")
DRAWS, PART = 19, 5  # 95 rows at once
CLASSICAL = ("interpolation", "total variation")
SHOWN, PLACE = 2, (22, 24, 20)
"""The held-out head that is kept as files and pictured, and the voxel whose three planes are."""
PICTURED = ("interpolation", "total variation", "ppca", "ldm", "ldm-draw")


@dataclass(frozen=True)
class Contender:
    """One row of the table.

    Args:
        name: of the row.
        run: whose prior.
        aim: of `restore`.
        draws: how many.
        volumes: how many, the first.
    """

    name: str
    run: str
    aim: str = "best"
    draws: int = DRAWS
    volumes: int = 35

    @property
    def key(self) -> str:
        """The name of its files."""
        return f"{self.name}-{self.aim}"


CONTENDERS = (
    Contender("ppca", "heads-half-ppca"),
    Contender("ldm", "heads-half-ldm", "fast", volumes=30),
    Contender("ldm", "heads-half-ldm", "best", volumes=30),
    Contender("ldm", "heads-half-ldm", "calibrated", draws=99, volumes=5),
)


def run(options: Options) -> None:
    """Restore what has not been restored yet, then gather."""
    if options.only in ("", "classical"):
        for task in TASKS:
            _classical(task, options)
    for contender in CONTENDERS:
        if options.only in ("", contender.name, contender.key):
            for task in TASKS:
                _cell(contender, task, options)
    if options.only in ("", "table"):
        gather(options)


def words(task: str, options: Options) -> str:
    """The instrument of a task as `restore --operator` is told it; the slab is a file, written on the first call."""
    slab = options.runs / "data" / "heads-half-slab.nii.gz"
    if not slab.exists():
        keep = np.ones(FORM, dtype=np.uint8)
        keep[..., SLAB] = 0
        save(keep, slab)
    return TASKS[task].format(slab=slab)


def measurement(task: str, options: Options, run: Run | None = None) -> Measurement:
    """The held-out heads as one instrument sees them; the same for every contender."""
    x = heads(options).test
    rows = Rows(len(x), seed=11, stream=task)
    geometry = {} if run is None else {"geometry": run.geometry}
    return simulate(x, words(task, options), SIGMA, rows, units=UNITS, **geometry)


def _cell(contender: Contender, task: str, options: Options) -> None:
    volumes, draws = (2, 3) if options.quick else (contender.volumes, contender.draws)
    for start in range(0, volumes, PART):
        path = kept.folder("volumes", options) / f"{contender.key}-{task}-{start:02}.json"
        if path.exists():
            continue
        run = load(trained(contender.run, options))
        part = torch.arange(start, min(start + PART, volumes))
        given = measurement(task, options, run).take(part)
        result = restore(run, given, samples=draws, aim=contender.aim, seed=5)  # type: ignore[arg-type]
        if contender.aim in ("fast", "best") and SHOWN in part:
            _keep(result, contender.name, task, SHOWN - start, options)
        _write(path, score(result, run), contender.name, contender.aim, task, contender.run)


def score(result: Restoration, run: Run) -> dict[str, Any]:
    """The figures of some volumes, one number of each; coverage and CRPS of the voxels of the brain."""
    truth = result.measurement.truth
    assert truth is not None
    x = run.units.to_model(truth.double())
    mean = run.units.to_model(result.mean.double())
    draws = torch.stack([as_stored(run, run.units.to_model(draw)).float() for draw in result.draws])
    brain = (x > -1).flatten(1)
    figures: dict[str, Any] = {
        "psnr_mean": psnr(mean, x).tolist(),
        "psnr_draw": psnr(draws[0].double(), x).tolist(),
        "method": result.method,
        "calls": result.network_calls / (len(draws) * len(x)),
        "seconds": result.seconds,
        "misfit": result.diagnostics["misfit"].tolist(),
    }
    if len(draws) > 3:
        where = brain.reshape(x.shape)
        share = x[0].numel() / brain.sum(1)
        figures["crps"] = (crps(draws * where, (x * where).float()).double() * share).tolist()
    if (len(draws) + 1) % 20 == 0:
        inside = share_inside(draws, x.float(), round(0.05 * (len(draws) + 1))).flatten(1)
        spread = (result.std / run.units.scale).flatten(1)
        held = [(inside[k][brain[k]], spread[k][brain[k]].argsort(stable=True)) for k in range(len(x))]
        figures["coverage"] = [float(hits.mean()) for hits, _ in held]
        figures["deciles"] = [[float(p.mean()) for p in hits[order].tensor_split(10)] for hits, order in held]
    return figures


def _classical(task: str, options: Options) -> None:
    """The rivals that have no prior of heads; what can be tuned is tuned on volumes of the training side."""
    known: Heads = heads(options)
    tune = known.tune[: 2 if options.quick else None]
    told = simulate(tune, words(task, options), SIGMA, Rows(len(tune), seed=3), units=UNITS)
    given = measurement(task, options).take(torch.arange(2 if options.quick else len(known.test)))
    for name, restored in (("interpolation", interpolated), ("total variation", _total_variation)):
        path = kept.folder("volumes", options) / f"{name.replace(' ', '-')}-{task}.json"
        if path.exists():
            continue
        start = time.perf_counter()
        x, method = restored(told, given, options.quick)
        found = psnr(UNITS.to_model(x.double()), UNITS.to_model(_truth(given).double())).tolist()
        seconds = time.perf_counter() - start
        if len(x) > SHOWN:
            _save(x[SHOWN], name, task, options)
        figures = {"psnr_mean": found, "psnr_draw": found, "method": method, "seconds": seconds}
        _write(path, figures, name, "-", task, "")


def _total_variation(told: Measurement, given: Measurement, quick: bool) -> tuple[Tensor, str]:
    x, weight = restore_by_total_variation(told, given, quick=quick)
    return x, f"total variation, weight {weight:g}"


def interpolated(told: Measurement, given: Measurement, quick: bool = False) -> tuple[Tensor, str]:
    """Splines along the slices through what was measured; degree and smoothing are the best on `told`.

    Args:
        told: measurements whose truth is known.
        given: those to restore.
        quick: few settings.

    Returns:
        (n, *event_shape) in the user's units, and what was chosen.
    """
    settings = [(degree, width) for degree in (1, 3) for width in ((0.0,) if quick else (0.0, 0.4, 0.6, 0.8))]
    # thick slices lie close: cubic. Across a slab a cubic spline may swing far out, and straight lines be the better
    settings = settings if given.operator.keeps_pixels else [pair for pair in settings if pair[0] == 3]
    scores = {pair: float(psnr(_splined(told, *pair), _truth(told)).mean()) for pair in settings}
    degree, width = max(scores, key=lambda pair: scores[pair])
    return _splined(given, degree, width), f"splines of degree {degree}, smoothed by {width:g} voxels"


def _splined(given: Measurement, degree: int, width: float) -> Tensor:
    """One spline of some degree along the last axis for each of its lines, (n, *event_shape)."""
    from scipy.interpolate import make_interp_spline
    from scipy.ndimage import gaussian_filter

    levels = given.event_shape[-1]
    if given.operator.keeps_pixels:
        place = np.delete(np.arange(levels), np.r_[SLAB])
        y = given.operator.pinv(given.y)[..., place].numpy()  # type: ignore[attr-defined]
    else:
        y = given.y.numpy()
        thick = levels / y.shape[-1]
        place = (np.arange(y.shape[-1]) + 0.5) * thick - 0.5
    smooth = gaussian_filter(y, (0, 0, width, width, 0)) if width else y  # within slices, where there are neighbours
    at = np.clip(np.arange(levels), place[0], place[-1])
    x = make_interp_spline(place, smooth, k=degree, axis=-1)(at)
    return torch.from_numpy(np.clip(x, 0, 255)).to(given.y)


def _truth(given: Measurement) -> Tensor:
    assert given.truth is not None
    return given.truth


def _keep(result: Restoration, name: str, task: str, row: int, options: Options) -> None:
    _save(result.mean[row], name, task, options)
    _save(result.draws[0, row], f"{name}-draw", task, options)
    _save(result.std[row], f"{name}-std", task, options)


def _file(name: str, task: str, options: Options) -> Path:
    return options.runs / "volumes" / f"head-{name.replace(' ', '-')}-{task}.nii.gz"


def _save(x: Tensor, name: str, task: str, options: Options) -> None:
    """A volume in grey levels as NIfTI, for a viewer."""
    path = _file(name, task, options)
    path.parent.mkdir(parents=True, exist_ok=True)
    save(x[0].float().numpy(), path)


def _write(path: Path, figures: Mapping[str, Any], name: str, aim: str, task: str, run: str) -> None:
    kept.keep(path, {"name": name, "aim": aim, "task": task, "run": run, **figures})
    found = torch.tensor(figures["psnr_mean"])
    print(f"{path.stem}: {found.mean():.2f} dB, {figures['seconds']:.0f} s, {figures['method']}", flush=True)


def gather(options: Options) -> None:
    """One record from all parts."""
    cells: dict[tuple[str, str, str], dict[str, Any]] = {}
    parts = list(kept.every("volumes", options))
    for part in parts:
        cell = cells.setdefault((part["task"], part["name"], part["aim"]), {"seconds": 0.0})
        seconds = cell["seconds"] + part["seconds"]
        cell |= {key: cell.get(key, []) + value if isinstance(value, list) else value for key, value in part.items()}
        cell["seconds"] = seconds
    order = {name: k for k, name in enumerate((*CLASSICAL, "ppca", "ldm"))}
    aims = {aim: k for k, aim in enumerate(("-", "fast", "best", "calibrated"))}
    found = sorted(cells, key=lambda key: (list(TASKS).index(key[0]), order[key[1]], aims[key[2]]))
    figures: dict[str, Figure] = {}
    for task in TASKS:
        figures |= _figures(cells, task)
    if not options.quick:
        _picture(options)
    record(
        "volumes",
        figures,
        options,
        table=[_row(cells[key]) for key in found],
        claim="Held-out heads in 3-D at 4 mm: thick slices and a lost slab, restored by a latent diffusion.",
        n=max((len(cell["psnr_mean"]) for cell in cells.values()), default=0),
        seeds={"noise": 11, "draws": 5},
        tasks=TASKS,
        measured=kept.origins(parts),
        coverage="of the voxels of the brain; deciles within each volume, means over volumes",
    )


def _picture(options: Options) -> None:
    """The planes of one head in every restoration, for `docs/make.py`: <results>/volumes.npz, a strip each, uint8."""
    strips = {}
    for task in TASKS:
        given = measurement(task, options).take(torch.tensor([SHOWN]))
        volumes = {"measurement": given.baseline()[0, 0].numpy()}
        for name in PICTURED:
            path = _file(name, task, options)
            if path.exists():
                volumes[name] = decode_nifti(path.read_bytes(), path.name).event[0]
        volumes["truth"] = _truth(given)[0, 0].numpy()
        strips |= {f"{task}/{name}": planes(volume) for name, volume in volumes.items()}
    with replacing(options.results / "volumes.npz") as partial:
        np.savez_compressed(partial, **strips)


def planes(x: np.ndarray) -> np.ndarray:
    """Axial, coronal and sagittal plane side by side, front or top up, (48, 132) uint8; right is right."""
    i, j, k = PLACE
    cut = [x[:, :, k].T[::-1], x[:, j].T[::-1], x[i].T[::-1]]
    whole = [np.pad(plane, ((0, FORM[1] - len(plane)), (0, 2))) for plane in cut]
    return np.hstack(whole)[:, :-2].clip(0, 255).round().astype(np.uint8)


def _figures(cells: Mapping[tuple[str, str, str], dict[str, Any]], task: str) -> dict[str, Figure]:
    figures = {}
    for aim in ("best", "fast"):
        ours = cells.get((task, "ldm", aim))
        for name, as_aim in (("interpolation", "-"), ("total variation", "-"), ("ppca", "best")):
            rival = cells.get((task, name, as_aim))
            if ours and rival:
                gain, error = paired(ours["psnr_mean"], rival["psnr_mean"][: len(ours["psnr_mean"])])
                note = f"dB of {aim} over {name} are {gain:.2f} ± {error:.2f}; in standard errors"
                key = f"{aim}_over_{name.replace(' ', '_')}_{task}"
                figures[key] = Figure(gain / error, None, (">=", 2.0), note)
    honest = cells.get((task, "ldm", "calibrated"))
    if honest:
        tenths = torch.tensor(honest["deciles"]).mean(0)
        figures[f"coverage_low_{task}"] = Figure(float(tenths.min()), None, (">=", 0.85), "worst decile, 90 %")
        figures[f"coverage_high_{task}"] = Figure(float(tenths.max()), None, ("<=", 0.95), "worst decile, 90 %")
    return figures


def _row(cell: Mapping[str, Any]) -> dict[str, Any]:
    def mean(key: str) -> float | None:
        return sum(cell[key]) / len(cell[key]) if key in cell else None

    values = torch.tensor(cell["psnr_mean"])
    tenths = torch.tensor(cell["deciles"]).mean(0) if "deciles" in cell else None
    return {
        "task": cell["task"],
        "prior": cell["name"],
        "aim": cell["aim"],
        "volumes": len(values),
        "method": cell["method"],
        "PSNR of mean": float(values.mean()),
        "error": float(values.std() / len(values) ** 0.5),
        "PSNR of a draw": mean("psnr_draw"),
        "CRPS": mean("crps"),
        "coverage": mean("coverage"),
        "deciles": None if tenths is None else f"{tenths.min():.2f} .. {tenths.max():.2f}",
        "calls": cell.get("calls"),
        "seconds": cell["seconds"],
    }

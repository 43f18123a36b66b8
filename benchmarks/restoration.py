"""Every family restores held-out Fashion-MNIST under one set of defaults: four instruments, three aims, 19 draws.

100 test images, sigma = 0.05 on [0, 1]: super-resolution x4, the left half masked, 70 % of the pixels masked, a
Gaussian blur. Beside the priors: the exact posteriors of ppca and of its mixture, total variation, and three controls
(draws of the prior that ignore y, DPS, BRGM's variational samples). What takes a processor too long (`FEWER`, and the
guided controls) is tried on some of the images, and the table says on how many.

Each cell (contender, aim, instrument) is one call of `oneprior.tasks.restore` and one file that stays
(`benchmarks.kept`), so that a broken-off benchmark goes on where it stood; the record is made of the cells.
`--only NAME` restores with one contender; `--only table` only gathers.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import kept
from benchmarks.harness import Figure, Options, fashion, feature_network, record
from benchmarks.scores import of_pictures, paired, row_of, score
from benchmarks.total_variation import restore_by_total_variation
from benchmarks.train import trained
from oneprior.core import Rows
from oneprior.evaluation.embed import Features, own_features
from oneprior.priors.diffusion.prior import DiffusionPrior
from oneprior.tasks import Measurement, Restoration, restore, simulate
from oneprior.training import Run, load

TASKS = {
    "sr4": "downsample:4",
    "half": "mask:left",
    "random": "mask:random:0.7:seed=0",
    "blur": "blur:gaussian:1.5",
}
SIGMA = 0.05 * 255
IMAGES, DRAWS = 100, 19
CHUNK = 8  # images worked on at once: 152 rows are the fastest on a processor (measured), and bound the memory
AIMS = ("fast", "best", "calibrated")
DEEP = {"vae": "vae", "gan": "gan", "vqvae": "vqvae", "diffusion": "diffusion-long", "ldm": "ldm"}
"""The families and their runs."""
EXACT = ("ppca", "mixture")
FEWER = {
    **{("diffusion", aim): 25 for aim in AIMS},  # which "guided diffusion" is on all images
    ("ldm", "calibrated"): 50,
    ("vqvae", "best"): 10,
    ("vqvae", "calibrated"): 5,
}


@dataclass(frozen=True)
class Contender:
    """One row of the table.

    Args:
        name: of the row.
        run: whose prior.
        aim: of `restore`.
        method: in place of the aim's.
        guide: the run that lends its covariance.
        draws: how many.
        images: how many, evenly spread over the 100, where 100 take a processor too long; the table says it.
    """

    name: str
    run: str
    aim: str = "best"
    method: str | None = None
    guide: str = ""
    draws: int = DRAWS
    images: int = IMAGES

    @property
    def key(self) -> str:
        """The name of its files."""
        return f"{self.name}-{self.aim}"


def contenders() -> list[Contender]:
    """All rows that a prior restores."""
    rows = [Contender(name, name) for name in EXACT]
    rows += [
        Contender(name, run, aim, images=FEWER.get((name, aim), IMAGES)) for name, run in DEEP.items() for aim in AIMS
    ]
    rows += [Contender("guided diffusion", DEEP["diffusion"], aim, guide="mixture") for aim in AIMS]
    rows += [
        Contender("control: DPS", DEEP["diffusion"], method="dps", images=8),
        Contender("control: BRGM variational", "gan", method="brgm-variational:published", images=25),
    ]
    return rows


def run(options: Options) -> None:
    """Restore what has not been restored yet, then gather."""
    if options.only != "table":
        for contender in contenders():
            if options.only in ("", contender.name):
                for task in TASKS:
                    _cell(contender, task, options)
        if options.only in ("", "controls"):
            for task in TASKS:
                _prior_draws(task, options)
                _total_variation(task, options)
    if options.only in ("", "table"):
        gather(options)


def folder(options: Options) -> Path:
    """Where the cells are kept."""
    return kept.folder("restoration", options)


def _images(options: Options) -> Tensor:
    n = 8 if options.quick else IMAGES
    test = fashion(options).test
    return test[torch.linspace(0, len(test) - 1, n).round().long()]


def measurement(task: str, run: Run, options: Options) -> Measurement:
    """The test images as one instrument sees them; the same for every contender."""
    x = _images(options)
    rows = Rows(len(x), seed=11, stream=task)
    return simulate(x, TASKS[task], SIGMA, rows, units=run.units, geometry=run.geometry)


def _cell(contender: Contender, task: str, options: Options) -> None:
    path = folder(options) / f"{contender.key.replace(' ', '-').replace(':', '')}-{task}.json"
    if path.exists():
        return
    run = load(trained(contender.run, options))
    guide = load(trained(contender.guide, options)).prior() if contender.guide else None
    given = measurement(task, run, options)
    given = given.take(torch.arange(0, len(given), max(1, IMAGES // contender.images)))
    try:
        result = restore(
            run,
            given,
            samples=contender.draws,
            aim=contender.aim,  # type: ignore[arg-type]
            method=contender.method,
            guide=guide,  # type: ignore[arg-type]
            seed=5,
            batch=CHUNK if contender.run in DEEP.values() else None,
        )
    except Exception as error:
        print(f"{contender.key} {task}: {type(error).__name__}: {error}", flush=True)
        return
    _write(path, score(result, run, _features(options)), contender, task)


def _features(options: Options) -> Features:
    """The classifier's stages: trained on labels, used by no method."""
    return own_features(feature_network(options, fashion(options)))


def _prior_draws(task: str, options: Options) -> None:
    """The control that ignores the measurement: draws of the diffusion prior."""
    path = folder(options) / f"control-prior-draws-{task}.json"
    if path.exists():
        return
    run = load(trained(DEEP["diffusion"], options))
    n = len(_images(options))
    start, drawn = time.perf_counter(), options.runs / ("quick" if options.quick else "bench") / "prior-draws.pt"
    if drawn.exists():  # they ignore the measurement: the same for all tasks
        x = torch.load(drawn, weights_only=True)
    else:
        prior = run.prior()
        assert isinstance(prior, DiffusionPrior)
        x = prior.fast().sample(Rows(DRAWS * n, seed=21)).reshape(DRAWS, n, *run.event_shape).clamp(-1, 1)
        drawn.parent.mkdir(parents=True, exist_ok=True)
        torch.save(x, drawn)
    units = run.units
    result = Restoration(
        units.to_units(x),
        units.to_units(x.mean(0)),
        x.std(0) * units.scale,
        measurement(task, run, options),
        "draws of the prior",
        False,
        18 * DRAWS * n,
        time.perf_counter() - start,
        diagnostics={"misfit": torch.full((n,), torch.nan)},
    )
    _write(
        path, score(result, run, _features(options)), Contender("control: prior draws", DEEP["diffusion"], "-"), task
    )


def _total_variation(task: str, options: Options) -> None:
    """The rival without a prior of its own; its weight is tuned for each instrument on 50 training images."""
    path = folder(options) / f"total-variation-{task}.json"
    if path.exists():
        return
    run = load(trained("ppca", options))
    start = time.perf_counter()
    tuning = fashion(options).held_out[: 8 if options.quick else 50]
    told = simulate(tuning, TASKS[task], SIGMA, Rows(len(tuning), seed=3), units=run.units)
    given = measurement(task, run, options)
    mean, weight = restore_by_total_variation(told, given, quick=options.quick)
    assert given.truth is not None
    x = run.units.to_model(given.truth.double())
    found = run.units.to_model(mean.double())
    figures = of_pictures(found, found, x, _features(options))
    figures |= {"method": f"total variation, weight {weight:g}", "seconds": time.perf_counter() - start}
    _write(path, figures, Contender("total variation", "ppca", "-"), task)


def _write(path: Path, figures: Mapping[str, Any], contender: Contender, task: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {"name": contender.name, "aim": contender.aim, "run": contender.run, "draws": contender.draws, "task": task}
    kept.keep(path, {**about, **figures})
    psnr_mean = torch.tensor(figures["psnr_mean"]).mean()
    print(f"{contender.key} {task}: {psnr_mean:.2f} dB, {figures['seconds']:.0f} s, {figures['method']}", flush=True)


def gather(options: Options) -> None:
    """One record from all cells."""
    cells = list(kept.every("restoration", options))
    order = {name: k for k, name in enumerate((*EXACT, "total variation", *DEEP))}
    cells.sort(key=lambda c: (list(TASKS).index(c["task"]), order.get(c["name"], 99), c["name"], _aim(c["aim"])))
    table = [
        {"task": c["task"], "prior": c["name"], "aim": c["aim"], "images": len(c["psnr_mean"]), **row_of(c)}
        for c in cells
    ]
    figures: dict[str, Figure] = {}
    best = _best_family(cells)
    for task in TASKS:
        figures |= _against(cells, task, best)
    found = {(c["name"], c["aim"], c["task"]): c for c in cells}
    for task in TASKS:
        honest = found.get((best, "calibrated", task))
        if honest and "deciles" in honest:
            figures[f"coverage_low_{task}"] = Figure(min(honest["deciles"]), None, (">=", 0.85), "worst decile, 90 %")
            figures[f"coverage_high_{task}"] = Figure(max(honest["deciles"]), None, ("<=", 0.95), "worst decile, 90 %")
            gain, error = paired(found["ppca", "best", task]["crps"], honest["crps"])
            base = sum(found["ppca", "best", task]["crps"]) / len(honest["crps"])
            figures[f"crps_below_ppca_{task}"] = Figure(gain / base, error / base, (">=", 0.10), "share of ppca's CRPS")
        quick = found.get((best, "fast", task))
        if quick and (best, "best", task) in found:
            behind, error = paired(found[best, "best", task]["psnr_mean"], quick["psnr_mean"])
            figures[f"fast_behind_best_{task}"] = Figure(behind, error, ("<=", 0.5), "dB")
            figures[f"fast_calls_{task}"] = Figure(quick["network_calls_per_draw"], None, ("<=", 25), "a draw")
    record(
        "restoration",
        figures,
        options,
        table=table,
        claim=f"Held-out Fashion-MNIST restored by every family under one set of defaults; the best is {best}.",
        best=best,
        n=max((len(cell["psnr_mean"]) for cell in cells), default=0),
        seeds={"noise": 11, "draws": 5},
        tasks=TASKS,
        measured=kept.origins(cells),
        features="the 2,000-step Fashion-MNIST classifier of the other benchmarks, seen by no method",
    )


def _aim(aim: str) -> int:
    return AIMS.index(aim) if aim in AIMS else 9


def _best_family(cells: list[dict[str, Any]]) -> str:
    """The contender with a trained network and the highest mean PSNR over all tasks, at the aim 'best',
    on all images."""
    names = {c["name"] for c in cells if c["run"] in DEEP.values() and not c["name"].startswith("control")}
    most = max(len(c["psnr_mean"]) for c in cells)

    def total(name: str) -> float:
        here = [c["psnr_mean"] for c in cells if c["name"] == name and c["aim"] == "best"]
        own = [torch.tensor(found).mean() for found in here if len(found) == most]
        return float(sum(own)) if len(own) == len(TASKS) else -1e9

    return max(names, key=total)


def _against(cells: list[dict[str, Any]], task: str, best: str) -> dict[str, Figure]:
    """Decibels of the best deep prior over its rivals, in paired standard errors."""
    here = {c["name"]: c for c in cells if c["task"] == task and c["aim"] in ("best", "-")}
    figures = {}
    for rival in ("ppca", "mixture", "total variation"):
        if rival in here and best in here:
            gain, error = paired(here[best]["psnr_mean"], here[rival]["psnr_mean"])
            note = f"dB of {best} over {rival} are {gain:.2f} ± {error:.2f}; in standard errors"
            figures[f"over_{rival.replace(' ', '_')}_{task}"] = Figure(gain / error, None, (">=", 2.0), note)
    return figures

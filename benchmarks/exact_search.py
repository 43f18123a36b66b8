"""The exact search: against all points, on codes of real films, and against ENTMOOT from data to answer.

- 7,776 points (5 positions of 6 codes), three boostings, ten seeds: the value found and the highest of all points.
- 64 positions x 256 codes: films of 64 x 64 as codes of a vqvae (`chest-codes`), five properties of a film as
  scores (`PROPERTIES`), 800 trees of depth 2, 400 of depth 3 and 200 of depth 5: seconds until the optimum is proven,
  and what the local search alone would have given, which has no proof. Beside it what a plain one gives that climbs
  from `RESTARTS` points drawn at random, or from as many as the seconds of the exact search allow.
- ENTMOOT 2.1 with the restricted solver that comes with gurobipy, in an environment of its own that is made here, on an
  instance that it holds: the same scores of the same codes, trained and maximised by each.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.domain_sets import domain
from benchmarks.harness import Figure, Options, record
from benchmarks.train import trained
from oneprior.inference.search import Climb, Effort, Search, Space, maximise
from oneprior.inference.search.atoms import merge
from oneprior.inference.search.local import climb
from oneprior.training import load

POSITIONS, CODES, SEEDS = 5, 6, 10
SIZES = ((800, 2), (400, 3), (200, 5))
RESTARTS = 10
SMALL = (16, 64, 300, 50)
"""Positions, codes, points and trees of the instance that ENTMOOT holds."""


def _asymmetry(x: Tensor) -> Tensor:
    return (x - x.flip(-1)).abs().flatten(1).mean(1)


def _edges(x: Tensor) -> Tensor:
    return x.diff(dim=-1).abs().flatten(1).mean(1) + x.diff(dim=-2).abs().flatten(1).mean(1)


PROPERTIES: dict[str, Callable[[Tensor], Tensor]] = {
    "brightness": lambda x: x.flatten(1).mean(1),
    "contrast": lambda x: x.flatten(1).std(1),
    "asymmetry": _asymmetry,
    "edges": _edges,
    "dark middle": lambda x: -x[..., 16:48, 16:48].flatten(1).mean(1),
}
"""Of films, (n, 1, 64, 64) in [-1, 1] -> (n,)."""


def run(options: Options) -> None:
    """All three parts, in one run."""
    figures: dict[str, Figure] = {}
    wrong = mismatches(1 if options.quick else SEEDS)
    figures["mismatches"] = Figure(float(wrong), None, ("<=", 0.0), "ensembles")
    table = on_films(options)
    for trees, depth in SIZES:
        own = [row for row in table if (row["trees"], row["depth"]) == (trees, depth)]
        target = ("<=", 2.0) if depth == 2 else None
        note = f"seconds to the proof, median of {len(own)} properties"
        figures[f"seconds_{trees}_trees_of_depth_{depth}"] = Figure(
            median(r["seconds"] for r in own), None, target, note
        )
        proven = sum(row["status"] == "optimal" for row in own)
        figures[f"proven_{trees}_trees_of_depth_{depth}"] = Figure(proven / len(own), None, (">=", 1.0), "share")
    deep = [row for row in table if row["depth"] >= 3]
    better = sum(row["value"] > row["local search"] + 1e-9 for row in deep)
    note = (
        f"of {len(deep)} instances of depth 3 or more, where the exact search finds a higher value than the local one"
    )
    plain = {"restarts": f"{RESTARTS} climbs from random points", "its time": "such climbs for the same seconds"}
    for key, said in plain.items():
        above = sum(row["value"] > row[key] + 1e-9 for row in deep)
        words = f"of {len(deep)} instances of depth 3 or more, where it finds a higher value than {said}"
        figures[f"better_than_{key.replace(' ', '_')}"] = Figure(float(above), None, (">=", len(deep) / 2), words)
    figures["better_than_local_search"] = Figure(float(better), None, (">=", len(deep) / 2), note)
    worse = sum(row["value"] < row["local search"] - 1e-9 for row in table)
    figures["worse_than_local_search"] = Figure(float(worse), None, ("<=", 0.0), f"of {len(table)} instances")
    figures |= against_entmoot(options)
    record(
        "exact_search",
        figures,
        options,
        table=table,
        claim="The exact optimum of tree ensembles over codes: proven, in seconds, without a licence.",
        seeds=list(range(SEEDS)),
        n={"points": CODES**POSITIONS, "properties": len(PROPERTIES)},
    )


def mismatches(seeds: int) -> int:
    """Ensembles of which the search found another value than the highest of all points."""
    space, wrong = Space.grid(POSITIONS, CODES), 0
    every = np.array(list(itertools.product(range(CODES), repeat=POSITIONS)), dtype=float)
    for seed, kind in itertools.product(range(seeds), ("gbdt", "dart", "rf")):
        rng = np.random.default_rng(seed)
        x = rng.integers(0, CODES, (300, POSITIONS))
        weights = rng.normal(size=(POSITIONS, CODES))
        y = weights[np.arange(POSITIONS), x].sum(1) + 2.0 * (x[:, 0] == x[:, 1])
        bagging = {"bagging_freq": 1, "bagging_fraction": 0.7} if kind == "rf" else {}
        model = _ensemble(x, y, 20, 3, least=3, boosting_type=kind, **bagging)
        best = maximise(model, space, effort=Effort(climb=Climb(points=8, rounds=2), listed=0))
        wrong += best.status != "optimal" or abs(best.value - float(np.max(model.predict(every)))) > 1e-5
    return wrong


def on_films(options: Options) -> list[dict[str, Any]]:
    """A row for each property and size of ensemble."""
    points, x = film_codes(options)
    space, rows = Space.grid(points.shape[1], 256), []
    for name, of in PROPERTIES.items():
        y = of(x).double().numpy()
        order = np.argsort(-y)
        for trees, depth in SIZES:
            start = time.perf_counter()
            model = _ensemble(points, y, 40 if options.quick else trees, depth)
            fitted = time.perf_counter() - start
            best = maximise(model, space, starts=points[order[:8]], effort=Effort(seconds=120))
            local = maximise(model, space, starts=points[order[:8]], effort=Effort(exact=False))
            rows.append(
                {
                    "property": name,
                    "trees": trees,
                    "depth": depth,
                    "films": len(y),
                    "best film": float(y.max()),
                    "value": best.value,
                    "gap": best.gap,
                    "status": best.status,
                    "seconds": best.seconds,
                    "local search": local.value,
                    "its seconds": local.seconds,
                    **restarted(model, space, best.seconds),
                    "fit": fitted,
                }
            )
            print(rows[-1], flush=True)
    return rows


def restarted(model: Any, space: Space, seconds: float) -> dict[str, float]:
    """The highest that plain climbs from random points come to: few, and as many as there is time for."""
    start, search, rng = time.perf_counter(), Search(model, space), np.random.default_rng(0)
    atoms, none = merge(space, search.forests), np.empty((0, len(space)))

    def highest(points: int) -> float:
        found = climb(atoms, search.goal, search.bonus, none, Climb(points=points, rounds=0), rng)
        return float(search.value(atoms.decode(found[:1]))[0][0])

    few = every = highest(RESTARTS)
    while time.perf_counter() - start < seconds:
        every = max(every, highest(4 * RESTARTS))
    return {"restarts": few, "its time": every}


def film_codes(options: Options) -> tuple[np.ndarray, Tensor]:
    """Codes of all training films by `chest-codes`, (n, 64), and the films."""
    run, place = load(trained("chest-codes", options)), options.runs / "data" / "chest-codes.npy"
    data = domain("chest", options, half=False)
    from oneprior.data import open_dataset

    known = open_dataset(data.training)
    parts = torch.arange(len(known)).split(256)
    x = torch.cat([known.batch(part).x for part in parts])
    if not place.exists():
        found = [run.model.codes(x[part]) for part in parts]
        np.save(place, torch.cat([part.flatten(1) for part in found]).numpy())
    return np.load(place).astype(float), x


def against_entmoot(options: Options) -> dict[str, Figure]:
    """The same data by both, from data to answer."""
    positions, codes, n, trees = SMALL
    rng = np.random.default_rng(0)
    x = rng.integers(0, codes, (n, positions))
    y = rng.normal(size=(positions, codes))[np.arange(positions), x].sum(1)
    place = options.runs / "entmoot" / "data.npz"
    place.parent.mkdir(parents=True, exist_ok=True)
    np.savez(place, x=x, y=y, codes=codes)
    python = _entmoot(options.runs / "entmoot" / "venv")
    script = Path(__file__).with_name("entmoot_answer.py")
    done = subprocess.run([python, script, place, str(trees), "2"], capture_output=True, text=True, check=False)
    theirs = json.loads(done.stdout.strip().splitlines()[-1])
    if "error" in theirs:
        raise RuntimeError(f"ENTMOOT could not: {theirs['error']}")
    start = time.perf_counter()
    model = _ensemble(x, y, trees, 2, least=5)
    best = maximise(model, Space.grid(positions, codes))
    seconds = time.perf_counter() - start
    reached = float(model.predict(np.array([theirs["point"]], dtype=float))[0])  # type: ignore[index]
    what = f"{positions} positions, {codes} codes, {n} points, {trees} trees of depth 2"
    return {
        "entmoot_over_ours_in_seconds": Figure(theirs["seconds"] / seconds, None, (">=", 10.0), what),
        "ours_above_entmoot": Figure(best.value - reached, None, (">=", -1e-6), "value of our model at both optima"),
        "entmoot_seconds": Figure(theirs["seconds"], None, None, "from data to answer"),
    }


def _entmoot(folder: Path) -> Path:
    """The Python of an environment that holds ENTMOOT, made on the first call."""
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        packages = ["entmoot==2.1.1", "gurobipy", "packaging"]
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
    return python


def _ensemble(x: np.ndarray, y: np.ndarray, trees: int, depth: int, least: int = 20, **settings: Any) -> Any:
    import lightgbm

    model = lightgbm.LGBMRegressor(
        n_estimators=trees,
        max_depth=depth,
        num_leaves=2**depth,
        min_child_samples=least,
        min_data_per_group=least,
        n_jobs=1,
        verbose=-1,
        **settings,
    )
    return model.fit(x.astype(float), y, categorical_feature=list(range(x.shape[1])))

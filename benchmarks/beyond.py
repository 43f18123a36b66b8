"""Beyond the training range, end to end: the exact search and its rivals at equal numbers of evaluations.

The prior has seen the events below a threshold of a property (`beyond_sets`). Every contender starts from the same
events and scores, is given `BUDGET` evaluations in rounds of `BATCH`, and is judged by a second predictor that it never
asks:

- exact: the ensemble's optimum, proven (Jung, Schwedhelm, Schillings, Keuper 2023), with weighted retraining;
- free: the same, however unlikely its candidates are to the token prior;
- aimed: the same, for the score that the unseen group has on average, in place of the highest;
- near: the same, within `RADIUS` codes of one of the three best known: events that stay like those of the data;
- part: the same, where no code differs but around nose and mouth;
- local: as exact, by the local search alone;
- even: exact, retrained without weights (k = infinity); alone: exact, never retrained;
- genetic: children of the best by crossing and mutation of their codes;
- random: draws of the token prior;
- bayes: a trust region with a Gaussian process (TuRBO) in the latents of a vae, retrained alike.

Not all are asked of each task (`LEFT_OUT`), and of faces local and alone keep to the ball too (`WITHIN`). Beside it,
Frechet distances to the group that no one has seen. Cells are kept (`benchmarks.kept`); `--only garments`,
`--only garments:exact`, `--only table`, `--only pictures`.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import kept
from benchmarks.beyond_pictures import draw, keep
from benchmarks.beyond_sets import MOUTH, NAMES, fit_of, predicted, predictor, task
from benchmarks.harness import Figure, Options, record
from benchmarks.train import trained
from oneprior.evaluation.embed import function_features
from oneprior.inference.search.objective import nearest
from oneprior.tasks.campaign.campaign import Campaign
from oneprior.tasks.campaign.code_space import CodeSpace
from oneprior.tasks.campaign.latents import Known, Proposal, Proposals
from oneprior.tasks.campaign.objectives import Objective, Objectives
from oneprior.tasks.campaign.presented import identities
from oneprior.tasks.campaign.settings import Settings, Trees
from oneprior.tasks.campaign.shift import Shift, shifts
from oneprior.training import load
from oneprior.training.folder import WEIGHTS

BUDGET, BATCH, SEEDS, INITIAL = 60, 5, 5, 2000
RADIUS = {"garments": 8, "ventricles": 8, "smile": 10}
"""Codes of a ball: a sixth or an eighth of all, fewer of the 256 of a face (with 20 and 32 trials found no mouths)."""
WITHIN = {"smile": ("near", "part", "local", "alone")}
"""Who keeps to the ball, where not near and part alone: far from a face nothing is one."""
SPLITS = {"smile": "codebook"}
"""What trees see of a code, where not the better of codes and vectors, which takes twice as long to find."""
SHOWN = 6000
"""Events that a campaign begins with and trains on, at most; `INITIAL` of them are scored."""
TOP = 20
"""Candidates of the best group: the best of the budget by the score that the campaign has."""
CONTENDERS = ("exact", "free", "aimed", "near", "part", "local", "even", "alone", "genetic", "random", "bayes")
LEFT_OUT = {"garments": ("part",), "ventricles": ("part", "free", "even"), "smile": ("exact", "free", "even", "aimed")}
"""Contenders that are not measured, for want of hours."""
PAIRS = [("exact", rival) for rival in CONTENDERS[1:]]
PAIRS += [("free", "bayes"), *(("near", rival) for rival in ("bayes", "genetic", "random"))]
"""Who is compared, seed by seed: ours and a rival."""
PAIRS_WITHIN = [("near", rival) for rival in ("local", "alone")]
"""The same where all of ours keep to a ball."""
DATA = "the data"
_PARENTS, _MUTATED = 50, 2.0
_GROUP = 4000
"""Events of the group that is sought to which distances are taken, at most about."""


class GeneticCodes(CodeSpace):
    """Children of the best: uniform crossing, and about two codes of each changed."""

    def propose(self, known: Known, settings: Settings, number: int, count: int) -> Proposals:
        rng = np.random.default_rng([settings.seed, number])
        parents = known.points[np.argsort(-known.merit, kind="stable")[:_PARENTS]]
        return self._taken(self._children(parents, rng), known, count)

    def _children(self, parents: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
        while True:
            mother, father = parents[rng.integers(len(parents), size=2)]
            child = np.where(rng.random(self.numbers) < 0.5, mother, father)
            changed = rng.random(self.numbers) < _MUTATED / self.numbers
            yield np.where(changed, rng.integers(0, self.law.vocabulary, self.numbers), child)

    def _taken(self, points: Iterator[np.ndarray], known: Known, count: int) -> Proposals:
        """The first that are new."""
        taken, found = set(known.taken), []
        for point in points:
            own = identities(self.run, self.decode(point[None]))[0]
            if own not in taken:
                taken.add(own)
                apart = float(nearest(point[None], known.every, self.space.coded)[0])
                found.append(Proposal(point, np.nan, np.inf, np.inf, "drawn", apart, 0.0, True, 0.0))
            if len(found) == count:
                break
        return Proposals(found, {"r2": np.nan, "error": np.nan, "trees": 0, "points": 0, "passed": 0})


class RandomCodes(GeneticCodes):
    """Draws of the token prior."""

    def propose(self, known: Known, settings: Settings, number: int, count: int) -> Proposals:
        from oneprior.core import Rows

        drawn = self.law.sample(Rows(4 * count, seed=settings.seed, stream=f"round {number}")).argmax(1)
        return self._taken(iter(drawn.flatten(1).double().numpy()), known, count)


def run(options: Options) -> None:
    """What has not been measured yet, then gather."""
    name, _, which = options.only.partition(":")
    seeds = range(1 if options.quick else SEEDS)
    for seed in seeds:
        for one in NAMES if name not in ("table", "pictures") else ():
            for contender in CONTENDERS:
                if contender not in LEFT_OUT[one] and name in ("", one) and which in ("", contender):
                    _cell(one, contender, seed, options)
    if name in ("", "table"):
        gather(options)
    if name in ("", "pictures"):
        draw(options)


def settings(name: str, contender: str, seed: int, quick: bool) -> Settings:
    """Of a contender in a task; all have the same but for what they are named after."""
    return Settings(
        trees=Trees(most=60 if quick else 400, least=10),
        best=1000,
        others=2000,
        exact=contender != "local",
        retrain_every=0 if contender in ("alone", "random") else 15,
        rank_k=float("inf") if contender == "even" else 1e-3,
        splits=SPLITS.get(name, "better"),
        radius=RADIUS[name] if contender in WITHIN.get(name, ("near", "part")) else None,
        where=tuple((part.start, part.stop) for part in MOUTH) if contender == "part" else None,
        unlikely=None if contender == "free" else 0.001,
        centres=3,
        share=0.02 if quick else 0.25,
        first_share=0.02 if quick else 0.25,
        seconds=30,
        seed=seed,
    )


def _cell(name: str, contender: str, seed: int, options: Options) -> None:
    path = kept.folder("beyond", options) / f"{name}-{contender}-{seed}.json"
    if path.exists():
        return
    told, score, judge = task(name, options), predictor(name, 0, options), predictor(name, 1, options)
    prior = trained(f"{name}-{'vae' if contender == 'bayes' else 'codes'}", options)
    run = load(prior)
    place = options.runs / "campaigns" / f"{path.stem}-{time.time_ns()}"  # of a broken-off cell nothing is used
    asked = settings(name, contender, seed, options.quick)
    if contender == "aimed":
        asked = replace(asked, objectives=Objectives((Objective(goal=float(predicted(score, told.high).mean())),)))
    campaign = Campaign.begin(place, run, told.some(SHOWN), asked)
    rows = np.random.default_rng(seed).permutation(min(SHOWN, len(told.low)))[: 300 if options.quick else INITIAL]
    campaign.score_data(rows, predicted(score, told.low[torch.from_numpy(rows)]))
    start, budget = time.process_time(), 10 if options.quick else BUDGET
    while campaign.spent < budget:
        if campaign.due:
            for _ in campaign.retrain():
                pass
        campaign.latents = _latents(contender, campaign)
        for one in campaign.ask(min(BATCH, budget - campaign.spent)):
            campaign.tell(one.id, float(predicted(score, one.event[None])[0]))
    made = campaign.told()
    x = torch.from_numpy(np.stack([entry.event for entry in made if entry.event is not None]))
    scores, judged = np.array([entry.score for entry in made], dtype=np.float64), predicted(judge, x)
    best = np.argsort(-campaign.objectives.overall(scores[:, None]), kind="stable")[: min(TOP, len(scores))]
    top = x[torch.from_numpy(best.copy())]
    if not seed:
        keep(path, top)
    near = _near(name, top, options)
    rounds = campaign.ledger.rounds()
    cell = {
        "task": name,
        "contender": contender,
        "seed": seed,
        "prior": hashlib.sha256((prior / WEIGHTS).read_bytes()).hexdigest()[:12],
        "scores": scores.tolist(),
        "judged": judged.tolist(),
        "predicted": [float(entry.about.get("prediction", np.nan)) for entry in made],
        "judged of the best": float(judged[best].mean()),
        "beyond": float((judged[best] > told.threshold).mean()),
        "frechet": None if near is None else near.frechet,
        "kernel": None if near is None else near.kernel,
        "r2": [one["r2"] for one in rounds],
        "gaps": [search["gap"] for one in rounds for search in one["searches"]],
        "cpu": time.process_time() - start,
    }
    kept.keep(path, cell)
    print(
        f"{path.stem}: judged {cell['judged of the best']:.4f} ({told.threshold:.4f}), {cell['cpu']:.0f} s", flush=True
    )


def _near(name: str, x: Tensor, options: Options) -> Shift | None:
    """How far some events are from the group that no one has seen, in the judge's features."""
    told, judge = task(name, options), predictor(name, 1, options)
    features = function_features(judge.features, told.high[:64], "the judge's features")
    found = shifts(told.high[:: -(-len(told.high) // _GROUP)], [("best", x)], features)
    return found[0] if found else None


def _of_the_data(name: str, options: Options) -> list[dict[str, Any]]:
    """The best of what each seed knows before its first round, as a contender that looks for nothing."""
    told, score, judge = task(name, options), predictor(name, 0, options), predictor(name, 1, options)
    cells = []
    for seed in range(SEEDS):
        rows = np.random.default_rng(seed).permutation(min(SHOWN, len(told.low)))[:INITIAL]
        x = told.low[torch.from_numpy(rows)]
        scores = predicted(score, x)
        best = x[torch.from_numpy(np.argsort(-scores, kind="stable")[:TOP].copy())]
        near, judged = _near(name, best, options), predicted(judge, best)
        cells.append(
            {
                "task": name,
                "contender": DATA,
                "prior": "none",
                "scores": [float(scores.max())],
                "judged of the best": float(judged.mean()),
                "beyond": float((judged > told.threshold).mean()),
                "frechet": None if near is None else near.frechet,
                "gaps": [],
                "cpu": 0.0,
            }
        )
    return cells


def _latents(contender: str, campaign: Campaign) -> Any:
    """What proposes; made anew after each training."""
    kinds = {"genetic": GeneticCodes, "random": RandomCodes}
    kind = kinds.get(contender)
    return campaign.latents if kind is None or isinstance(campaign.latents, kind) else kind(campaign.run)


def gather(options: Options) -> None:
    """One record of all cells."""
    cells = list(kept.every("beyond", options))
    figures: dict[str, Figure] = {}
    there = [name for name in NAMES if any(cell["task"] == name for cell in cells)]
    data = [cell for name in there for cell in _of_the_data(name, options)]
    for name in there:
        own = {(c["contender"], c["seed"]): c for c in cells if c["task"] == name}
        for ours, rival in PAIRS + (PAIRS_WITHIN if name in WITHIN else []):
            pairs = [(own[ours, s], own[rival, s]) for s in range(SEEDS) if {(ours, s), (rival, s)} <= set(own)]
            if len(pairs) > 1:
                label = "" if ours == "exact" else f"{ours}_"
                figures[f"{name}_{label}over_{rival}"] = _gain(pairs, rival)
        known = [c["frechet"] for c in data if c["task"] == name and c["frechet"] is not None]
        for which in ("exact", "aimed"):
            cells_of = [c for (contender, _), c in own.items() if contender == which]
            for key, figure in _of_the_best(which, cells_of, known).items():
                figures[f"{name}_{key}"] = figure
    record(
        "beyond",
        figures,
        options,
        table=[_row(own) for own in _groups([*cells, *data])],
        claim="Events beyond the training range by exact search over codes, judged by a predictor it never saw.",
        fits={f"{name}, half {half}": fit_of(name, half, options) for name in there for half in (0, 1)},
        thresholds={name: task(name, options).threshold for name in there},
        n={"evaluations": BUDGET, "best": TOP},
        seeds=list(range(SEEDS)),
        measured=kept.origins(cells),
    )


def _of_the_best(which: str, cells: Sequence[dict[str, Any]], known: Sequence[float]) -> dict[str, Figure]:
    """How much of the best group lies beyond the cut, and whether it is nearer to the unseen group than the data's."""
    found = {}
    target = (("<=", float(np.mean(known))) if known else None, "of the best; the target is that of the data's best")
    for key, (aim, note) in {"beyond": ((">=", 0.9), "of the best, by the judge"), "frechet": target}.items():
        values = [cell[key] for cell in cells if cell[key] is not None]
        if values:
            error = float(np.std(values, ddof=1) / len(values) ** 0.5) if len(values) > 1 else None
            found[f"{which}_{key}"] = Figure(float(np.mean(values)), error, aim, note)
    return found


def _gain(pairs: Sequence[tuple[dict[str, Any], dict[str, Any]]], rival: str) -> Figure:
    """How far the judged property of the best group lies above a rival's, in standard errors over seeds."""
    gains = np.array([a["judged of the best"] - b["judged of the best"] for a, b in pairs])
    error = gains.std(ddof=1) / len(gains) ** 0.5
    note = f"judged property over {rival}: {gains.mean():.4g} ± {error:.2g}; in standard errors"
    ours = dict.fromkeys(("free", "aimed", "near"))
    target = {**ours, "local": (">=", -2.0)}.get(rival, (">=", 2.0))
    return Figure(float(gains.mean() / max(error, 1e-12)), None, target, note)


def _groups(cells: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The seeds of each task and contender."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for cell in cells:
        found.setdefault((cell["task"], cell["contender"]), []).append(cell)
    return [
        found[key] for key in sorted(found, key=lambda key: (NAMES.index(key[0]), (DATA, *CONTENDERS).index(key[1])))
    ]


def _row(cells: Sequence[dict[str, Any]]) -> dict[str, Any]:
    def mean(key: str) -> float | None:
        values = [cell[key] for cell in cells if cell[key] is not None]
        return float(np.mean(values)) if values else None

    def error(key: str) -> float | None:
        values = [cell[key] for cell in cells]
        return float(np.std(values, ddof=1) / len(values) ** 0.5) if len(values) > 1 else None

    return {
        "task": cells[0]["task"],
        "contender": cells[0]["contender"],
        "seeds": len(cells),
        "judged": mean("judged of the best"),
        "error": error("judged of the best"),
        "best score": float(np.mean([max(cell["scores"]) for cell in cells])),
        "beyond the threshold": mean("beyond"),
        "Frechet": mean("frechet"),
        "priors": ", ".join(sorted({cell.get("prior", "not noted") for cell in cells})),
        "widest gap": max(max(cell["gaps"], default=0.0) for cell in cells),
        "CPU seconds": mean("cpu"),
    }

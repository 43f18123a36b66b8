"""Ehrlich functions, whose optimum is known: the exact search and its rivals at equal numbers of evaluations.

Stanton, Alberstein, Frey and others 2024 ("Closed-Form Test Functions for Biophysical Sequence Design Benchmarking"):
a sequence of `LENGTH` letters is feasible if no two neighbours are a banned pair, and its score is the product over
`MOTIFS` motifs of the share of the motif that stands, with its gaps, at the best place. The highest score is 1. Here
the codes are the letters themselves: no prior, no retraining, the search alone. Banned pairs are linear constraints of
the exact and of the local search; genetic and random children that have one are drawn again, which costs nothing.

- exact, local: trees of depth 3, in balls around the best; proven, or by the local search alone; the candidates of a
  round are `APART` letters from each other (at 1 the proven best differ in a letter that the trees hardly see, and a
  round taught the exact search less than the local one: .21 against .31, which is why there is such a rule);
- genetic: children of the best by crossing and mutation; random: feasible sequences.

Cells are kept (`benchmarks.kept`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import kept
from benchmarks.harness import Figure, Options, record
from oneprior.inference.search import Ball, Constraint, Effort, Exclude, Linear, Search, Space
from oneprior.inference.search.surrogate import Trees, fit_surrogate

LETTERS, LENGTH, MOTIFS, LONG = 20, 32, 4, 4
"""Letters, length of a sequence, motifs, and the length of each."""
BANNED = 0.2
"""Share of the pairs of letters that may not be neighbours."""
INITIAL, BUDGET, BATCH, SEEDS = 500, 300, 10, 5
RADII, CENTRES, APART, MUTATED, PARENTS = (2, 4, 8), 5, 3, 1.5, 50
CONTENDERS = ("exact", "local", "genetic", "random")


@dataclass(frozen=True, eq=False)
class Ehrlich:
    """One function.

    Args:
        motifs: the letters of each, (MOTIFS, LONG).
        gaps: how far each letter of a motif stands behind its first, (MOTIFS, LONG).
        banned: whether a letter may not be followed by another, (LETTERS, LETTERS) bool.
    """

    motifs: np.ndarray
    gaps: np.ndarray
    banned: np.ndarray

    @classmethod
    def draw(cls, seed: int) -> Ehrlich:
        """A function whose optimum is feasible: no letters of a motif are banned neighbours, no letter its own."""
        rng = np.random.default_rng([seed, 1])
        motifs = rng.permutation(LETTERS)[: MOTIFS * LONG].reshape(MOTIFS, LONG)
        room = LENGTH // MOTIFS
        gaps = np.stack([np.r_[0, np.sort(rng.permutation(np.arange(1, room))[: LONG - 1])] for _ in range(MOTIFS)])
        banned = rng.random((LETTERS, LETTERS)) < BANNED
        np.fill_diagonal(banned, False)
        banned[motifs[:, :-1], motifs[:, 1:]] = False
        order = motifs.flatten()  # every letter of a motif may be repeated, and the motifs stand one after the other
        banned[order[:-1], order[1:]] = False
        return cls(motifs, gaps, banned)

    def feasible(self, x: np.ndarray) -> np.ndarray:
        """Whether no neighbours are banned, (n, LENGTH) -> (n,)."""
        return ~self.banned[x[:, :-1], x[:, 1:]].any(1)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """The scores of sequences, (n, LENGTH) -> (n,) in [0, 1]."""
        score = np.ones(len(x))
        for letters, gaps in zip(self.motifs, self.gaps, strict=True):
            starts = np.arange(LENGTH - gaps[-1])
            stands = x[:, starts[:, None] + gaps] == letters  # (n, places, LONG)
            score *= stands.mean(2).max(1)
        return np.where(self.feasible(x), score, 0.0)

    def constraints(self) -> list[Constraint]:
        """No banned neighbours: where a letter stands, none stands next to it that it bans."""
        found: list[Constraint] = []
        for place in range(LENGTH - 1):
            for letter in np.flatnonzero(self.banned.any(1)):
                here, there = np.arange(LETTERS) == letter, self.banned[letter]
                found.append(Linear({place: here * 1.0, place + 1: there * 1.0}, high=1.0))
        return found

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Feasible sequences, each letter one that the last allows, (n, LENGTH)."""
        x = np.empty((n, LENGTH), dtype=np.int64)
        x[:, 0] = rng.integers(LETTERS, size=n)
        for place in range(1, LENGTH):
            weights = rng.random((n, LETTERS)) * ~self.banned[x[:, place - 1]]
            x[:, place] = weights.argmax(1)
        return x


def run(options: Options) -> None:
    """What has not been measured yet, then gather."""
    for contender, seed, path in kept.missing("ehrlich", CONTENDERS, SEEDS, options):
        _cell(contender, seed, path, options)
    if options.only in ("", "table"):
        gather(options)


def _cell(contender: str, seed: int, path: Path, options: Options) -> None:
    task, rng = Ehrlich.draw(seed), np.random.default_rng([seed, 2])
    budget = 20 if options.quick else BUDGET
    x = task.sample(INITIAL, rng)
    y = task(x)
    propose = _PROPOSE[contender]
    start, gaps = time.process_time(), []
    for number in range(budget // BATCH):
        made, gap = propose(task, x, y, np.random.default_rng([seed, 3, number]))
        x, y, gaps = np.concatenate([x, made]), np.concatenate([y, task(made)]), [*gaps, *gap]
    best = np.maximum.accumulate(y[INITIAL:])
    found = {
        "contender": contender,
        "seed": seed,
        "best of the start": float(y[:INITIAL].max()),
        "best": best[:: max(1, budget // 50)].tolist(),
        "last": float(best[-1]),
        "mean of the last round": float(y[-BATCH:].mean()),
        "widest gap": float(max(gaps, default=0.0)),
        "cpu": time.process_time() - start,
    }
    kept.keep(path, found)
    print(f"{path.stem}: {found['best of the start']:.3f} -> {found['last']:.3f}, {found['cpu']:.0f} s", flush=True)


def _searched(
    task: Ehrlich, x: np.ndarray, y: np.ndarray, rng: np.random.Generator, *, exact: bool
) -> tuple[np.ndarray, list[float]]:
    """The best of the ensemble in balls of several radii around the best; trees learn the logarithm of the product."""
    space, banned = Space.grid(LENGTH, LETTERS), task.constraints()
    least = 0.5 / LONG**MOTIFS
    trees = Trees(most=400, depth=3, least=3)
    surrogate = fit_surrogate(space, x.astype(float), np.log(np.maximum(y, least)), trees, int(rng.integers(1000)))
    search = Search(surrogate.models, space, effort=Effort(seconds=20, exact=exact))
    order = np.argsort(-y, kind="stable")
    centres = x[order[:CENTRES]].astype(float)
    known, made, gaps = Exclude(x[order[:200]].astype(float)), [], []
    while len(made) < BATCH:
        ball = Ball(centres[len(made) % CENTRES], RADII[len(made) % len(RADII)])
        new = [Exclude(np.stack(made), APART)] if made else []
        best = search.best([*banned, ball, known, *new], centres)
        if best.point is None:
            break
        made.append(best.point)
        gaps.append(best.gap)
    found = np.stack(made).astype(np.int64) if made else np.empty((0, LENGTH), np.int64)
    return np.concatenate([found, task.sample(BATCH - len(found), rng)]), gaps


def _children(task: Ehrlich, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, list[float]]:
    """Children of the best that are feasible and new."""
    parents = x[np.argsort(-y, kind="stable")[:PARENTS]]
    known, made = {row.tobytes() for row in x}, []
    while len(made) < BATCH:
        mother, father = parents[rng.integers(len(parents), size=2)]
        cut = rng.integers(1, LENGTH)
        child = np.where(np.arange(LENGTH) < cut, mother, father)
        changed = rng.random(LENGTH) < MUTATED / LENGTH
        child = np.where(changed, rng.integers(0, LETTERS, LENGTH), child)
        if task.feasible(child[None])[0] and child.tobytes() not in known:
            known.add(child.tobytes())
            made.append(child)
    return np.stack(made), []


def _drawn(task: Ehrlich, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, list[float]]:
    return task.sample(BATCH, rng), []


Proposing = Callable[[Ehrlich, np.ndarray, np.ndarray, np.random.Generator], tuple[np.ndarray, list[float]]]
_PROPOSE: dict[str, Proposing] = {
    "exact": partial(_searched, exact=True),
    "local": partial(_searched, exact=False),
    "genetic": _children,
    "random": _drawn,
}


def gather(options: Options) -> None:
    """One record of all cells."""
    cells = list(kept.every("ehrlich", options))
    own = {(c["contender"], c["seed"]): c["last"] for c in cells}
    figures: dict[str, Figure] = {}
    for rival in CONTENDERS[1:]:
        both = [s for s in range(SEEDS) if {("exact", s), (rival, s)} <= set(own)]
        if len(both) > 1:
            gains = np.array([own["exact", s] - own[rival, s] for s in both])
            error = float(gains.std(ddof=1) / len(gains) ** 0.5)
            note = f"best score over {rival}: {gains.mean():.3g} ± {error:.2g}; in standard errors"
            target = (">=", -2.0 if rival == "local" else 2.0)
            figures[f"over_{rival}"] = Figure(float(gains.mean()) / max(error, 1e-12), None, target, note)
    record(
        "ehrlich",
        figures,
        options,
        table=[_row(name, [c for c in cells if c["contender"] == name]) for name in CONTENDERS],
        claim="Ehrlich functions, whose optimum is 1, at equal numbers of evaluations.",
        seeds=list(range(SEEDS)),
        n={"initial": INITIAL, "evaluations": BUDGET, "batch": BATCH},
        measured=kept.origins(cells),
    )


def _row(name: str, cells: list[dict[str, Any]]) -> dict[str, Any]:
    def mean(key: str) -> float | None:
        return float(np.mean([cell[key] for cell in cells])) if cells else None

    keys = ("best of the start", "last", "mean of the last round", "widest gap", "cpu")
    return {"contender": name, "seeds": len(cells), **{key: mean(key) for key in keys}}

"""The pictures of docs/optimise.md: what the data had at most, and what each contender found.

    python -m benchmarks beyond --only pictures

The campaigns lie where they were carried out (`Options.runs`/campaigns); the first seed of each is shown.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.beyond_sets import NAMES, predicted, predictor, task
from benchmarks.harness import ROOT, Options
from oneprior.apps.pictures import grid, stack
from oneprior.tasks.campaign.ledger import Ledger
from oneprior.tasks.campaign.settings import Settings

COLUMNS = 8
LINES = {
    "exact": "exact search",
    "near": "exact, within\na few codes",
    "part": "exact, around\nthe mouth",
    "aimed": "exact, aimed at\nthe unseen mean",
    "genetic": "genetic search",
    "bayes": "vae and\nGaussian process",
    "random": "random codes",
}
"""Contender -> what stands beside its line."""


def draw(options: Options) -> list[Path]:
    """Write docs/pictures/optimise-<task>.png for each task that has campaigns."""
    made = []
    for name in NAMES:
        found = {said: x for key, said in LINES.items() if (x := _best(name, key, options)) is not None}
        if not found:
            continue
        told, score = task(name, options), predictor(name, 0, options)
        highest = told.low[torch.from_numpy(np.argsort(-predicted(score, told.low))[:COLUMNS].copy())]
        real = told.high[torch.linspace(0, len(told.high) - 1, COLUMNS).long()]
        lines = {"highest of\nthe data": highest, **found, "real, never seen": real}
        shown = [(said, grid(x, columns=COLUMNS)) for said, x in lines.items()]
        made.append(stack(shown).save(ROOT / "docs/pictures" / f"optimise-{name}.png"))
        print(f"-> {made[-1]}")
    return made


def _best(name: str, contender: str, options: Options) -> Tensor | None:
    """The best candidates of the first seed, (COLUMNS, 1, h, w); None where there is no such campaign."""
    folders = sorted((options.runs / "campaigns").glob(f"{name}-{contender}-0-*"))
    if not folders:
        return None
    ledger = Ledger(folders[-1])
    scored = ledger.entries(state="scored", origin="asked")
    objectives = Settings.from_json(ledger.recall("settings")).objectives
    merits = objectives.overall(np.array([entry.scores for entry in scored]))
    best = [scored[k].event for k in np.argsort(-merits, kind="stable")[:COLUMNS]]
    return torch.from_numpy(np.stack([event for event in best if event is not None]))

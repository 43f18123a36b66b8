"""Penalised logP on ZINC: the molecules of Tripp, Daxberger and Hernandez-Lobato (2020), through the campaign as it is.

The score is logP, less a score of how hard a molecule is to make (Ertl and Schuffenhauer 2009), less the atoms of its
largest ring beyond six, each in units of its deviation over ZINC (Kusner, Paige, Hernandez-Lobato 2017). 24,333
molecules as SELFIES, all scored, a vqvae with a code for each token, `BUDGET` evaluations: the best, the 10th and the
50th of what was found, never retrained, with weighted retraining (k = 0.001), and with even weights (k = infinity). A
score below `FLOOR` is told as `FLOOR`: a ring of twelve atoms costs thirty, and how bad it is teaches nothing.
Published, of a JT-VAE trained on ten times as many, after 500 evaluations: 19.7 ± 6.0, 15.6, 9.7 (k = 0.001),
6.9 ± 0.7, 5.3, 4.9 (no weights), recomputed from the authors' files. A long chain of carbon has a high logP: the length
that a model can write bounds what is found.

Needs RDKit. Cells are kept (`benchmarks.kept`); `--only weighted`, `--only table`, `--only pictures`.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import kept
from benchmarks.harness import ROOT, Figure, Options, record
from benchmarks.train import trained
from oneprior.apps.pictures import stack
from oneprior.core import InputError
from oneprior.data import open_dataset
from oneprior.data.molecules import chemistry
from oneprior.tasks.campaign.campaign import Campaign
from oneprior.tasks.campaign.presented import presented
from oneprior.tasks.campaign.settings import Settings, Trees
from oneprior.training import Run, load

BUDGET, BATCH, SEEDS, EVERY = 200, 5, 3, 50
FLOOR = -3.0
"""What a score is told as where it is lower."""
CONTENDERS = {"alone": None, "weighted": 1e-3, "even": float("inf")}
_ZINC = {"logP": (2.4571, 1.4343), "difficulty": (-3.0526, 0.8335), "ring": (-0.0486, 0.2860)}
"""Mean and deviation of each term over ZINC, as the authors' programs have them."""
PLACES = (1, 10, 50)
SHOWN, COLUMNS = 10, 6
"""Molecules that are kept of a cell, and how many of them its line in the picture shows."""
SAID = {"weighted": "weighted\nretraining", "even": "without\nweights", "alone": "never\nretrained"}
"""Contender -> what stands beside its line."""


def penalised_logp(smiles: str) -> float:
    """The score of a molecule; NaN for one of no atom."""
    from rdkit.Chem import Crippen
    from rdkit.Contrib.SA_Score import sascorer

    molecule = chemistry().MolFromSmiles(smiles)  # type: ignore[union-attr]
    if molecule is None or not molecule.GetNumAtoms():
        return float("nan")
    rings = [len(ring) for ring in molecule.GetRingInfo().AtomRings()]
    terms = {
        "logP": Crippen.MolLogP(molecule),  # type: ignore[attr-defined]
        "difficulty": -sascorer.calculateScore(molecule),
        "ring": -float(max(0, max(rings, default=0) - 6)),
    }
    return float(sum((terms[name] - mean) / spread for name, (mean, spread) in _ZINC.items()))


def run(options: Options) -> None:
    """What has not been measured yet, then gather."""
    for contender, seed, path in kept.missing("molecules", CONTENDERS, SEEDS, options):
        _cell(contender, seed, path, options)
    if options.only in ("", "table"):
        gather(options)
    if options.only in ("", "pictures"):
        draw(options)


def _cell(contender: str, seed: int, path: Path, options: Options) -> None:
    run, data = load(trained("zinc-codes", options)), open_dataset(zinc(options), skip_bad=True)
    k = CONTENDERS[contender]
    settings = Settings(
        trees=Trees(most=60 if options.quick else 400, least=10),
        best=4000,
        others=12000,
        own_share=0.1,
        splits="shared",
        radius=4,  # farther away the trees know too little
        centres=3,
        apart=1,
        retrain_every=0 if k is None else EVERY,
        rank_k=1e-3 if k is None else k,
        share=0.1,
        first_share=0.1,
        unlikely=None,  # a chain of thirty carbons is unlikely, and what the score asks for
        seconds=20,
        seed=seed,
    )
    campaign = Campaign.begin(options.runs / "campaigns" / f"{path.stem}-{time.time_ns()}", run, data, settings)
    rows = np.random.default_rng(seed).permutation(len(data))[: 300 if options.quick else None]
    known = [penalised_logp(str(one)) for one in presented(run, data.batch(torch.from_numpy(rows)).x)]
    campaign.score_data(rows, np.maximum(known, FLOOR))
    start, budget, scores = time.process_time(), 10 if options.quick else BUDGET, list[float]()
    while campaign.spent < budget:
        if campaign.due:
            for _ in campaign.retrain():
                pass
        asked = campaign.ask(min(BATCH, budget - campaign.spent))
        for one in asked:
            scores.append(penalised_logp(str(presented(campaign.run, one.event[None])[0])))
            campaign.tell(one.id, float(np.maximum(scores[-1], FLOOR)))
        if not asked:
            break
    made = [entry for entry in campaign.ranked() if entry.origin == "asked"]
    best = torch.from_numpy(np.stack([entry.event for entry in made[:SHOWN] if entry.event is not None]))
    cell = {
        "contender": contender,
        "seed": seed,
        "scores": [None if np.isnan(score) else score for score in scores],
        "known": float(np.nanmax(known)),
        "known molecules": _smiles(run, data.batch(torch.from_numpy(rows[np.argsort(known)[::-1][:SHOWN]].copy())).x),
        "molecules": _smiles(campaign.run, best),
        "cpu": time.process_time() - start,
    }
    kept.keep(path, cell)
    print(f"{path.stem}: {made[0].score:.2f} ({cell['known']:.2f} known), {cell['cpu']:.0f} s", flush=True)


def _smiles(run: Run, x: Tensor) -> list[str]:
    return [str(one) for one in presented(run, x)]


def zinc(options: Options) -> Any:
    """The file."""
    return options.data.parent / "molecules" / "zinc_24k.csv.gz"


def gather(options: Options) -> None:
    """One record of all cells."""
    cells = list(kept.every("molecules", options))
    table, figures = [], dict[str, Figure]()
    for contender in CONTENDERS:
        own = [cell for cell in cells if cell["contender"] == contender]
        if not own:
            continue
        ranked = [sorted((s for s in cell["scores"] if s is not None), reverse=True) for cell in own]
        row: dict[str, Any] = {"contender": contender, "seeds": len(own), "best known": max(c["known"] for c in own)}
        for place in PLACES:
            values = np.array([scores[place - 1] if len(scores) >= place else np.nan for scores in ranked])
            row[f"no. {place}"] = float(values.mean())
            error = float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else None
            figures[f"{contender}_{place}"] = Figure(float(values.mean()), error, None, "penalised logP")
        table.append({**row, "CPU seconds": float(np.mean([cell["cpu"] for cell in own]))})
    record(
        "molecules",
        figures,
        options,
        table=table,
        claim="Penalised logP of molecules found by exact search over the codes of SELFIES.",
        best=[cell["molecules"][0] for cell in cells],
        n={"evaluations": BUDGET, "data": 24333},
        seeds=list(range(SEEDS)),
        measured=kept.origins(cells),
    )


def draw(options: Options) -> Path:
    """Write docs/pictures/optimise-molecules.png: the best of the data, and what each contender found first."""
    from oneprior.apps.molecules import drawn

    first = {cell["contender"]: cell for cell in kept.every("molecules", options) if cell["seed"] == 0}
    if not first:
        raise InputError("no cell of molecules is kept: run the benchmark first")
    lines = {"best of\nthe data": next(iter(first.values()))["known molecules"]}
    lines |= {SAID[which]: first[which]["molecules"] for which in CONTENDERS if which in first}
    shown = [(said, drawn(smiles[:COLUMNS], columns=COLUMNS)) for said, smiles in lines.items()]
    path = stack(shown).save(ROOT / "docs/pictures/optimise-molecules.png")
    print(f"-> {path}")
    return path

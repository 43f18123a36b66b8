"""Music: what a vqvae draws, beside n-grams, by measures of pieces that nobody drew; and a missing soprano filled in.

2,000 chorales made by rule (`data.chorales`), four bars an event, 200 held out. Of each measure the distance between
its law over draws and over held-out pieces (Wasserstein, in deviations of the held-out ones) stands beside the
distance of two halves of held-out pieces, which is what chance leaves. A soprano is hidden from 30 held-out pieces
and restored from the three voices below; right is a step whose token is the piece's own; beside it the share by the
most frequent token.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import wasserstein_distance
from torch import Tensor

from benchmarks.harness import ROOT, Figure, Options, record
from benchmarks.train import trained
from oneprior.apps.panels import panel
from oneprior.core import Rows
from oneprior.data import open_dataset
from oneprior.data.chorales import write_chorales
from oneprior.evaluation.ngrams import NGram
from oneprior.evaluation.specifications import Outputs, music
from oneprior.tasks import Restoration, restore, simulate, synthesise
from oneprior.training import Run, load

PIECES, HELD_OUT, DRAWS, RESTORED = 2000, 200, 400, 30
ORDERS = (5, 9, 13)
MEASURES = {
    "in scale": music.in_scale,
    "notes": music.notes,
    "lowest": music.lowest_note,
    "highest": music.highest_note,
    "crossings": music.crossings,
}


def chorales(options: Options, held_out: bool = False) -> Path:
    """A folder of MIDI files; those held out have another seed."""
    n, name = (HELD_OUT, "chorales-test") if held_out else (PIECES, "chorales")
    folder = options.runs / "data" / f"{name}{'-quick' if options.quick else ''}"
    if not folder.exists():
        write_chorales(folder, 20 if options.quick else n, seed=int(held_out))
    return folder


def run(options: Options) -> None:
    """Draw, measure, restore; `--only pictures` draws docs/pictures/optimise-music.png alone."""
    prior = load(trained("music-codes", options))
    known = open_dataset(chorales(options), tokens=prior.geometry.tokens)
    other = open_dataset(chorales(options, held_out=True), tokens=prior.geometry.tokens, skip_bad=True)
    x, real = (data.batch(torch.arange(len(data))).x for data in (known, other))
    if options.only in ("", "pictures"):
        result = _restored(prior, real[:1])
        print(f"-> {panel(result, 0).save(ROOT / 'docs/pictures/optimise-music.png')}")
    if options.only:
        return
    count = 16 if options.quick else DRAWS
    drawn = torch.cat([part.cpu() for part in synthesise(prior, Rows(count, seed=1))])
    laws = {f"{order}-gram": NGram.fit(x, prior.geometry.groups, order) for order in ORDERS}
    sets = {"vqvae": drawn, **{name: law.sample(count, x.shape[-1], seed=1) for name, law in laws.items()}}
    table = [_row("held out, by halves", real[::2], real[1::2], prior.geometry.tokens)]
    table += [_row(name, made, real, prior.geometry.tokens) for name, made in sets.items()]
    for name, law in laws.items():
        nats = -law.log_prob(real[:100]) / (prior.geometry.groups * real.shape[-1])
        next(row for row in table if row["of"] == name)["nats a token"] = float(nats.mean())
    right, frequent = _soprano(prior, real[: 4 if options.quick else RESTORED], x)
    worst = {row["of"]: max(row[name] for name in MEASURES) for row in table}
    figures = {
        "in_scale_over_best_ngram": Figure(
            min(row["in scale"] for row in table if row["of"] in laws)
            / max(next(row["in scale"] for row in table if row["of"] == "vqvae"), 1e-9),
            None,
            (">=", 1.0),
            "distance of the best n-gram over the vqvae's",
        ),
        "soprano_right": Figure(
            *_mean(right), (">=", float(frequent)), "share of steps; target: the most frequent token"
        ),
        "worst_measure_vqvae": Figure(worst["vqvae"], None, None, "deviations"),
    }
    record(
        "music",
        figures,
        options,
        table=table,
        claim="Chorales drawn by a vqvae and by n-grams, and a missing soprano restored.",
        n={"pieces": PIECES, "drawn": DRAWS, "restored": RESTORED},
        seeds={"draws": 1, "restoration": 5},
    )


def _row(name: str, a: Tensor, b: Tensor, tokens: tuple[str, ...]) -> dict[str, Any]:
    """Distances of the measures of two sets, in deviations of the second."""
    row: dict[str, Any] = {"of": name, "nats a token": None}
    for measure, function in MEASURES.items():
        first, second = (function(Outputs(x, tokens=tokens)).numpy() for x in (a, b))
        row[measure] = float(wasserstein_distance(first, second) / max(second.std(), 0.01))
    return row


def _soprano(prior: Run, real: Tensor, x: Tensor) -> tuple[np.ndarray, float]:
    """Of each piece the share of steps at which the restored soprano is right; and that of the likeliest token."""
    result = _restored(prior, real)
    codes = [part.unflatten(1, (4, -1)).argmax(2)[:, 0] for part in (prior.units.to_model(result.mean), real, x)]
    likeliest = int(torch.bincount(codes[2].flatten()).argmax())
    return (codes[0] == codes[1]).double().mean(1).numpy(), float((codes[1] == likeliest).double().mean())


def _restored(prior: Run, real: Tensor) -> Restoration:
    """Pieces without their soprano, restored."""
    rows = Rows(len(real), seed=11)
    given = simulate(real, "mask:voice:1:of=4", 0.05, rows, units=prior.units, geometry=prior.geometry)
    return restore(prior, given, samples=5, seed=5)


def _mean(values: np.ndarray) -> tuple[float, float]:
    return float(values.mean()), float(values.std(ddof=1) / len(values) ** 0.5)

"""What a campaign leaves beside its page: a line for each round, figures, pictures of the best, a table of all."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from oneprior.apps import report
from oneprior.apps.evaluated import number
from oneprior.apps.molecules import drawn
from oneprior.apps.piano_rolls import rolled
from oneprior.apps.pictures import Picture, grid
from oneprior.core import AffineMap, Geometry, replacing
from oneprior.data import write_events
from oneprior.data.midi import FORMAT as MUSIC
from oneprior.data.midi import write_notes
from oneprior.data.molecules import FORMAT, as_smiles
from oneprior.tasks.campaign.campaign import Campaign
from oneprior.tasks.campaign.ledger import Entry
from oneprior.tasks.campaign.presented import Event, presented

SHOWN = 8
"""Candidates in a row of pictures."""
_ROLLS = 2
"""Pieces of music in a row."""
TABLE = "candidates.csv"


@dataclass(frozen=True)
class PictureOf:
    """Writes an event in the user's units as a file, as a run does.

    Args:
        units: of the events.
        geometry: of the files.
    """

    units: AffineMap
    geometry: Geometry

    def __call__(self, event: Event, folder: Path) -> Path:
        if isinstance(event, str):
            path = folder / "event.smi"
            path.write_text(f"{event}\n", encoding="utf-8")
            return path
        if isinstance(event, list):
            path = folder / "event.mid"
            path.write_bytes(write_notes(event))
            return path
        x = self.units.to_model(torch.from_numpy(np.asarray(event, dtype=np.float32)))
        return self.of_model(x.numpy(), folder, "event")

    def of_model(self, x: np.ndarray, folder: Path, name: str) -> Path:
        """An event in [-1, 1] as a file of some name; the file."""
        return write_events(torch.from_numpy(x)[None], folder, self.units, self.geometry, names=[name])[0]


def line(campaign: Campaign) -> str:
    """What a round has come to, on one line of the table."""
    told = [entry for entry in campaign.told() if entry.origin == "asked"]
    if not told:
        return ""
    last = max(entry.round for entry in told)
    about = next(one for one in campaign.ledger.rounds() if one["round"] == last)
    own = [entry for entry in told if entry.round == last]
    failed, off = sum(entry.scores is None for entry in told), misprediction(campaign, own)
    words = [
        f"round {last:3}",
        f"{len(told)} told" + (f", {failed} of them failed" if failed else ""),
        _reached(campaign),
        f"this round {words_of(campaign, top)}" if (top := best_of(campaign, own)) else "all of this round failed",
        "" if math.isnan(off) else f"predictions off by {off:.3g} on average",
        f"R2 {about['r2']:.2f}, {about['trees']} trees" if about["trees"] else f"R2 {about['r2']:.2f}",
        f"gap {max((search['gap'] for search in about['searches']), default=0.0):.2g}",
    ]
    return "  ".join(filter(None, words))


def _reached(campaign: Campaign) -> str:
    """The best so far, or how much of a front is new."""
    if campaign.objectives.pareto:
        front = campaign.front()
        return f"{sum(entry.origin != 'data' for entry in front)} of a front of {len(front)}"
    best = campaign.best()
    if best is None:
        return ""
    return f"best {words_of(campaign, best)}" + (" (of the data)" if best.origin == "data" else "")


def figures(campaign: Campaign) -> dict[str, Any]:
    """What `result.json` keeps."""
    best, told, known = campaign.best(), campaign.told(), campaign.ledger.entries(origin="data")
    of_data = best_of(campaign, campaign.admitted([entry for entry in known if entry.state == "scored"]))
    found: dict[str, Any] = {
        "best": None if best is None else _plain(best),
        "best of the data": None if of_data is None else _plain(of_data),
    }
    if campaign.objectives.pareto:  # no one of them is the best
        found = {"front": [_plain(entry) for entry in campaign.front()]}
    return {
        **found,
        "told": len(told),
        "failed": sum(entry.state == "failed" for entry in told),
        "failed of the data": sum(entry.state == "failed" for entry in known),
        "rounds": campaign.rounds,
        "widest gap": max((s["gap"] for r in campaign.ledger.rounds() for s in r["searches"]), default=0.0),
    }


def write_table(campaign: Campaign, path: Path) -> Path:
    """Every candidate with its scores, and of molecules their SMILES, as a sheet."""
    entries = [entry for entry in campaign.ledger.entries() if entry.origin in ("asked", "told")]
    molecules = campaign.run.geometry.format == FORMAT
    lines: list[list[Any]] = [
        ["candidate", "round", "state", *campaign.objectives.names, "predicted", "log-probability", "note"]
    ]
    lines[0] += ["smiles"] if molecules else []
    smiles = presented(campaign.run, events_of(entries)) if molecules and entries else [""] * len(entries)
    for entry, own in zip(entries, smiles, strict=True):
        scores = entry.scores or ("",) * len(campaign.objectives.each)
        about = [entry.about.get(name, "") for name in ("prediction", "log_prob")]
        lines.append([entry.id, entry.round, entry.state, *scores, *about, entry.note, *([own] if molecules else [])])
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(lines)
    return path


def write_grid(campaign: Campaign, path: Path) -> Path:
    """The best candidates so far as one picture."""
    best = made_of(campaign)[: SHOWN * 2]
    return drawn_as(campaign, events_of(best)).save(path) if best else path


def write_pictures(campaign: Campaign, folder: Path) -> list[Path]:
    """The best candidates as files of the user's own kind."""
    best = made_of(campaign)[: SHOWN * 2]
    if not best:
        return []
    for earlier in folder.glob("[0-9][0-9]-candidate-*"):
        earlier.unlink()
    names = [f"{place:02}-candidate-{entry.id}" for place, entry in enumerate(best, 1)]
    write_events(events_of(best), folder, campaign.run.units, campaign.run.geometry, names=names)
    return [folder]


def quarters(campaign: Campaign) -> list[tuple[str, Tensor]]:
    """The data, and the candidates in four parts as they came; names and events."""
    some = torch.linspace(0, len(campaign.data) - 1, min(len(campaign.data), 2000)).round().long()
    made = [entry for entry in campaign.told() if entry.origin == "asked"]
    parts = [part for part in np.array_split(np.arange(len(made)), 4) if len(part)]
    named = [(f"candidates {part[0] + 1} to {part[-1] + 1}", events_of([made[k] for k in part])) for part in parts]
    return [("the data", campaign.data.batch(some).x), *named]


def made_of(campaign: Campaign) -> list[Entry]:
    """Scored candidates and what was told beside them, the best first."""
    return [entry for entry in campaign.ranked() if entry.origin != "data"]


def best_of(campaign: Campaign, entries: Sequence[Entry]) -> Entry | None:
    """The best of some that were scored; None of none."""
    scored = [entry for entry in entries if entry.scores is not None]
    return scored[int(campaign.objectives.overall(campaign.scores_of(scored)).argmax())] if scored else None


def words_of(campaign: Campaign, entry: Entry) -> str:
    """Its scores; of several, with their names."""
    shown = [number(score) or "–" for score in entry.scores or ()]
    names = campaign.objectives.names
    return shown[0] if len(shown) == 1 else ", ".join(f"{name} {own}" for name, own in zip(names, shown, strict=True))


def _plain(entry: Entry) -> float | list[float]:
    """As `result.json` has it."""
    scores = list(entry.scores or ())
    return scores[0] if len(scores) == 1 else scores


def misprediction(campaign: Campaign, entries: Sequence[Entry]) -> float:
    """By how much what was predicted differs from what came, on average; NaN where it is not known."""
    own = [entry for entry in entries if entry.scores is not None and "prediction" in entry.about]
    if campaign.objectives.pareto or not own:  # a round's own weighing is over with the round
        return math.nan
    scores = campaign.scores_of(own)
    reached = scores[:, 0] if scores.shape[1] == 1 else campaign.objectives.overall(scores)
    return float(np.abs(reached - [entry.about["prediction"] for entry in own]).mean())


def drawn_events(campaign: Campaign, entries: Sequence[Entry], columns: int = SHOWN) -> Picture:
    """Candidates on a grid."""
    return drawn_as(campaign, events_of(entries), columns)


def best_strip(campaign: Campaign) -> list[report.Section]:
    """The best candidates so far, with their scores; nothing before there are any."""
    best = made_of(campaign)[:SHOWN]
    return [report.Heading("The best so far"), gallery(campaign, best)] if best else []


def gallery(campaign: Campaign, entries: Sequence[Entry], below: Tensor | None = None) -> report.Gallery:
    """Candidates with their scores, numbers, and of molecules their SMILES, below them.

    Args:
        campaign: whose.
        entries: candidates.
        below: an event for each, to stand below it.
    """
    x = events_of(entries)
    smiles = presented(campaign.run, x) if campaign.run.geometry.format == FORMAT else [""] * len(entries)
    shown = []
    columns = x[:, None] if below is None else torch.stack([x, below], 1)
    for entry, column, own in zip(entries, columns, smiles, strict=True):
        caption = f"**{words_of(campaign, entry)}**, candidate {entry.id}" + (f", `{own}`" if own else "")
        shown.append(report.Picture(drawn_as(campaign, column, 1), caption))
    return report.Gallery(shown)


def drawn_as(campaign: Campaign, x: Tensor, columns: int = SHOWN) -> Picture:
    """Events in rows; molecules as formulas, music as piano rolls."""
    if campaign.run.geometry.format == FORMAT:
        return drawn(as_smiles(x, campaign.run.geometry.tokens), columns)
    if campaign.run.geometry.format == MUSIC:
        return rolled(x, campaign.run.geometry.tokens, min(columns, _ROLLS))
    return grid(x, columns=columns)


def events_of(entries: Sequence[Entry]) -> Tensor:
    """What was drawn, (n, *event_shape) in [-1, 1]."""
    return torch.from_numpy(np.stack([entry.event for entry in entries if entry.event is not None]))

"""The pictures and the page of a campaign: the best by round, the curve of scores, every search's gap."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from oneprior.apps import plots, report
from oneprior.apps.evaluated import foot, number
from oneprior.apps.pictures import Picture, grid
from oneprior.core import AffineMap, Geometry
from oneprior.data import write_events
from oneprior.tasks.campaign.campaign import Campaign
from oneprior.tasks.campaign.ledger import Entry

_SHOWN = 8


@dataclass(frozen=True)
class PictureOf:
    """Writes an event in the user's units as a file, as a run does.

    Args:
        units: of the events.
        geometry: of the files.
    """

    units: AffineMap
    geometry: Geometry

    def __call__(self, event: np.ndarray, folder: Path) -> Path:
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
    best, off = campaign.best(), _off(own)
    reached = campaign.settings.best_of(entry.score for entry in own)
    words = [
        f"round {last:3}",
        f"{len(told)} told",
        f"best {best.score:.4g}" if best is not None else "",
        "all failed" if math.isnan(reached) else f"this round {reached:.4g}",
        "" if math.isnan(off) else f"predicted within {off:.3g}",
        f"R2 {about['r2']:.2f}, {about['trees']} trees" if about["trees"] else f"R2 {about['r2']:.2f}",
        f"gap {max((search['gap'] for search in about['searches']), default=0.0):.2g}",
    ]
    return "  ".join(filter(None, words))


def figures(campaign: Campaign) -> dict[str, Any]:
    """What `result.json` keeps."""
    best, told = campaign.best(), campaign.told()
    known = campaign.ledger.data_scores()[1]
    return {
        "best": None if best is None else best.score,
        "best of the data": campaign.settings.best_of(known),
        "told": len(told),
        "failed": sum(entry.state == "failed" for entry in told),
        "rounds": campaign.rounds,
        "widest gap": max((s["gap"] for r in campaign.ledger.rounds() for s in r["searches"]), default=0.0),
    }


def ranked(campaign: Campaign) -> list[Entry]:
    """Scored candidates, the best first."""
    made = [entry for entry in campaign.told() if entry.state == "scored"]
    merit = campaign.settings.merit(np.array([entry.score for entry in made], dtype=np.float64))
    return [made[k] for k in np.argsort(-merit, kind="stable")]


def write_grid(campaign: Campaign, path: Path) -> Path:
    """The best candidates so far as one picture."""
    best = ranked(campaign)[: _SHOWN * 2]
    return grid(_events(best), columns=_SHOWN).save(path) if best else path


def write_pictures(campaign: Campaign, folder: Path) -> list[Path]:
    """The best candidates as files of the user's own kind."""
    best = ranked(campaign)[: _SHOWN * 2]
    if not best:
        return []
    names = [f"{place:02}-candidate-{entry.id}" for place, entry in enumerate(best, 1)]
    write_events(_events(best), folder, campaign.run.units, campaign.run.geometry, names=names)
    return [folder]


def write_page(campaign: Campaign, path: Path, seed: int) -> Path:
    """report.html."""
    rounds, told = campaign.ledger.rounds(), campaign.told()
    known = campaign.ledger.data_scores()[1]
    best, made = campaign.best(), ranked(campaign)
    record = campaign.settings.best_of(known)
    beyond = sum(
        campaign.settings.merit(np.array([e.score for e in made], dtype=np.float64))
        > campaign.settings.merit(np.array(record))
    )
    gaps = [search["gap"] for one in rounds for search in one["searches"]]
    proven = sum(search["status"] == "optimal" for one in rounds for search in one["searches"])
    cards = [
        ((best is not None and number(best.score or 0.0)) or "–", "the best score"),
        (number(record) or "–", f"the best of {len(known)} scored events of the data"),
        (f"{beyond} of {len(made)}", "scored candidates are better than all of these"),
        (f"{proven} of {len(gaps)}", "searches were proven optimal"),
    ]
    sections: list[report.Section] = [report.Cards(cards)]
    if made:
        sections += _pictures(campaign, made)
        sections += _curves(campaign, told, rounds, known)
    sections += [report.Heading("Every round"), _rounds(campaign, rounds)]
    if failed := [entry for entry in told if entry.state == "failed"]:
        sections.append(
            report.Table(
                ("candidate", "why it has no score"),
                [[str(e.id), e.note] for e in failed[:20]],
                f"{len(failed)} failed.",
            )
        )
    lead = f"{len(made)} candidates scored in {len(rounds)} rounds; the goal: {campaign.settings.goal}."
    seconds = sum(search["seconds"] for one in rounds for search in one["searches"])
    return report.Report("Beyond the data", sections, lead, foot(seed, seconds)).write(path)


def _off(entries: Sequence[Entry]) -> float:
    """By how much scores were mispredicted, on average; NaN where none was predicted."""
    off = [abs(e.score - e.about["prediction"]) for e in entries if e.score is not None and "prediction" in e.about]
    return float(np.mean(off)) if off else math.nan


def _events(entries: list[Entry]) -> Tensor:
    return torch.from_numpy(np.stack([entry.event for entry in entries if entry.event is not None]))


def _pictures(campaign: Campaign, made: list[Entry]) -> list[report.Section]:
    """The best, the nearest training event of each, and the best of some rounds."""
    best = made[:_SHOWN]
    rows: list[tuple[str, Picture]] = [("the best", grid(_events(best), columns=_SHOWN))]
    rows.append(("nearest in the data", grid(_nearest(campaign, _events(best)), columns=_SHOWN)))
    by_round: dict[int, Entry] = {}
    for entry in made:
        by_round.setdefault(entry.round, entry)
    some = sorted(by_round)
    some = [some[k] for k in sorted({round(k) for k in np.linspace(0, len(some) - 1, _SHOWN)})]
    rows.append(
        (f"best of rounds {', '.join(map(str, some))}", grid(_events([by_round[r] for r in some]), columns=_SHOWN))
    )
    scores = ", ".join(number(entry.score or 0.0) or "–" for entry in best)
    return [report.Heading("The best"), report.Strips(rows, f"Scores of the best: {scores}.")]


def _nearest(campaign: Campaign, x: Tensor) -> Tensor:
    """Of each event the nearest of the data, by squares of differences."""
    least, nearest = torch.full((len(x),), torch.inf), torch.zeros(len(x), dtype=torch.int64)
    for part in torch.arange(len(campaign.data)).split(1024):
        known = campaign.data.batch(part).x.flatten(1)
        apart, place = torch.cdist(x.flatten(1), known).min(1)
        nearest = torch.where(apart < least, part[place], nearest)
        least = torch.minimum(least, apart)
    return campaign.data.batch(nearest).x


def _curves(
    campaign: Campaign, told: list[Entry], rounds: list[dict[str, Any]], known: np.ndarray
) -> list[report.Section]:
    """Scores as they came, what was predicted of them, and how they lie against those of the data."""
    own = [(k + 1.0, entry) for k, entry in enumerate(told) if entry.score is not None]
    place, scores = [k for k, _ in own], np.array([entry.score for _, entry in own], dtype=np.float64)
    merit = campaign.settings.merit(scores)
    so_far = scores[[int(merit[: k + 1].argmax()) for k in range(len(merit))]]
    predicted = [(k, entry.about["prediction"]) for k, entry in own if "prediction" in entry.about]
    lines = [("score", place, scores.tolist()), ("best so far", place, so_far.tolist())]
    lines.append(("predicted", [k for k, _ in predicted], [value for _, value in predicted]))
    level = campaign.settings.best_of(known) if len(known) else None
    shown = [
        report.Picture(
            plots.curves(lines, "candidate", "score", level=level),
            "Dashed: the best of the data. Where predictions stay above the scores, the search exploits its model.",
        )
    ]
    if len(known) > 1:
        sets = [("data", known.tolist()), ("candidates", scores.tolist())]
        shown.append(report.Picture(plots.overlaid(sets, "score"), "Scores of the data and of the candidates."))
    return [report.Heading("The scores"), report.Gallery(shown)]


def _rounds(campaign: Campaign, rounds: list[dict[str, Any]]) -> report.Table:
    entries = [entry for entry in campaign.told() if entry.origin == "asked"]
    rows: list[list[str | None]] = []
    for one in rounds:
        own = [entry for entry in entries if entry.round == one["round"]]
        searches = one["searches"]
        rows.append(
            [
                str(one["round"]),
                Path(one["run"]).name,
                number(campaign.settings.best_of(entry.score for entry in own)),
                number(_off(own)),
                f"{one['r2']:.2f}",
                str(one["trees"]),
                number(max((search["gap"] for search in searches), default=np.nan)),
                f"{sum(search['seconds'] for search in searches):.1f}",
                str(one["passed"]),
            ]
        )
    head = ("round", "prior", "best score", "off its prediction", "R2", "trees", "widest gap", "seconds", "passed over")
    return report.Table(
        head,
        rows,
        "R2 on held-out events. The gap is between what was found and what is proven to be above everything else.",
        words=2,
    )

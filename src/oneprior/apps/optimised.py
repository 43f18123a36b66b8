"""The pictures and the page of a campaign: the best by round, the curve of scores, every search's gap."""

from __future__ import annotations

import itertools
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
from oneprior.apps.molecules import drawn
from oneprior.apps.pictures import Picture, grid
from oneprior.core import AffineMap, Geometry
from oneprior.data import write_events
from oneprior.data.molecules import FORMAT, as_smiles
from oneprior.tasks.campaign.campaign import Campaign
from oneprior.tasks.campaign.ledger import Entry
from oneprior.tasks.campaign.shift import Shift

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

    def __call__(self, event: np.ndarray | str, folder: Path) -> Path:
        if isinstance(event, str):
            path = folder / "event.smi"
            path.write_text(f"{event}\n", encoding="utf-8")
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
    best, off = campaign.best(), _off(campaign, own)
    words = [
        f"round {last:3}",
        f"{len(told)} told",
        f"best {_words(best)}" if best is not None else "",
        f"this round {_words(reached)}" if (reached := _best_of(campaign, own)) else "all failed",
        "" if math.isnan(off) else f"predicted within {off:.3g}",
        f"R2 {about['r2']:.2f}, {about['trees']} trees" if about["trees"] else f"R2 {about['r2']:.2f}",
        f"gap {max((search['gap'] for search in about['searches']), default=0.0):.2g}",
    ]
    return "  ".join(filter(None, words))


def figures(campaign: Campaign) -> dict[str, Any]:
    """What `result.json` keeps."""
    best, told = campaign.best(), campaign.told()
    of_data = _best_of(campaign, campaign.ledger.entries(state="scored", origin="data"))
    return {
        "best": None if best is None else _plain(best),
        "best of the data": None if of_data is None else _plain(of_data),
        "told": len(told),
        "failed": sum(entry.state == "failed" for entry in told),
        "rounds": campaign.rounds,
        "widest gap": max((s["gap"] for r in campaign.ledger.rounds() for s in r["searches"]), default=0.0),
    }


def write_grid(campaign: Campaign, path: Path) -> Path:
    """The best candidates so far as one picture."""
    best = _made(campaign)[: _SHOWN * 2]
    return _drawn(campaign, _events(best)).save(path) if best else path


def write_pictures(campaign: Campaign, folder: Path) -> list[Path]:
    """The best candidates as files of the user's own kind."""
    best = _made(campaign)[: _SHOWN * 2]
    if not best:
        return []
    names = [f"{place:02}-candidate-{entry.id}" for place, entry in enumerate(best, 1)]
    write_events(_events(best), folder, campaign.run.units, campaign.run.geometry, names=names)
    return [folder]


def write_page(campaign: Campaign, path: Path, seed: int, near: Sequence[Shift] = ()) -> Path:
    """report.html.

    Args:
        campaign: whose.
        path: of the page.
        seed: in its foot.
        near: how far some events are from the group that is sought.
    """
    rounds, told, made = campaign.ledger.rounds(), campaign.told(), _made(campaign)
    known = campaign.ledger.entries(state="scored", origin="data")
    gaps = [search["gap"] for one in rounds for search in one["searches"]]
    proven = sum(search["status"] == "optimal" for one in rounds for search in one["searches"])
    cards = [*_reached(campaign, known, made), (f"{proven} of {len(gaps)}", "searches were proven optimal")]
    sections: list[report.Section] = [report.Cards(cards)]
    if made:
        sections += _pictures(campaign, made)
        sections += _curves(campaign, told, known) if len(campaign.objectives.each) == 1 else _clouds(campaign, known)
    if near:
        sections += _nearness(near)
    sections += [report.Heading("Every round"), _rounds(campaign, rounds)]
    if failed := [entry for entry in told if entry.state == "failed"]:
        sections.append(
            report.Table(
                ("candidate", "why it has no score"),
                [[str(e.id), e.note] for e in failed[:20]],
                f"{len(failed)} failed.",
            )
        )
    lead = f"{len(made)} candidates scored in {len(rounds)} rounds; the goal: {campaign.objectives.said}."
    seconds = sum(search["seconds"] for one in rounds for search in one["searches"])
    return report.Report("Beyond the data", sections, lead, foot(seed, seconds)).write(path)


def quarters(campaign: Campaign) -> list[tuple[str, Tensor]]:
    """The data, and the candidates in four parts as they came; names and events."""
    some = torch.linspace(0, len(campaign.data) - 1, min(len(campaign.data), 2000)).round().long()
    made = [entry for entry in campaign.told() if entry.origin == "asked"]
    parts = [part for part in np.array_split(np.arange(len(made)), 4) if len(part)]
    named = [(f"candidates {part[0] + 1} to {part[-1] + 1}", _events([made[k] for k in part])) for part in parts]
    return [("the data", campaign.data.batch(some).x), *named]


def _nearness(near: Sequence[Shift]) -> list[report.Section]:
    rows: list[list[str | None]] = [
        [one.name, str(one.n), f"{one.kernel:.4g} ± {one.error:.2g}", number(one.frechet)] for one in near
    ]
    head = ("events", "n", "kernel distance", "Frechet distance")
    said = "To real events of the group that is sought, which the prior has not seen: the smaller the nearer."
    return [report.Heading("Nearer to the group"), report.Table(head, rows, said)]


def _reached(campaign: Campaign, known: Sequence[Entry], made: Sequence[Entry]) -> list[tuple[str, str]]:
    """The best of all and of the data, or how much of the front is new."""
    if campaign.objectives.pareto:
        front = _front(campaign)
        new = sum(entry.origin != "data" for entry in front)
        return [(f"{new} of {len(front)}", "events that nothing known dominates are candidates")]
    best, record = campaign.best(), _best_of(campaign, known)
    cards = [("–" if best is None else _words(best), "the best score")]
    if record is None:
        return cards
    level = campaign.objectives.overall(campaign.scores_of([record]))
    beyond = int((campaign.objectives.overall(campaign.scores_of(made)) > level).sum())
    cards.append((_words(record), f"the best of {len(known)} scored events of the data"))
    return [*cards, (f"{beyond} of {len(made)}", "scored candidates are better than all of these")]


def _made(campaign: Campaign) -> list[Entry]:
    """Scored candidates and what was told beside them, the best first."""
    return [entry for entry in campaign.ranked() if entry.origin != "data"]


def _front(campaign: Campaign) -> list[Entry]:
    """What nothing known dominates."""
    every = campaign.ranked()
    return [
        entry
        for entry, value in zip(every, campaign.objectives.overall(campaign.scores_of(every)), strict=True)
        if not value
    ]


def _best_of(campaign: Campaign, entries: Sequence[Entry]) -> Entry | None:
    scored = [entry for entry in entries if entry.scores is not None]
    return scored[int(campaign.objectives.overall(campaign.scores_of(scored)).argmax())] if scored else None


def _words(entry: Entry) -> str:
    return ", ".join(number(score) or "–" for score in entry.scores or ())


def _plain(entry: Entry) -> float | list[float]:
    """As `result.json` has it."""
    scores = list(entry.scores or ())
    return scores[0] if len(scores) == 1 else scores


def _off(campaign: Campaign, entries: Sequence[Entry]) -> float:
    """By how much what was predicted differs from what came, on average; NaN where it is not known."""
    own = [entry for entry in entries if entry.scores is not None and "prediction" in entry.about]
    if campaign.objectives.pareto or not own:  # a round's own weighing is over with the round
        return math.nan
    scores = campaign.scores_of(own)
    reached = scores[:, 0] if scores.shape[1] == 1 else campaign.objectives.overall(scores)
    return float(np.abs(reached - [entry.about["prediction"] for entry in own]).mean())


def drawn_events(campaign: Campaign, entries: Sequence[Entry], columns: int = _SHOWN) -> Picture:
    """Candidates on a grid."""
    return _drawn(campaign, _events(entries), columns)


def best_strip(campaign: Campaign) -> list[report.Section]:
    """The best candidates so far, with their scores; nothing before there are any."""
    best = _made(campaign)[:_SHOWN]
    if not best:
        return []
    strip = report.Strips([("the best so far", drawn_events(campaign, best))], "; ".join(map(_words, best)))
    return [report.Heading("So far"), strip]


def _drawn(campaign: Campaign, x: Tensor, columns: int = _SHOWN) -> Picture:
    """Events in rows; molecules as formulas."""
    if campaign.run.geometry.format == FORMAT:
        return drawn(as_smiles(x, campaign.run.geometry.tokens), columns)
    return grid(x, columns=columns)


def _events(entries: Sequence[Entry]) -> Tensor:
    return torch.from_numpy(np.stack([entry.event for entry in entries if entry.event is not None]))


def _pictures(campaign: Campaign, made: list[Entry]) -> list[report.Section]:
    """The best, the nearest training event of each, and the best of some rounds."""
    best = made[:_SHOWN]
    rows: list[tuple[str, Picture]] = [("the best", _drawn(campaign, _events(best)))]
    rows.append(("nearest in the data", _drawn(campaign, _nearest(campaign, _events(best)))))
    by_round: dict[int, Entry] = {}
    for entry in made:
        by_round.setdefault(entry.round, entry)
    some = sorted(by_round)
    some = [some[k] for k in sorted({round(k) for k in np.linspace(0, len(some) - 1, _SHOWN)})]
    rows.append((f"best of rounds {', '.join(map(str, some))}", _drawn(campaign, _events([by_round[r] for r in some]))))
    return [report.Heading("The best"), report.Strips(rows, f"Scores of the best: {'; '.join(map(_words, best))}.")]


def _nearest(campaign: Campaign, x: Tensor) -> Tensor:
    """Of each event the nearest of the data, by squares of differences."""
    least, nearest = torch.full((len(x),), torch.inf), torch.zeros(len(x), dtype=torch.int64)
    for part in torch.arange(len(campaign.data)).split(1024):
        known = campaign.data.batch(part).x.flatten(1)
        apart, place = torch.cdist(x.flatten(1), known).min(1)
        nearest = torch.where(apart < least, part[place], nearest)
        least = torch.minimum(least, apart)
    return campaign.data.batch(nearest).x


def _curves(campaign: Campaign, told: Sequence[Entry], known: Sequence[Entry]) -> list[report.Section]:
    """Scores as they came, what was predicted of them, and how they lie against those of the data."""
    own = [(k + 1.0, entry) for k, entry in enumerate(told) if entry.scores is not None]
    place, found = [k for k, _ in own], campaign.scores_of([entry for _, entry in own])
    scores, merit = found[:, 0], campaign.objectives.overall(found)
    so_far = scores[[int(merit[: k + 1].argmax()) for k in range(len(merit))]]
    predicted = [(k, entry.about["prediction"]) for k, entry in own if "prediction" in entry.about]
    lines = [("score", place, scores.tolist()), ("best so far", place, so_far.tolist())]
    lines.append(("predicted", [k for k, _ in predicted], [value for _, value in predicted]))
    record = _best_of(campaign, known)
    shown = [
        report.Picture(
            plots.curves(lines, "candidate", "score", level=None if record is None else record.score),
            "Dashed: the best of the data. Where predictions stay above the scores, the search exploits its model.",
        )
    ]
    if len(known) > 1:
        sets = [("data", campaign.scores_of(known)[:, 0].tolist()), ("candidates", scores.tolist())]
        shown.append(report.Picture(plots.overlaid(sets, "score"), "Scores of the data and of the candidates."))
    return [report.Heading("The scores"), report.Gallery(shown)]


def _clouds(campaign: Campaign, known: Sequence[Entry]) -> list[report.Section]:
    """Each two objectives against each other: data, candidates, and what nothing known dominates."""
    names = campaign.objectives.names
    sets = [("data", known), ("candidates", _made(campaign))]
    sets += [("dominated by nothing", _front(campaign))] if campaign.objectives.pareto else []
    shown = []
    for a, b in itertools.islice(itertools.combinations(range(len(names)), 2), _SHOWN):
        clouds = [(label, [(float(s[a]), float(s[b])) for s in campaign.scores_of(own)]) for label, own in sets]
        shown.append(report.Picture(plots.scatter(clouds, names[a], names[b]), f"{names[a]} and {names[b]}."))
    scores = [*shown] if len(shown) == 1 else [report.Gallery(shown)]
    return [report.Heading("The scores"), *scores]


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
                _words(reached) if (reached := _best_of(campaign, own)) else "–",
                number(_off(campaign, own)),
                f"{one['r2']:.2f}",
                str(one["trees"]),
                number(max((search["gap"] for search in searches), default=np.nan)),
                f"{sum(search['seconds'] for search in searches):.1f}",
                str(one["passed"]),
                str(one.get("refused", 0)),
            ]
        )
    head = (
        "round",
        "prior",
        "best score",
        "off its prediction",
        "R2",
        "trees",
        "widest gap",
        "seconds",
        "unlikely",
        "refused",
    )
    return report.Table(
        head,
        rows,
        "R2 on held-out events. The gap is between what was found and what is proven to be above everything else. "
        "Unlikely: passed over for their probability; refused: they break a rule.",
        words=2,
    )

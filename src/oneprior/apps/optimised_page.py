"""The page of a campaign: the best and their pictures, the curve of scores, every round's search and its gap."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from oneprior.apps import plots, report
from oneprior.apps.evaluated import foot, number
from oneprior.apps.optimised import (
    SHOWN,
    TABLE,
    best_of,
    drawn_as,
    events_of,
    gallery,
    made_of,
    misprediction,
    words_of,
)
from oneprior.tasks.campaign.campaign import Campaign
from oneprior.tasks.campaign.ledger import Entry
from oneprior.tasks.campaign.shift import Shift
from oneprior.tasks.optimise import exhausted


def write_page(campaign: Campaign, path: Path, seed: int, seconds: float, near: Sequence[Shift] = ()) -> Path:
    """report.html.

    Args:
        campaign: whose.
        path: of the page.
        seed: in its foot.
        seconds: that the command took, in its foot.
        near: how far some events are from the group that is sought.
    """
    rounds, told, made = campaign.ledger.rounds(), campaign.told(), made_of(campaign)
    data = campaign.ledger.entries(origin="data")
    known = campaign.admitted([entry for entry in data if entry.state == "scored"])
    gaps = [search["gap"] for one in rounds for search in one["searches"]]
    proven = sum(search["status"] == "optimal" for one in rounds for search in one["searches"])
    cards = [*_reached(campaign, known, made), (f"{proven} of {len(gaps)}", "searches were proven optimal")]
    sections: list[report.Section] = [report.Cards(cards), *_in_vain(campaign, known, made)]
    if made:
        sections += _pictures(campaign, made)
        sections += _curves(campaign, told, known) if len(campaign.objectives.each) == 1 else _clouds(campaign, known)
    if near:
        sections += _nearness(near)
    sections += [report.Heading("Every round"), _rounds(campaign, rounds)]
    sections += _failures([entry for entry in [*told, *data] if entry.state == "failed"])
    sections += _again(campaign)
    failed = sum(entry.state == "failed" for entry in told)
    lead = f"{_counted(len(made), 'candidate')} scored in {_counted(len(rounds), 'round')}"
    lead += f", {failed} failed" if failed else ""
    lead += f"; the goal: {campaign.objectives.said}. All of them stand in {TABLE} beside this page."
    return report.Report("Beyond the data", sections, lead, foot(seed, seconds)).write(path)


def _again(campaign: Campaign) -> list[report.Section]:
    """What was searched, what scored it, and what was typed."""
    prior, by, lines = (campaign.ledger.recall(name) for name in ("prior", "scored_by", "typed"))
    if not lines:  # a campaign that no command began
        return []
    scorer = f"`{by['score'] or by['score_command']}`" if not by["person"] else "a person"
    told = f"Searched: the {prior}, beginning with {len(campaign.data):,} events. Scored by {scorer}."
    told += " Every candidate had to keep the rules of `--spec`." if campaign.admission else ""
    typed = "\n".join(line for line, _ in itertools.groupby(lines))
    return [report.Heading("Again"), report.Text(told), report.Command(typed, "What was typed, word for word:")]


def _counted(n: int, what: str) -> str:
    return f"{n} {what}" + "s" * (n != 1)


def _failures(failed: Sequence[Entry]) -> list[report.Section]:
    """What has no score, and why."""
    if not failed:
        return []
    rows = [[str(e.id) if e.row is None else f"row {e.row} of the data", e.note or "not finite"] for e in failed[:20]]
    more = f"{len(failed)} failed" + (", of which these are the first." if len(failed) > len(rows) else ".")
    return [report.Heading("Without a score"), report.Table(("candidate", "why it has no score"), rows, more, words=2)]


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
        front = campaign.front()
        new = sum(entry.origin != "data" for entry in front)
        return [(f"{new} of {len(front)}", "events that nothing known dominates are candidates")]
    best, record = campaign.best(), best_of(campaign, known)
    cards = [("–" if best is None else words_of(campaign, best), "the best score")]
    if record is None:
        return cards
    beyond = _beyond(campaign, record, made)
    which = "scored events of the data" + (" that keep the rules" if campaign.admission else "")
    cards.append((words_of(campaign, record), f"the best of {len(known)} {which}"))
    return [*cards, (f"{beyond} of {len(made)}", "scored candidates are better than all of these")]


def _beyond(campaign: Campaign, record: Entry, made: Sequence[Entry]) -> int:
    """Candidates that are better than the best of the data."""
    level = campaign.objectives.overall(campaign.scores_of([record]))
    return int((campaign.objectives.overall(campaign.scores_of(made)) > level).sum())


def _in_vain(campaign: Campaign, known: Sequence[Entry], made: Sequence[Entry]) -> list[report.Section]:
    """A plain word where there is no candidate, or none is better than the data."""
    record = best_of(campaign, known)
    if not made and campaign.rounds and not campaign.open():
        told = exhausted(campaign) if not campaign.told() else "all of them failed"
        return [report.Text(f"**No candidate has a score**: {told}.")]
    if campaign.objectives.pareto or record is None or not made:
        return []
    if _beyond(campaign, record, made):
        return []
    off = misprediction(campaign, made)
    told = "" if np.isnan(off) else f" Predictions were off by {off:.3g} on average."
    return [
        report.Text(
            f"**No candidate is better than the best of the data.**{told} More events with scores, a prior that keeps "
            "what the score measures, and a smaller `--radius` help."
        )
    ]


def _pictures(campaign: Campaign, made: list[Entry]) -> list[report.Section]:
    """The best, each above the nearest event of the data, and the best of some rounds."""
    best = made[:SHOWN]
    by_round: dict[int, Entry] = {}
    for entry in made:
        by_round.setdefault(entry.round, entry)
    some = sorted(by_round)
    some = [some[k] for k in sorted({round(k) for k in np.linspace(0, len(some) - 1, SHOWN)})]
    label = f"best of rounds {', '.join(map(str, some))}"
    title = "Dominated by the fewest" if campaign.objectives.pareto else "The best"
    return [
        report.Heading(title),
        report.Text("Below each stands what is nearest to it in the data."),
        gallery(campaign, best, _nearest(campaign, events_of(best))),
        report.Strips([(label, drawn_as(campaign, events_of([by_round[r] for r in some])))]),
    ]


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
    goal, record = campaign.objectives.each[0].goal, best_of(campaign, known)
    if isinstance(goal, str):
        level, dashed = None if record is None else record.score, "the best of the data"
    else:
        level, dashed = goal, "the target"
    said = f"Dashed: {dashed}. Where predictions stay above the scores, the search exploits its model."
    shown = [report.Picture(plots.curves(lines, "candidate", "score", level=level), said)]
    if len(known) > 1:
        sets = [("data", campaign.scores_of(known)[:, 0].tolist()), ("candidates", scores.tolist())]
        shown.append(report.Picture(plots.overlaid(sets, "score"), "Scores of the data and of the candidates."))
    return [report.Heading("The scores"), report.Gallery(shown)]


def _clouds(campaign: Campaign, known: Sequence[Entry]) -> list[report.Section]:
    """Each two objectives against each other: data, candidates, and what nothing known dominates."""
    names = campaign.objectives.names
    sets = [("data", known), ("candidates", made_of(campaign))]
    sets += [("dominated by nothing", campaign.front())] if campaign.objectives.pareto else []
    shown = []
    for a, b in itertools.islice(itertools.combinations(range(len(names)), 2), SHOWN):
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
                words_of(campaign, reached) if (reached := best_of(campaign, own)) else "–",
                number(misprediction(campaign, own)),
                f"{one['r2']:.2f}",
                f"{one['trees']} on {one['splits']}" if "splits" in one else str(one["trees"]),
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
        "predictions off by",
        "R2",
        "trees",
        "widest gap",
        "seconds of search",
        "unlikely",
        "refused",
    )
    return report.Table(
        head,
        rows,
        "Predictions are off by so much on average. R2 is that of held-out events. The gap is between what was found "
        "and what is proven to be above everything else. "
        "Unlikely: passed over for their probability; refused: they break a rule.",
        words=2,
    )

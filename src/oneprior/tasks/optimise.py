"""optimise: events of a higher score than any that was learned from.

    for state in optimise(campaign, evaluator, budget=500, batch=5): ...

One loop over `campaign.Campaign`: score what is known at the start, ask, score, tell, follow. Candidates that were
asked for and not told before a break are scored first. The states tell what has happened; a bar, a table or a page
consumes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from oneprior.core import InputError
from oneprior.tasks.campaign.campaign import Campaign, Candidate
from oneprior.tasks.campaign.ledger import Entry
from oneprior.tasks.campaign.presented import presented
from oneprior.tasks.campaign.scores import Evaluator, Outcome

_ROWS = 64
"""Rows of the data that are given out together."""
_TRIED = 8
"""Events after which a score that has failed for each of them is held for broken."""


@dataclass(frozen=True, eq=False)
class State:
    """What has just happened.

    Args:
        stage: "data" while the data are scored, "asked", "told", "training", "done".
        done: finished share of the whole, 0 to 1.
        said: in words.
        candidates: that were asked for.
        number: of the candidate that was told.
        outcome: of it.
    """

    stage: Literal["data", "asked", "told", "training", "done"]
    done: float
    said: str
    candidates: Sequence[Candidate] = ()
    number: int = 0
    outcome: Outcome | None = None


def score_data(campaign: Campaign, evaluator: Evaluator, rows: Sequence[int]) -> Iterator[State]:
    """Score rows of the data that have no score yet; each score is kept as it comes.

    Args:
        campaign: that keeps the scores.
        evaluator: that makes them.
        rows: of the data.

    Raises:
        InputError: for a score that fails for each of the first events.
    """
    known = {entry.row for entry in campaign.ledger.entries(origin="data")}
    left = [row for row in rows if row not in known]
    held: list[tuple[int, Outcome]] = []  # until one has a score: of a score that is broken nothing is kept
    working, failed, done = bool(known), 0, 0
    for start in range(0, len(left), _ROWS):
        some = left[start : start + _ROWS]
        x = presented(campaign.run, campaign.data.batch(torch.tensor(some)).x)
        for row, outcome in evaluator(dict(zip(some, x, strict=True))):
            done, failed = done + 1, failed + outcome.failed
            held.append((row, outcome))
            working = working or not outcome.failed
            if working:
                rows_held, outcomes = [row for row, _ in held], [outcome for _, outcome in held]
                campaign.score_data(rows_held, [one.scores for one in outcomes], [one.note for one in outcomes])
                held.clear()
            elif done >= min(_TRIED, len(left)):
                raise InputError(f"the score fails for each of the first {done} events of the data: {outcome.note}")
            said = f"{done} of {len(left)} events of the data scored"
            if failed:
                said += f", {failed} of them failed" + (f" (the last: {outcome.note})" if outcome.failed else "")
            yield State("data", done / len(left), said)


def optimise(campaign: Campaign, evaluator: Evaluator, *, budget: int, batch: int = 5) -> Iterator[State]:
    """Ask, score, tell and follow until the budget is spent.

    Args:
        campaign: begun or resumed, whose data have scores.
        evaluator: of candidates.
        budget: candidates in all, those of before a break among them.
        batch: that are asked for at once.

    Raises:
        InputError: for a budget or batch below 1, or scores that cannot be learned from.
    """
    if budget < 1 or batch < 1:
        raise InputError(f"budget and batch are at least 1, got {budget} and {batch}")
    yield from _scored(campaign, evaluator, campaign.open(), budget)
    while (told := campaign.spent) < budget:
        if campaign.due:
            for progress in campaign.retrain():
                yield State("training", told / budget, f"the prior follows: {progress.fraction:.0%}")
        candidates = campaign.ask(min(batch, budget - told))
        if not candidates:
            yield State("done", told / budget, exhausted(campaign))
            return
        said = (
            f"round {campaign.rounds}: {len(candidates)} asked, {candidates[0].prediction:.4g} predicted of the first"
        )
        yield State("asked", told / budget, said, candidates)
        yield from _scored(campaign, evaluator, campaign.open(), budget)
    yield State("done", 1.0, _reached(campaign))


def exhausted(campaign: Campaign) -> str:
    """Why no other candidate is allowed."""
    refused = [entry.note for entry in campaign.ledger.entries(origin="refused")]
    if refused:
        return (
            f"no other candidate is found that keeps the rules: {len(refused)} were refused (the last: {refused[-1]})"
        )
    radius = campaign.settings.radius
    near = "" if radius is None else f" within {radius} codes of the best (--radius)"
    rules = "" if campaign.settings.rules is None else " by the rules (--spec), as far as they are learned"
    return f"no other candidate is allowed{near}{rules}"


def _reached(campaign: Campaign) -> str:
    """What has come of it, in words."""
    best = campaign.best()
    if best is None or best.scores is None:
        return "nothing could be scored"
    if campaign.objectives.pareto:
        front = campaign.front()
        new = sum(entry.origin != "data" for entry in front)
        return f"{len(front)} known events are dominated by none, {new} of them candidates"
    names = campaign.objectives.names
    told = (
        words(best.scores)
        if len(names) == 1
        else ", ".join(f"{name} {words([score])}" for name, score in zip(names, best.scores, strict=True))
    )
    whose = "the best, which the data have," if best.origin == "data" else "the best"
    return f"{whose} has {told}"


def words(scores: Sequence[float]) -> str:
    """Scores to be read."""
    return ", ".join(f"{score:.4g}" for score in scores)


def _scored(campaign: Campaign, evaluator: Evaluator, entries: Sequence[Entry], budget: int) -> Iterator[State]:
    """Score open entries, and tell each as it comes."""
    events = {
        entry.id: presented(campaign.run, torch.from_numpy(entry.event)[None])[0]
        for entry in entries
        if entry.event is not None
    }
    for number, outcome in evaluator(events):
        campaign.tell(number, outcome.scores, outcome.note)
        said = outcome.note or f"candidate {number} has {words(outcome.scores)}"
        yield State("told", min(1.0, campaign.spent / budget), said, number=number, outcome=outcome)

"""A campaign: candidates from the latents of a prior, and what is learned from their scores.

    campaign = Campaign.begin("happy", run, data, Settings(goal="maximise"))
    campaign.score_data(rows, scores)             # what is known at the start
    for candidate in campaign.ask(5):
        campaign.tell(candidate.id, measure(candidate.event))
    for progress in campaign.retrain(): ...       # when it is due

Codes are searched exactly (`code_space`; Jung, Schwedhelm, Schillings, Keuper 2023), continuous latents in a trust
region (`noise_space`). The prior is then trained further on all events by the rank of their scores (`retraining`), and
everything is encoded anew. All that is needed to go on is on the disk after every `tell` (`ledger`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from oneprior.core import InputError, ShapeError, replacing
from oneprior.data import Dataset
from oneprior.data.extended import Extended
from oneprior.tasks.campaign.admission import Admission
from oneprior.tasks.campaign.code_space import CodeSpace
from oneprior.tasks.campaign.latents import Known, Latents, Proposal, Proposals
from oneprior.tasks.campaign.ledger import Entry, Ledger
from oneprior.tasks.campaign.noise_space import NoiseSpace
from oneprior.tasks.campaign.objectives import Objectives
from oneprior.tasks.campaign.presented import NOTHING, identities
from oneprior.tasks.campaign.retraining import retrain
from oneprior.tasks.campaign.settings import Settings
from oneprior.training import Progress, Run, load

_BATCH = 512


@dataclass(frozen=True, eq=False, kw_only=True)
class Candidate(Proposal):
    """What is asked for.

    Args:
        id: its number, for `tell`.
        event: x, (*event_shape) in [-1, 1].
    """

    id: int
    event: Tensor


class Campaign:
    """A campaign in its folder; `begin` makes one, `resume` goes on with one.

    Args:
        folder: of the campaign.
        ledger: its file.
        run: the prior as it is now.
        data: the events that it began with.
        settings: as they were at the beginning.
    """

    def __init__(self, folder: Path, ledger: Ledger, run: Run, data: Dataset, settings: Settings) -> None:
        if tuple(data.event_shape) != tuple(run.event_shape):
            raise ShapeError("the data of the campaign", tuple(data.event_shape), tuple(run.event_shape))
        self.folder, self.ledger, self.run, self.data, self.settings = folder, ledger, run, data, settings
        self.latents, self.admission = latents_of(run), Admission(settings.rules, run.units, run.geometry.tokens)
        self._points: np.ndarray | None = None
        self._own: frozenset[bytes] | None = None
        self._admitted: dict[int, bool] = {}

    @classmethod
    def begin(cls, folder: Path | str, run: Run, data: Dataset, settings: Settings = Settings()) -> Self:
        """A new campaign.

        Args:
            folder: that holds none yet.
            run: any prior: codes are searched exactly, continuous latents in a trust region.
            data: events to begin with, in the run's shape.
            settings: all there are.

        Raises:
            InputError: where the folder holds a campaign.
        """
        folder = Path(folder)
        latents_of(run).check(settings)  # refused before anything is written, as are rules that cannot be looked at
        Admission(settings.rules, run.units, run.geometry.tokens).broken(data.batch(torch.arange(1)).x)
        ledger = Ledger(folder, new=True)
        ledger.remember(settings=settings.to_json(), run=str(run.path.resolve()), rows=len(data))
        return cls(folder, ledger, run, data, settings)

    @classmethod
    def resume(cls, folder: Path | str, data: Dataset) -> Self:
        """Go on with a campaign, wherever it was broken off.

        Args:
            folder: of the campaign.
            data: the events that it began with.

        Raises:
            BadRunError: where the folder holds no campaign.
            InputError: for another number of events.
        """
        folder = Path(folder)
        ledger = Ledger(folder)
        if len(data) != ledger.recall("rows"):
            raise InputError(f"the campaign began with {ledger.recall('rows')} events, and these data have {len(data)}")
        run = load(folder / ledger.recall("run"))  # within the folder, which may be moved, or anywhere else
        return cls(folder, ledger, run, data, Settings.from_json(ledger.recall("settings")))

    def given_back(self, most: int = 200) -> float | None:
        """The share of sequences of the data that come back as they are from their latents: what a prior cannot write
        it cannot find. None of events that are no sequences."""
        if not self.run.geometry.tokens or not self.latents.encodes:
            return None
        some = torch.linspace(0, len(self.data) - 1, min(most, len(self.data))).round().long()
        x = self.data.batch(some).x
        both = (identities(self.run, one) for one in (x, self.latents.decode(self.latents.encode(x))))
        return float(np.mean([a == b for a, b in zip(*both, strict=True)]))

    # What is known --------------------------------------------------------------------------------------------------

    def score_data(
        self, rows: Sequence[int] | np.ndarray, scores: Sequence[Any] | np.ndarray, notes: Sequence[str] = ()
    ) -> None:
        """Scores of events of the data, by their rows; with one that is not finite an event counts as failed.

        Args:
            rows: (n,).
            scores: (n,), or (n, objectives).
            notes: (n,), why those that failed did; none by default.
        """
        rows, scores = np.asarray(rows), np.asarray(scores, dtype=np.float64)
        scores = scores[:, None] if scores.ndim == 1 else scores
        if rows.ndim != 1 or scores.shape != (len(rows), len(self.objectives.each)):
            needed = f"({len(rows)}, {len(self.objectives.each)})"
            raise ShapeError(f"the scores of {len(rows)} rows", scores.shape, needed, "One of each objective.")
        if len(rows) and (rows.min() < 0 or rows.max() >= len(self.data)):
            raise InputError(f"rows {rows.min()} .. {rows.max()} were scored, of data of {len(self.data)}")
        self.ledger.add_data(rows.tolist(), scores.tolist(), notes)

    def tell(self, number: int, score: float | Sequence[float], note: str = "") -> None:
        """The score of a candidate, by its number, or one of each objective; NaN for one that failed. What is told
        again replaces it."""
        self.ledger.score(number, self._one_each(score), note)

    def tell_event(self, event: Tensor, score: float | Sequence[float], note: str = "") -> int:
        """The score of an event that nobody asked for; its number.

        Args:
            event: x, (*event_shape) in [-1, 1].
            score: or one of each objective; NaN where it failed.
            note: why.
        """
        if event.shape != self.run.event_shape:
            raise ShapeError("an event that is told", tuple(event.shape), tuple(self.run.event_shape))
        scores = self._one_each(score)
        (number,) = self.ledger.add("told", self.rounds, event[None].cpu().numpy())
        self.ledger.score(number, scores, note)
        return number

    def _one_each(self, score: float | Sequence[float]) -> list[float]:
        found, names = np.atleast_1d(np.asarray(score, dtype=np.float64)), self.objectives.names
        if np.isnan(found).all():
            return [math.nan] * len(names)
        if found.shape != (len(names),):
            raise ShapeError("what is told", found.shape, f"({len(names)},)", f"One score of each: {', '.join(names)}.")
        return found.tolist()

    @property
    def rounds(self) -> int:
        """Rounds that were asked."""
        return len(self.ledger.rounds())

    def open(self) -> list[Entry]:
        """Candidates that were asked for and not told."""
        return self.ledger.entries(state="open")

    def told(self) -> list[Entry]:
        """Candidates and events that were told, in order."""
        return [e for e in self.ledger.entries() if e.origin in ("asked", "told") and e.state != "open"]

    @property
    def spent(self) -> int:
        """How much of a budget is used up: candidates that were asked for and told, failed ones among them."""
        return self.ledger.count("scored", "asked") + self.ledger.count("failed", "asked")

    @property
    def objectives(self) -> Objectives:
        """What it is after."""
        return self.settings.objectives

    def ranked(self) -> list[Entry]:
        """What was scored and keeps the rules, of the data and of the campaign, the best first; of a Pareto choice
        those first that the fewest dominate."""
        scored = self.admitted(self.ledger.entries(state="scored"))
        order = np.argsort(-self.objectives.overall(self.scores_of(scored)), kind="stable")
        return [scored[k] for k in order]

    def best(self) -> Entry | None:
        """The best that was told, of the data or of the campaign; None before any was."""
        return next(iter(self.ranked()), None)

    def front(self) -> list[Entry]:
        """What nothing known dominates; of one score, all that reach the best."""
        every = self.ranked()
        merit = self.objectives.overall(self.scores_of(every))
        return [entry for entry, own in zip(every, merit, strict=True) if own == merit[0]]

    def admitted(self, entries: Sequence[Entry]) -> list[Entry]:
        """Those that keep the rules of the campaign: of the data some may not."""
        if self.admission:
            new = [entry for entry in entries if entry.id not in self._admitted]
            for some in (new[k : k + _BATCH] for k in range(0, len(new), _BATCH)):
                broken = self.admission.broken(self._events(some))
                self._admitted |= {entry.id: not rule for entry, rule in zip(some, broken, strict=True)}
        return [entry for entry in entries if self._admitted.get(entry.id, True)]

    def _events(self, entries: Sequence[Entry]) -> Tensor:
        """x of entries, of the data and of the campaign, (n, *event_shape)."""
        x = torch.empty(len(entries), *self.run.event_shape)
        rows = {k: entry.row for k, entry in enumerate(entries) if entry.event is None and entry.row is not None}
        if rows:
            x[list(rows)] = self.data.batch(torch.tensor(list(rows.values()))).x.to(x)
        for k, entry in enumerate(entries):
            if entry.event is not None:
                x[k] = torch.from_numpy(entry.event)
        return x

    def data_scores(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the data that were scored, (n,), and their scores, (n, objectives)."""
        return self.ledger.data_scores(len(self.objectives.each))

    def scores_of(self, entries: Sequence[Entry]) -> np.ndarray:
        """Of scored entries, (n, objectives)."""
        found = [entry.scores for entry in entries if entry.scores is not None]
        return np.array(found, dtype=np.float64).reshape(len(found), len(self.objectives.each))

    # Asking ---------------------------------------------------------------------------------------------------------

    def ask(self, count: int = 1) -> list[Candidate]:
        """The best candidates that are not known yet, different from each other.

        Args:
            count: how many; fewer come where the constraints allow no more.

        Raises:
            InputError: where the scores cannot be learned from.
        """
        if count < 1:
            raise InputError(f"at least one candidate is asked for, got {count}")
        number = self.rounds + 1
        proposals = self.latents.propose(self._known(number), self.settings, number, count)
        return self._written(number, proposals)

    def _known(self, number: int) -> Known:
        """All that was measured, as points of the present run."""
        rows, scores = self.data_scores()
        data = self._data_points()
        entries = [entry for entry in self.ledger.entries() if entry.origin != "data"]
        made = np.empty((len(entries), self.latents.numbers))
        if entries:
            made = self.latents.encode(torch.from_numpy(np.stack([e.event for e in entries if e.event is not None])))
        for k, entry in enumerate(entries):  # what this very prior has drawn is known by what it was drawn from
            if entry.point is not None and entry.about.get("prior") == self.run.name:
                made[k] = entry.point
        scored = np.array([entry.state == "scored" for entry in entries], dtype=bool)
        every = np.concatenate([scores, self.scores_of(entries)])
        alike = [name for name, own in zip(self.objectives.names, every.T, strict=True) if len(own) and not np.ptp(own)]
        if alike:
            value = every[0, self.objectives.names.index(alike[0])]
            which = f" of {alike[0]}" if len(self.objectives.each) > 1 else ""
            raise InputError(f"all {len(every)} scores{which} are {value:g}: there is nothing to learn from them")
        searched, goal = self.objectives.of_round(every, self.settings.seed, number)
        return Known(
            np.concatenate([data[rows], made[scored]]),
            searched,
            goal,
            np.concatenate([data, made]),
            data,
            self._successes(scores, entries),
            self.admission,
            self._taken(entries),
            int(scored.sum()),
        )

    def _taken(self, entries: Sequence[Entry]) -> frozenset[bytes]:
        """What was asked for or told, the molecules of the data, which two grids of codes may well share, and none."""
        if self._own is None:
            parts = torch.arange(len(self.data)).split(_BATCH) if self.run.geometry.tokens else ()
            own = (one for part in parts for one in identities(self.run, self.data.batch(part).x))
            self._own = frozenset({NOTHING, *own})
        made = [torch.from_numpy(entry.event)[None] for entry in entries if entry.event is not None]
        return self._own | frozenset(identities(self.run, torch.cat(made)) if made else ())

    def _successes(self, scores: np.ndarray, entries: Sequence[Entry]) -> list[bool]:
        """Whether each round found something better than all that was known before it."""
        before, found = scores if self.latents.encodes else scores[:0], []
        for number in range(1, self.rounds + 1):
            own = self.scores_of([entry for entry in entries if entry.round == number])
            found.append(self.objectives.better(before, own))
            before = np.concatenate([before, own])
        return found

    def _data_points(self) -> np.ndarray:
        """The data as codes of the present run, encoded once for each run and kept."""
        if self._points is not None:
            return self._points
        if not self.latents.encodes:
            self._points = np.full((len(self.data), self.latents.numbers), np.nan)
            return self._points
        path = self.folder / "codes" / f"{self.run.path.name}.npy"
        if path.exists():
            points = np.load(path, allow_pickle=False).astype(np.float64)
        else:
            parts = torch.arange(len(self.data)).split(_BATCH)
            points = np.concatenate([self.latents.encode(self.data.batch(part).x) for part in parts])
            with replacing(path) as partial:
                np.save(partial, points.astype(np.float32))
        self._points = points
        return points

    def _written(self, number: int, proposals: Proposals) -> list[Candidate]:
        """The round and its candidates, on the disk."""
        found = proposals.found
        searches = [{"status": one.status, "gap": one.gap, "seconds": one.seconds} for one in found]
        self.ledger.add_round(number, {**proposals.about, "searches": searches, "run": self.run.name})
        if proposals.refused:
            self._refused(number, proposals.refused)
        if not found:
            return []
        points = np.stack([one.point for one in found])
        events = self.latents.decode(points)
        kept = [
            {**{name: value for name, value in vars(one).items() if name != "point"}, "prior": self.run.name}
            for one in found
        ]
        numbers = self.ledger.add("asked", number, events.numpy(), points, kept)
        return [Candidate(id=k, event=event, **vars(one)) for k, event, one in zip(numbers, events, found, strict=True)]

    def _refused(self, number: int, refused: Sequence[tuple[np.ndarray, str]]) -> None:
        """Remember what broke a rule: it is known, and never asked for."""
        points = np.stack([point for point, _ in refused])
        about = [{"prior": self.run.name}] * len(points)
        numbers = self.ledger.add("refused", number, self.latents.decode(points).numpy(), points, about)
        for entry, (_, rule) in zip(numbers, refused, strict=True):
            self.tell(entry, math.nan, f"it breaks the rule {rule!r}")

    # Following ------------------------------------------------------------------------------------------------------

    @property
    def due(self) -> bool:
        """Whether the prior is to be trained before the next round."""
        every = self.settings.retrain_every
        return bool(every) and len(self.told()) - self.ledger.recall("retrained_at", 0) >= every

    def retrain(self) -> Iterator[Progress]:
        """Train the prior further on all events by the ranks of their scores; it then takes the place of the present.

        Where it was broken off, it goes on.
        """
        told = self.told()
        number = self.ledger.recall("retrained", 0) + 1
        rows, scores = self.data_scores()
        merit = np.full(len(self.data) + len(told), np.nan)
        scored = [k for k, entry in enumerate(told) if entry.scores is not None]
        places = np.concatenate([rows, len(self.data) + np.array(scored, dtype=np.int64)])
        merit[places] = self.objectives.overall(np.concatenate([scores, self.scores_of(told)]))
        data: Dataset = self.data
        if told:
            data = Extended(self.data, torch.from_numpy(np.stack([e.event for e in told if e.event is not None])))
        out = self.folder / f"prior-{number:03}"
        asked = self.settings
        share, seed = asked.first_share if number == 1 else asked.share, asked.seed + number
        yield from retrain(self.run, data, merit, out, k=asked.rank_k, share=share, rate=asked.rate, seed=seed)
        self.ledger.remember(run=out.name, retrained=number, retrained_at=len(told))
        self.run = load(out)
        self.latents, self._points = latents_of(self.run), None


def latents_of(run: Run) -> Latents:
    """What is searched of a run: its codes where it has some, else its continuous noise."""
    return CodeSpace(run) if run.model.coded else NoiseSpace(run)

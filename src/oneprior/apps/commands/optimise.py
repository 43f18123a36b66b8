"""`oneprior optimise`: events of a higher score than any that was learned from."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from oneprior.apps import screen
from oneprior.apps.command import Command, Mistake, Outcome, Stopped
from oneprior.apps.optimise_options import KEPT, Search, objective, setting, told_as
from oneprior.apps.record import check_place, typed
from oneprior.core import InputError

if TYPE_CHECKING:
    from oneprior.data import Dataset
    from oneprior.tasks.campaign.campaign import Campaign
    from oneprior.tasks.campaign.objectives import Objectives
    from oneprior.tasks.campaign.scores import Evaluator, Score
    from oneprior.tasks.campaign.settings import Settings
    from oneprior.tasks.campaign.shift import Shift
    from oneprior.tasks.optimise import State
    from oneprior.training import Run


_SCORED = "give one of --score module:function, --score-command '...', --by-hand and --by-page"
_GIVEN_BACK = 0.5
"""Share of sequences that a prior gives back, below which it is told."""


@dataclass(frozen=True, kw_only=True)
class Optimise(Command):
    """Ask for events of a higher score than any known, score them, learn, and ask again.

    Of a vqvae an ensemble of trees learns the score from the codes of scored events, the grid of codes that it rates
    highest is found exactly, and the prior is trained further on what scores high; other families are searched in their
    noise, without a proof. Everything is kept in --out after every score: run the same command with --resume to go on
    after a break.

    Args:
        run: a trained prior: a vqvae is searched exactly.
        data: the events to begin with; those that the run was trained on where not given.
        score: module:function, one event -> a number: an array in the data's units, the SMILES of a molecule, the notes
            of each voice of music.
        score_command: a command that is given a picture (in place of {}, or last) and prints a number.
        by_hand: a person scores: each round's pictures lie in --out with a sheet to fill in; go on with --resume.
        by_page: a person scores on a page in a browser of this machine.
        port: of that page; any that is free where not given.
        scores: a sheet (CSV, columns file and score) of the scores that events of the data have already.
        score_time: seconds that one score may take.
        workers: processes that score.
        dask: score on a Dask cluster: the address of its scheduler, or local.
        initial: events of the data that are scored at the beginning, evenly spread.
        budget: candidates in all; with --resume as many as before where not given.
        batch: candidates of a round; with --resume as many as before where not given.
        maximise: look for the highest score, which is the rule.
        minimise: look for the lowest score.
        target: look for this score.
        objective: of several scores, each: NAME=maximise, NAME=minimise or NAME=NUMBER; may be repeated. With a weight
            of each (NAME=maximise:2) their weighed sum is sought, without weights their Pareto front.
        spec: a YAML file of specifications of single events, which every candidate must keep.
        group: real events of what is sought, never shown to the prior: the page tells how near the candidates come.
        features: that these are compared by (see `evaluate`); principal components by default.
        retrain_every: candidates between two trainings of the prior; 0 to leave it as it is.
        rank_k: how evenly events count in training: 0.001 for the best thousandth above all, inf for all alike.
        retrain_share: share of the events that a training sees, after the first.
        retrain_rate: of the recipe's learning rate: more follows the scores faster, and forgets more.
        resume: go on with the campaign in --out.
        out: the folder of the campaign and its report.html.
        search: how candidates are found.
    """

    run: tyro.conf.Positional[Path]
    data: Path | None = None
    score: str | None = None
    score_command: str | None = None
    by_hand: bool = False
    by_page: bool = False
    port: int = 0
    scores: Path | None = None
    score_time: float = 60.0
    workers: int = 1
    dask: str | None = None
    initial: int = 2000
    budget: int = 500
    batch: int = 5
    maximise: bool = False
    minimise: bool = False
    target: float | None = None
    objective: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    spec: Path | None = None
    group: Path | None = None
    features: str | None = None
    retrain_every: int = 5
    rank_k: float = 1e-3
    retrain_share: float = 0.1
    retrain_rate: float = 0.1
    resume: bool = False
    out: Path
    search: Search = field(default_factory=Search)

    def execute(self) -> Outcome:
        objectives = self._objectives()
        given = sum((self.score is not None, self.score_command is not None, self.by_hand, self.by_page))
        if given > 1 or not (given or self.resume):
            raise Mistake(_SCORED)
        if self._by_person and self.scores is None and not self.resume:
            flag = "--by-hand" if self.by_hand else "--by-page"
            raise Mistake(f"{flag} needs the scores of some of the data to begin with: give --scores FILE.csv")
        for name in ("budget", "batch", "workers", "initial"):
            if (value := getattr(self, name)) < 1:
                raise Mistake(f"--{name} must be at least 1, got {value}")
        if self.score_time <= 0:
            raise Mistake(f"--score-time must be above 0, got {self.score_time:g}")
        if self.resume:
            return self._as_begun()._carried_out(objectives)
        check_place(self.out, self)
        if (self.out / "campaign.sqlite").exists():
            raise Mistake(f"{self.out} holds a campaign; go on with it (--resume), or give another --out")
        return self._carried_out(objectives)

    def _as_begun(self) -> Optimise:
        """This command with the data, score, budget and batch that the campaign has, where none are given.

        Raises:
            Mistake: for another score.
        """
        from oneprior.tasks.campaign.ledger import Ledger

        ledger = Ledger(self.out)
        data, begun, pace = ledger.recall("data"), ledger.recall("scored_by", {}), ledger.recall("pace", {})
        ledger.close()
        own = self._scored_by
        if begun and any(own.values()) and own != begun:
            said = next((f"--{name.replace('_', '-')} {value}" for name, value in begun.items() if value), "a person")
            raise Mistake(f"the campaign in {self.out} is scored by {said}, and stays so: begin another one")
        told = {} if any(own.values()) or self._by_person else {k: v for k, v in begun.items() if k != "person"}
        known = Path(data) if self.data is None and data is not None else self.data
        as_before = {name: value for name, value in pace.items() if name not in self.given}
        found = replace(self, data=known, **told, **as_before)
        if not (found.score or found.score_command or found._by_person):
            raise Mistake(_SCORED)
        return found

    @property
    def _scored_by(self) -> dict[str, Any]:
        """What scores, as the ledger keeps it."""
        return {"score": self.score, "score_command": self.score_command, "person": self._by_person}

    def _unchanged(self, begun: Settings) -> None:
        """Refuse to change what a campaign keeps from its beginning; what is not told again stays as it was.

        Raises:
            Mistake: for an option that is told and differs.
        """
        told = (self.maximise, self.minimise, self.target is not None, self.objective)
        if any(told) and self._objectives() != begun.objectives:
            raise Mistake(f"the campaign in {self.out} is to {begun.objectives.said}, and stays so: begin another one")
        usual = type(self)(run=self.run, out=self.out)
        asked, plain, kept = (
            one.to_json() for one in (self._settings(begun.objectives), usual._settings(begun.objectives), begun)
        )
        for flag, path in KEPT.items():
            new, old = setting(asked, path), setting(kept, path)
            if new not in (setting(plain, path), old):
                other = "others" if path == "rules" else told_as(path, new)
                own = told_as(path, old)
                raise Mistake(f"{flag} {other}: the campaign in {self.out} began with {own}, and stays so")

    def _objectives(self) -> Objectives:
        from oneprior.tasks.campaign.objectives import Objective, Objectives

        if sum((self.maximise, self.minimise, self.target is not None, bool(self.objective))) > 1:
            raise Mistake("--maximise, --minimise, --target and --objective exclude each other")
        if self.objective:
            return Objectives(tuple(objective(words) for words in self.objective))
        goal = self.target if self.target is not None else "minimise" if self.minimise else "maximise"
        return Objectives((Objective(goal=goal),))

    def _carried_out(self, objectives: Objectives) -> Outcome:
        from oneprior.tasks.campaign.campaign import Campaign
        from oneprior.training import load

        start = time.perf_counter()
        run = load(self.run, device=self.common.torch_device())
        data = self._data(run)
        resumed = Campaign.resume(self.out, data) if self.resume else None
        if resumed is not None:
            self._unchanged(resumed.settings)
            objectives = resumed.objectives
        score = None if self._by_person else self._score(run, len(objectives.each))
        campaign = resumed or self._begun(run, data, objectives)
        self._remember(campaign, run)
        spent = not self._by_person and campaign.spent >= self.budget
        try:
            if score is not None:
                said = self._by_score(campaign, score)
            else:
                said = self._by_hand(campaign) if self.by_hand else self._by_page(campaign)
        except Stopped as stop:  # with a page of what there is
            raise Stopped(str(stop), self._shown(campaign, str(stop), start)) from None
        if spent:
            said = f"the budget of {self.budget} is spent: give a larger --budget to go on; {said}"
        return self._shown(campaign, said, start)

    def _remember(self, campaign: Campaign, run: Run) -> None:
        """For the page: the prior, what scores, and what was typed; also of a campaign that Python began."""
        ledger = campaign.ledger
        prior = ledger.recall("prior", f"{run.family} `{self.run}`")
        pace, lines = {"budget": self.budget, "batch": self.batch}, [*ledger.recall("typed", []), typed()]
        ledger.remember(prior=prior, scored_by=self._scored_by, typed=lines, pace=pace)

    def _begun(self, run: Run, data: Dataset, objectives: Objectives) -> Campaign:
        """A new campaign, which knows the scores of the sheet."""
        from oneprior.tasks.campaign.campaign import Campaign
        from oneprior.tasks.campaign.ratings import data_scores

        known = None if self.scores is None else data_scores(self.scores, data, objectives.names)
        campaign = Campaign.begin(self.out, run, data, self._settings(objectives))
        place = None if self.data is None else str(self.data.expanduser().resolve())
        campaign.ledger.remember(data=place, scored_by=self._scored_by)
        if known is not None:
            campaign.score_data(*known)
        return campaign

    @property
    def _by_person(self) -> bool:
        return self.by_hand or self.by_page

    def _by_page(self, campaign: Campaign) -> str:
        """Serve the page until the budget is spent; the last words."""
        from oneprior.apps.rating_page import RatingPage

        page = RatingPage(campaign, budget=self.budget, batch=self.batch, port=self.port)
        screen.say(f"rate the pictures at {page.address} (Ctrl-C to stop; every score is kept)")
        try:
            page.serve()
        except KeyboardInterrupt:
            raise Stopped(f"stopped; every score is kept in {self.out}: go on with --resume") from None
        return f"{campaign.spent} candidates are rated"

    def _shown(self, campaign: Campaign, said: str, start: float) -> Outcome:
        from oneprior.apps.optimised import TABLE, figures, write_pictures, write_table
        from oneprior.apps.optimised_page import write_page

        near, seconds = self._nearness(campaign), time.perf_counter() - start
        page = write_page(campaign, self.out / "report.html", self.common.seed, seconds, near)
        sheet = write_table(campaign, self.out / TABLE)
        outputs, found = (page, sheet, *write_pictures(campaign, self.out / "best")), figures(campaign)
        if failed := found["failed"] + found["failed of the data"]:
            said += f"; {failed} score{'s' * (failed > 1)} failed, and {page.name} says why"
        return Outcome(self.out, outputs, found, said, status=int(not self._by_person and not found["told"]))

    def _nearness(self, campaign: Campaign) -> list[Shift]:
        """How far data and candidates are from the group that is sought."""
        import torch

        from oneprior.apps.optimised import quarters
        from oneprior.evaluation import open_features
        from oneprior.tasks.campaign.shift import shifts
        from oneprior.tasks.real import open_real

        if self.group is None:
            return []
        data = open_real(campaign.run, self.group)
        group = data.batch(torch.arange(len(data))).x
        numbers = campaign.run.event_shape.numel()
        features = open_features(self.features or f"pca:{max(1, min(64, numbers // 2, len(group) // 4))}", group)
        return shifts(group, quarters(campaign), features, self.common.seed)

    def _by_score(self, campaign: Campaign, score: Score) -> str:
        """Until the budget is spent; the last words."""
        from oneprior.tasks.campaign.scores import Evaluator, on_dask

        last = len(campaign.data) - 1
        rows = sorted({round(k * last / max(1, self.initial - 1)) for k in range(self.initial)})
        rows = campaign.ledger.recall("initial", [] if self.scores is not None else rows)
        campaign.ledger.remember(initial=rows)  # of a campaign that goes on, those of its beginning
        cluster = None if self.dask is None else on_dask(self.dask, self.workers)
        names = campaign.objectives.names
        with Evaluator(
            score, executor=cluster, workers=self.workers, seconds=self.score_time, names=names
        ) as evaluator:
            states = self._states(campaign, evaluator, rows)
            try:
                self._enough(campaign, rows)
                return screen.track(states, "optimise", lambda s: s.done, lambda s: s.said).said
            except KeyboardInterrupt:
                raise Stopped(f"stopped; every score is kept in {self.out}: go on with --resume") from None
            except InputError:
                if not campaign.ledger.entries():  # nothing was scored: the same command may be mended and given again
                    campaign.ledger.discard()
                raise

    def _enough(self, campaign: Campaign, rows: Sequence[int]) -> None:
        """Refuse too few events before any is scored, and tell of a prior that does not give its own data back."""
        fewest = campaign.latents.fewest(campaign.settings)
        if self.scores is None and len(rows) < fewest:
            raise InputError(
                f"--initial {len(rows)} are too few for a tree whose leaves hold {campaign.settings.trees.least} "
                f"(--leaf): score at least {fewest}"
            )
        if campaign.run.model.coded:
            codes = campaign.latents.numbers
            screen.say(f"an event has {codes} codes, to which --radius, --apart and --distance refer")
        kept = campaign.given_back()
        if kept is not None and kept < _GIVEN_BACK:
            screen.say(
                f"the prior gives {100 * kept:.0f} % of the data back as they are, and what it cannot write it cannot "
                "find: train it for longer (--images, --minutes), or with more --codes"
            )

    def _by_hand(self, campaign: Campaign) -> str:
        """Take the scores of the last round, and lay out the next; the last words."""
        from oneprior.apps.optimised import PictureOf
        from oneprior.tasks.campaign.ratings import tell_round, write_round

        folder = self.out / "by-hand" / f"round-{campaign.rounds:03}"
        if campaign.rounds and (left := tell_round(campaign, folder)):
            return f"{left} pictures in {folder} have no score yet: fill in {folder / 'scores.csv'}, then --resume"
        told = campaign.spent
        if told >= self.budget:
            return f"the budget of {self.budget} is spent"
        if campaign.due:
            screen.track(campaign.retrain(), "the prior follows", lambda p: p.fraction)
        campaign.ask(min(self.batch, self.budget - told))
        picture = PictureOf(campaign.run.units, campaign.run.geometry)
        sheet = write_round(campaign, picture.of_model, self.out / "by-hand" / f"round-{campaign.rounds:03}")
        return f"look at the pictures in {sheet.parent}, fill in {sheet}, then run this again with --resume"

    def _states(self, campaign: Campaign, evaluator: Evaluator, rows: list[int]) -> Iterator[State]:
        """The loop, with a line of the table and the picture of the best after each round."""
        from oneprior.apps.optimised import TABLE, line, write_grid, write_table
        from oneprior.tasks.optimise import optimise, score_data

        yield from score_data(campaign, evaluator, rows)
        for state in optimise(campaign, evaluator, budget=self.budget, batch=self.batch):
            if (state.stage == "asked" and campaign.rounds > 1) or state.stage == "done":
                screen.say(line(campaign))
                write_grid(campaign, self.out / "best.png")
                write_table(campaign, self.out / TABLE)
            yield state

    def _data(self, run: Run) -> Dataset:
        from oneprior.tasks.real import open_real, own_data

        data = own_data(run)[0] if self.data is None else open_real(run, self.data)
        if data is None:
            raise Mistake(f"the data that {run.name} was trained on are gone: give events to begin with, --data")
        return data

    def _score(self, run: Run, count: int) -> Score:
        from oneprior.apps.optimised import PictureOf
        from oneprior.tasks.campaign.scores import CommandScore, FunctionScore

        if self.score is not None:
            return FunctionScore(self.score)
        assert self.score_command is not None
        return CommandScore(self.score_command, PictureOf(run.units, run.geometry), count)

    def _settings(self, objectives: Objectives) -> Settings:
        from oneprior.evaluation.specifications.language import read_content

        return self.search.settings(
            objectives=objectives,
            rules=None if self.spec is None else read_content(self.spec),
            retrain_every=self.retrain_every,
            rank_k=self.rank_k,
            share=self.retrain_share,
            rate=self.retrain_rate,
            seed=self.common.seed,
        )

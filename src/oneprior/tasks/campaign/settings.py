"""How a campaign searches, follows and stops; kept with it, so that it goes on as it began."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from oneprior.core import InputError
from oneprior.inference.search.surrogate import Trees
from oneprior.tasks.campaign.objectives import Objectives


@dataclass(frozen=True)
class Settings:
    """The settings of a campaign.

    Args:
        objectives: what the scores are and what they should be; one that is maximised by default.
        trees: of the surrogate.
        best: events of highest score that the surrogate is fitted to.
        others: events that it is fitted to beside them, drawn from the rest anew in every round.
        own_share: weight of the campaign's own measurements in the fit, as a share of all, at least; each counts for 40
            of the data at most. 0 where all count alike.
        radius: codes that may differ from one of `centres` events; None for no ball.
        centres: the best events around which balls lie.
        where: the part of an event in which its codes may differ from those of `centres`: of each spatial axis the
            first entry and that behind the last; None for all of it.
        apart: codes in which the candidates of one round differ from each other, at least; a sixteenth where None.
        distance: weight of the distance to the nearest event, for exploring.
        spread: weight of the members' disagreement, for exploring.
        realism: weight of a code's log-probability at its place among the data, in the program.
        unlikely: share of the data below whose log-probability, by the token prior, a candidate is passed over; None
            to take all.
        rules: what every candidate must keep: the content of a file of specifications.
        splits: what the trees see of a code: "codes", its number; "shared", its number, and before it what a code is
            worth wherever it stands; "codebook", its vector; or "better", whichever predicts held-out scores best,
            found in every round.
        exact: whether searches are proven; else they are local, and their bounds those of the trees one by one.
        seconds: limit of time of one search.
        retrain_every: candidates told between two trainings of the prior; 0 for never.
        rank_k: of the weights of training; see `retraining`.
        share: of the events that a training draws.
        first_share: that the first one draws.
        rate: of the recipe's learning rate that a training has.
        seed: of all that is drawn.
    """

    objectives: Objectives = field(default_factory=Objectives)
    trees: Trees = field(default_factory=Trees)
    best: int = 2000
    others: int = 8000
    own_share: float = 0.0
    radius: int | None = None
    centres: int = 10
    where: tuple[tuple[int, int], ...] | None = None
    apart: int | None = None
    distance: float = 0.0
    spread: float = 0.0
    realism: float = 0.0
    unlikely: float | None = 0.001
    rules: Any = None
    splits: str = "better"
    exact: bool = True
    seconds: float = 60.0
    retrain_every: int = 5
    rank_k: float = 1e-3
    share: float = 0.1
    first_share: float = 1.0
    rate: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("distance", "spread", "realism", "retrain_every", "rank_k", "share", "first_share"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} must be 0 or more, got {getattr(self, name)}")
        for name in ("centres", "best", "apart", "radius"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise InputError(f"{name} must be at least 1, got {value}")
        for name in ("seconds", "rate"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name} must be above 0, got {getattr(self, name):g}")
        if self.unlikely is not None and not 0 < self.unlikely < 1:
            raise InputError(f"unlikely must be a share between 0 and 1, got {self.unlikely:g}")
        if not 0 <= self.own_share < 1:
            raise InputError(f"own_share must be a share from 0 to below 1, got {self.own_share:g}")
        if self.splits not in ("better", "codes", "shared", "codebook"):
            raise InputError(f"splits are 'codes', 'shared', 'codebook' or 'better', not {self.splits!r}")
        if self.spread and self.trees.members < 2:
            raise InputError("spread needs several ensembles that may disagree: give `members` of 2 or more")

    def to_json(self) -> dict[str, Any]:
        """As JSON has it; `from_json` reads it."""
        return {**asdict(self), "objectives": self.objectives.to_json()}

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Settings:
        """What `to_json` wrote."""
        objectives, trees = Objectives.from_json(told["objectives"]), Trees(**told["trees"])
        where = told.get("where") and tuple((first, end) for first, end in told["where"])
        return cls(**{**told, "objectives": objectives, "trees": trees, "where": where})

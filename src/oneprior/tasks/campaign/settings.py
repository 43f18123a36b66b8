"""How a campaign searches, follows and stops; kept with it, so that it goes on as it began."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from oneprior.core import InputError
from oneprior.inference.search.objective import Goal
from oneprior.inference.search.surrogate import Trees


@dataclass(frozen=True)
class Settings:
    """The settings of a campaign.

    Args:
        goal: "maximise", "minimise" or a number that the score is to come near to.
        trees: of the surrogate.
        best: events of highest score that the surrogate is fitted to.
        others: events that it is fitted to beside them, drawn from the rest anew in every round.
        radius: codes that may differ from one of `centres` events; None for no ball.
        centres: the best events around which balls lie.
        apart: codes in which the candidates of one round differ from each other, at least.
        distance: weight of the distance to the nearest event, for exploring.
        spread: weight of the members' disagreement, for exploring.
        realism: weight of a code's log-probability at its place among the data, in the program.
        unlikely: share of the data below whose log-probability, by the token prior, a candidate is passed over; None
            to take all.
        seconds: limit of time of one search.
        retrain_every: candidates told between two trainings of the prior; 0 for never.
        rank_k: of the weights of training; see `retraining`.
        share: of the events that a training draws.
        first_share: that the first one draws.
        seed: of all that is drawn.
    """

    goal: str | float = "maximise"
    trees: Trees = field(default_factory=Trees)
    best: int = 2000
    others: int = 8000
    radius: int | None = None
    centres: int = 10
    apart: int = 1
    distance: float = 0.0
    spread: float = 0.0
    realism: float = 0.0
    unlikely: float | None = 0.001
    seconds: float = 60.0
    retrain_every: int = 5
    rank_k: float = 1e-3
    share: float = 0.1
    first_share: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.goal, str) and self.goal not in ("maximise", "minimise"):
            raise InputError(f"the goal is 'maximise', 'minimise' or a number to come near to, not {self.goal!r}")
        for name in ("distance", "spread", "realism", "retrain_every", "rank_k", "share", "first_share"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} must be 0 or more, got {getattr(self, name)}")
        if self.spread and self.trees.members < 2:
            raise InputError("one ensemble has no spread: give the trees several members")

    def searched(self) -> Goal:
        """What the search maximises of a prediction."""
        if isinstance(self.goal, str):
            return Goal(1.0 if self.goal == "maximise" else -1.0)
        return Goal(target=float(self.goal))

    def merit(self, scores: np.ndarray) -> np.ndarray:
        """The larger the better."""
        return self.searched()(np.asarray(scores, dtype=np.float64))

    def best_of(self, scores: Iterable[float | None]) -> float:
        """The best of some scores; NaN where there is none."""
        known = np.array([score for score in scores if score is not None], dtype=np.float64)
        return float(known[self.merit(known).argmax()]) if len(known) else float("nan")

    def to_json(self) -> dict[str, Any]:
        """As JSON has it; `from_json` reads it."""
        return asdict(self)

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Settings:
        """What `to_json` wrote."""
        return cls(**{**told, "trees": Trees(**told["trees"])})

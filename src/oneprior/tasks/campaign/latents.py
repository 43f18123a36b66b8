"""What a campaign searches: the latents of a run, whatever they are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from oneprior.core import IncompatiblePrior
from oneprior.inference.search.objective import Goal
from oneprior.tasks.campaign.admission import Admission
from oneprior.tasks.campaign.settings import Settings
from oneprior.training import Run


@dataclass(frozen=True, eq=False)
class Known:
    """What has been measured, in the latents of the present run.

    Args:
        points: of what was scored, (n, numbers).
        scores: of these, one number each: the score, or what the round makes of several, (n,).
        goal: what the round looks for.
        every: points of all that is known, the failed and the unscored too, (m, numbers).
        data: points of the data, (rows, numbers).
        rounds: whether each round found something better than all before it.
        admission: the rules that what is asked for must keep.
        taken: events that are not asked for again, whatever their points (`presented.identities`).
        own: how many of the scored points, the last of them, the campaign has measured itself.
    """

    points: np.ndarray
    scores: np.ndarray
    goal: Goal
    every: np.ndarray
    data: np.ndarray
    rounds: Sequence[bool] = ()
    admission: Admission = field(default_factory=Admission)
    taken: frozenset[bytes] = frozenset()
    own: int = 0

    @property
    def merit(self) -> np.ndarray:
        """Of the scores, the larger the better, (n,)."""
        return self.goal(self.scores)


@dataclass(frozen=True, eq=False)
class Proposal:
    """One point to be scored.

    Args:
        point: (numbers,).
        prediction: of the score, or of what the round makes of several.
        bound: nothing that was allowed has a higher value of what was searched for; infinite where nothing is proven.
        gap: bound less the value of this one.
        status: of the search.
        distance: to the nearest of what is known: codes that differ, or the length between latents.
        log_prob: of the point under the prior of the latents, in nats.
        likely: whether that is not below what the settings allow.
        seconds: of its search.
    """

    point: np.ndarray
    prediction: float
    bound: float
    gap: float
    status: str
    distance: float
    log_prob: float
    likely: bool
    seconds: float


@dataclass(frozen=True, eq=False)
class Proposals:
    """The points of a round.

    Args:
        found: them.
        about: what is worth telling of the model behind them: r2, error, trees, points, passed.
        refused: points that break a rule, and which.
    """

    found: Sequence[Proposal]
    about: Mapping[str, Any] = field(default_factory=dict)
    refused: Sequence[tuple[np.ndarray, str]] = ()


class Latents(ABC):
    """The latents of a run.

    Attributes:
        run: whose.
        numbers: of a point.
        encodes: whether events have points; else only what was drawn here has.
    """

    run: Run
    numbers: int
    encodes: bool = True

    @abstractmethod
    def encode(self, x: Tensor) -> np.ndarray:
        """The points of events, (n, *event_shape) -> (n, numbers); NaN where they have none."""

    @abstractmethod
    def decode(self, points: np.ndarray) -> Tensor:
        """The events of points, (n, numbers) -> (n, *event_shape) in [-1, 1]."""

    def check(self, settings: Settings) -> None:
        """Refuse settings that these latents cannot follow, before anything is scored.

        Raises:
            InputError: for a part of an event where latents have no places, or that is none.
        """
        if settings.where is not None:
            raise IncompatiblePrior(f"the latents of a {self.run.family} have no places: --where needs a vqvae")

    def fewest(self, settings: Settings) -> int:
        """Scored events that a first round needs."""
        return 0

    @abstractmethod
    def propose(self, known: Known, settings: Settings, number: int, count: int) -> Proposals:
        """The points of a round.

        Args:
            known: what has been measured.
            settings: of the campaign.
            number: of the round.
            count: points, at most.

        Raises:
            InputError: where the scores cannot be learned from.
        """

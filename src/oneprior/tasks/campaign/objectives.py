"""What a campaign is after: one score, or several that are weighed or traded against each other.

Every objective turns its score into a merit, larger is better: the score itself, its negative, or minus its distance to
a target. Several are made one of in two ways:

- *weighed*: sum_j w_j merit_j, in the units that the user has weighed;
- *Pareto*: each round has weights of its own, uniform on the simplex, and looks for the best augmented Chebyshev value

      min_j w_j v_j + rho sum_j w_j v_j,    v_j the merit, 0 at the worst and 1 at the best of what is known,

  which reaches every point of the front, those in its dents too (Knowles 2006, "ParEGO"). Events are ranked for
  training by how many others dominate them (Fonseca and Fleming 1993).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from oneprior.core import InputError
from oneprior.inference.search.objective import Goal
from oneprior.inference.search.trust_region import improved

_RHO = 0.05
_ROWS = 512


@dataclass(frozen=True)
class Objective:
    """One score.

    Args:
        name: in tables, in sheets, and in what a score function returns where it returns several.
        goal: "maximise", "minimise" or a number that the score is to come near to.
        weight: against the other objectives, above 0; None in a Pareto choice.

    Raises:
        InputError: for another goal or weight.
    """

    name: str = "score"
    goal: str | float = "maximise"
    weight: float | None = None

    def __post_init__(self) -> None:
        if isinstance(self.goal, str) and self.goal not in ("maximise", "minimise"):
            raise InputError(f"the goal is 'maximise', 'minimise' or a number to come near to, not {self.goal!r}")
        if not isinstance(self.goal, str) and not math.isfinite(self.goal):
            raise InputError(f"a score cannot come near to {self.goal}")
        if self.weight is not None and not 0 < self.weight < math.inf:
            raise InputError(f"the weight of {self.name} must be above 0, got {self.weight}")

    @property
    def sought(self) -> Goal:
        """What the search maximises of a prediction of this score."""
        if isinstance(self.goal, str):
            return Goal(1.0 if self.goal == "maximise" else -1.0)
        return Goal(target=float(self.goal))


@dataclass(frozen=True)
class Objectives:
    """All objectives of a campaign.

    Args:
        each: at least one; of several, all or none have weights.

    Raises:
        InputError: for none, two of a name, or weights of some.
    """

    each: tuple[Objective, ...] = (Objective(),)

    def __post_init__(self) -> None:
        if not self.each:
            raise InputError("a campaign needs an objective")
        if len(set(self.names)) < len(self.each):
            raise InputError(f"objectives need different names, got {', '.join(self.names)}")
        weighed = [one.name for one in self.each if one.weight is not None]
        if len(self.each) > 1 and 0 < len(weighed) < len(self.each):
            raise InputError(f"{', '.join(weighed)} has a weight and others have none: weigh all, or none (Pareto)")

    @property
    def names(self) -> tuple[str, ...]:
        """Of the scores, in their order."""
        return tuple(one.name for one in self.each)

    @property
    def pareto(self) -> bool:
        """Whether several are traded against each other without weights."""
        return len(self.each) > 1 and self.each[0].weight is None

    @property
    def said(self) -> str:
        """In words."""
        words = []
        for one in self.each:
            weight = "" if one.weight is None or len(self.each) == 1 else f" (weight {one.weight:g})"
            goal = f"{one.goal} {one.name}" if isinstance(one.goal, str) else f"bring {one.name} near to {one.goal:g}"
            words.append(goal + weight)
        return ", ".join(words) + (" (a Pareto front)" if self.pareto else "")

    def merits(self, scores: np.ndarray) -> np.ndarray:
        """Of each objective, the larger the better; (n, objectives) -> (n, objectives)."""
        return np.stack([one.sought(column) for one, column in zip(self.each, scores.T, strict=True)], 1)

    def overall(self, scores: np.ndarray) -> np.ndarray:
        """One number for each event, the larger the better: the weighed merit, or minus how many dominate it; (n,)."""
        merits = self.merits(scores)
        if self.pareto:
            return -dominated(merits).astype(np.float64)
        return merits[:, 0] if len(self.each) == 1 else merits @ np.array([one.weight for one in self.each])

    def of_round(self, scores: np.ndarray, seed: int, number: int) -> tuple[np.ndarray, Goal]:
        """What a round learns of each event, (n,), and what it looks for.

        Args:
            scores: of all that is known, (n, objectives).
            seed: of the campaign.
            number: of the round.
        """
        if len(self.each) == 1:
            return scores[:, 0], self.each[0].sought
        if not self.pareto:
            return self.overall(scores), Goal()
        merits = self.merits(scores)
        low, high = merits.min(0, initial=np.inf), merits.max(0, initial=-np.inf)
        value = (merits - low) / np.where(high > low, high - low, 1.0)
        weight = np.random.default_rng([seed, number, 77]).dirichlet(np.ones(len(self.each)))
        return (weight * value).min(1) + _RHO * (value @ weight), Goal()

    def better(self, before: np.ndarray, new: np.ndarray) -> bool:
        """Whether one of some new events is better than all before; of a Pareto choice, dominated by none of them."""
        if not len(new) or not len(before):
            return bool(len(new))
        if self.pareto:
            both = dominated(np.concatenate([self.merits(before), self.merits(new)]))
            return bool((both[len(before) :] == 0).any())
        return improved(float(self.overall(before).max()), float(self.overall(new).max()))

    def to_json(self) -> list[dict[str, Any]]:
        """As JSON has it."""
        return [asdict(one) for one in self.each]

    @classmethod
    def from_json(cls, told: Sequence[dict[str, Any]]) -> Objectives:
        """What `to_json` wrote."""
        return cls(tuple(Objective(**one) for one in told))


def dominated(merits: np.ndarray) -> np.ndarray:
    """Of each row, how many others are as good in all columns and better in one; (n, m) -> (n,) int64."""
    found = np.zeros(len(merits), dtype=np.int64)
    for start in range(0, len(merits), _ROWS):
        own = merits[start : start + _ROWS, None]
        found[start : start + _ROWS] = ((merits >= own).all(2) & (merits > own).any(2)).sum(1)
    return found

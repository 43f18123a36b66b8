"""The best point of a space for a trained ensemble, with a proof of how good it is.

    best = maximise(model, Space.grid(64, 256), [Ball(centre, 16)])
    best.value, best.bound, best.gap, best.status

    search = Search(model, space)          # read once, asked often
    itertools.islice(search.ranked(), 10)  # the ten best

A small space is looked through (`listing`), as is a ball of one or two columns (`ball`). Else a vectorised local
search (`local`) finds a good point, the mixed-integer program (`program`) begins there, and ends with the best one or,
when its time is over, with a bound that tells how far from it one can be. The value is always that of the ensemble
itself at the point.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from oneprior.core import InputError, ShapeError
from oneprior.inference.search.atoms import Atoms, merge
from oneprior.inference.search.ball import best_in_ball, small_ball
from oneprior.inference.search.constraints import (
    AtLeast,
    Constraint,
    Exclude,
    Worked,
    at_least_as_tight,
    column_number,
)
from oneprior.inference.search.ensembles import read_forest
from oneprior.inference.search.forest import Forest
from oneprior.inference.search.listing import best_listed, by_atoms, can_list
from oneprior.inference.search.local import Climb, climb
from oneprior.inference.search.objective import Bonus, Goal, acquisition
from oneprior.inference.search.program import Program, Solved
from oneprior.inference.search.space import Categorical, Column, Space

_TOLERANCE = 1e-6
_PAIRS = 8
"""Pairs of atoms that are looked through as fast as one grid."""
_ALTERNATIVES = 32
"""Of an "or", at most, that are solved one by one."""
_WORST = ("infeasible", "optimal", "time limit")
"""Of what is known where no point was found, from the most to the least."""


@dataclass(frozen=True, eq=False)
class Best:
    """A best point, and what is proven of it.

    Args:
        point: (columns,); None where no point satisfies the constraints, or none was found in time.
        value: what is maximised, at the point; -inf without one.
        prediction: of the model, at the point; the mean of several.
        bound: no point that is allowed has a higher value.
        status: "optimal" (value and bound agree to the gap that was asked), "time limit" or "infeasible".
        seconds: of all.
        alike: of each column of codes, those that model and constraints cannot tell from the point's, (k,) each.
        nodes: of the search tree.
    """

    point: np.ndarray | None
    value: float
    prediction: float
    bound: float
    status: str
    seconds: float
    alike: tuple[np.ndarray, ...]
    nodes: int

    @property
    def gap(self) -> float:
        """bound - value: at most so much better is any point; 0 below what floats can tell."""
        least = 1e-12 * max(1.0, abs(self.value))
        return self.bound - self.value if self.bound - self.value > least else 0.0


@dataclass(frozen=True, eq=False)
class _Proven:
    """What was found of one alternative of a choice, under some other constraints; holds them, so that each keeps its
    identity."""

    choice: Constraint
    others: Sequence[Constraint]
    best: Best


@dataclass(frozen=True)
class Effort:
    """How long and how exactly to search.

    Args:
        seconds: limit of time of each best point.
        gap: of bound and value, absolute and relative, at which a point counts as optimal.
        climb: the local search.
        exact: whether to prove; without, the bound is that of the trees one by one.
        seed: of all that is drawn.
        threads: of HiGHS.
        listed: grids that are looked through one by one where there are no more, in place of a program; 0 for never.
    """

    seconds: float = 60.0
    gap: float = 1e-6
    climb: Climb = field(default_factory=Climb)
    exact: bool = True
    seed: int = 0
    threads: int = 1
    listed: int = 1 << 21


def maximise(
    model: Any,
    space: Space | Sequence[Column],
    constraints: Constraint | Sequence[Constraint] = (),
    *,
    goal: Goal = Goal(),
    bonus: Bonus = Bonus(),
    starts: np.ndarray | None = None,
    effort: Effort = Effort(),
) -> Best:
    """The point of the highest value: `Search(model, space, ...).best(constraints, starts)`."""
    return Search(model, space, goal=goal, bonus=bonus, effort=effort).best(constraints, starts)


class Search:
    """A trained ensemble over a space, read once and searched as often as one likes.

    Args:
        model: a trained ensemble (see `ensembles`), or several as a list: their mean is taken.
        space: of the points; or its columns.
        goal: maximise, minimise or come near to a target.
        bonus: what is added to the prediction.
        effort: time, gap, seed.

    Raises:
        InputError: for an ensemble that is no sum of trees, or a bonus that lacks what it needs.
    """

    def __init__(
        self,
        model: Any,
        space: Space | Sequence[Column],
        *,
        goal: Goal = Goal(),
        bonus: Bonus = Bonus(),
        effort: Effort = Effort(),
    ) -> None:
        space = space if isinstance(space, Space) else Space(tuple(space))
        models = model if isinstance(model, (list, tuple)) else [model]
        if not models:
            raise InputError("no model to maximise")
        self.forests = [read_forest(one, space) for one in models]
        self._floors: dict[int, tuple[Any, Forest]] = {}  # by identity: a model that is held keeps its number
        self._proven: dict[tuple[int, int], _Proven] = {}  # by the identity of an "or", and alternative
        self.space, self.goal, self.effort = space, goal, effort
        if bonus.distance and bonus.data is None:
            raise InputError("distance as a bonus needs the data that it is taken to")
        if bonus.distance < 0 or bonus.spread < 0:
            raise InputError("the weights of a bonus must be 0 or more")
        data = space.checked(bonus.data) if bonus.distance and bonus.data is not None else None
        for c, term in bonus.terms.items():
            column = space.columns[column_number(space, c)]
            if not isinstance(column, Categorical) or term.shape != (column.size,):
                raise ShapeError(f"the rewards of {column.name or f'column {c}'}", term.shape, "one for each code")
        self.bonus = Bonus(bonus.distance, data, bonus.spread, bonus.terms)

    def ranked(
        self, constraints: Constraint | Sequence[Constraint] = (), starts: np.ndarray | None = None
    ) -> Iterator[Best]:
        """The best point, the best of all others, and so on, each proven; ends where no other point is allowed.

        The arguments are those of `best`. The n-th point's bound is of all points but those before it.
        """
        found = _checked(constraints)
        while True:
            best = self.best(found, starts)
            yield best
            if best.point is None:
                return
            found.append(Exclude(best.point))

    def write(self, path: Path, constraints: Constraint | Sequence[Constraint] = ()) -> Path:
        """The program that `best` solves, as an .mps file for any solver."""
        return Program(self._atoms(_checked(constraints)), self.goal, self.bonus).write(path)

    def best(self, constraints: Constraint | Sequence[Constraint] = (), starts: np.ndarray | None = None) -> Best:
        """The point of the highest value.

        An "or", such as several balls, is solved as one program for each of its alternatives, which are small: one of
        them all takes several times as long. What an earlier search has proven of an alternative under the same
        constraints, or some of them, is not proven again: its bound holds, and its point where it is still allowed.

        Args:
            constraints: all of them hold.
            starts: points to begin with, (n, columns), such as the best of the data.

        Raises:
            InputError: for a program too large to hold, and for what is no constraint.
        """
        constraints = _checked(constraints)
        choice, parts = self._alternatives(constraints)
        if choice is None:
            return self._best(self._atoms(parts[0]), starts, self.effort.seconds)
        start, found, value = time.perf_counter(), list[Best](), -np.inf
        others = [one for one in constraints if one is not choice]
        before = [self._known_of(choice, k, others) for k in range(len(parts))]
        ceiling = [np.inf if one is None else one.bound for one in before]
        for done, k in enumerate(np.argsort(ceiling)[::-1].tolist()):
            if found and ceiling[k] <= value:  # and so are all that are left
                break
            left = self.effort.seconds - (time.perf_counter() - start)
            found.append(self._of_part(parts[k], before[k], starts, left / (len(parts) - done)))
            self._proven[id(choice), k] = _Proven(choice, others, found[-1])
            value = max(value, found[-1].value)
        best = max(found, key=lambda one: one.value)
        bound = max(one.bound for one in found)
        return replace(
            best,
            bound=bound,
            status=max((one.status for one in found), key=_WORST.index)
            if best.point is None
            else self._status(best.value, bound),
            seconds=time.perf_counter() - start,
            nodes=sum(one.nodes for one in found),
        )

    def _alternatives(self, constraints: Sequence[Constraint]) -> tuple[Constraint | None, list[list[Constraint]]]:
        """The only constraint that has alternatives, and a list of constraints for each of them; else None, and all as
        they are."""
        if not self.effort.exact:
            return None, [list(constraints)]
        plain = [one for one in constraints if isinstance(one, AtLeast)]
        worked = {one: Worked(one.alternatives(self.space)) for one in constraints if not isinstance(one, AtLeast)}
        choices = [one for one, rows in worked.items() if len(rows.either) > 1]
        if len(choices) != 1 or len(worked[choices[0]].either) > _ALTERNATIVES:
            return None, [[*plain, *worked.values()]]
        either = worked.pop(choices[0]).either
        return choices[0], [[*plain, *worked.values(), Worked([rows])] for rows in either]

    def _known_of(self, choice: Constraint, k: int, others: Sequence[Constraint]) -> Best | None:
        """What was proven of an alternative under no more than these constraints."""
        before = self._proven.get((id(choice), k))
        if before is None or not all(any(at_least_as_tight(a, b) for a in others) for b in before.others):
            return None
        return before.best

    def _of_part(
        self, part: Sequence[Constraint], before: Best | None, starts: np.ndarray | None, seconds: float
    ) -> Best:
        """The best of an alternative, which may be what it was before."""
        if before is not None and before.status == "infeasible":
            return replace(before, seconds=0.0, nodes=0)
        atoms = self._atoms(part)
        point = before.point if before is not None and before.status == "optimal" and atoms.counted else None
        if before is not None and point is not None and atoms.allow(atoms.encode(point[None])[0]):
            return replace(before, seconds=0.0, nodes=0, alike=_alike(atoms, point))
        return self._best(atoms, starts, seconds)

    def _best(self, atoms: Atoms, starts: np.ndarray | None, seconds: float) -> Best:
        start, effort = time.perf_counter(), self.effort
        if effort.exact and by_atoms(atoms, self.bonus):
            if can_list(atoms, effort.listed):
                return self._listed(atoms, best_listed(atoms, self.goal, self.bonus), start)
            if (ball := small_ball(atoms, _PAIRS * effort.listed)) is not None:
                return self._listed(atoms, best_in_ball(ball, atoms, self.goal, self.bonus), start)
        program = Program(atoms, self.goal, self.bonus) if effort.exact else None
        begin = np.empty((0, len(self.space))) if starts is None else self.space.checked(starts)
        rng = np.random.default_rng(effort.seed)
        local = climb(atoms, self.goal, self.bonus, begin, effort.climb, rng)
        first = local[0] if len(local) else None
        solved = Solved(first, {}, self._bound(atoms), "time limit", 0, 0.0)
        if program is not None:
            left = max(1.0, seconds - (time.perf_counter() - start))
            solved = program.solve(seconds=left, gap=effort.gap, first=first, seed=effort.seed, threads=effort.threads)
        candidates = [(first, {})] if first is not None else []
        if solved.atoms is not None:
            candidates.append((solved.atoms, solved.numbers))
        return self._known(atoms, candidates, solved, start)

    def _listed(self, atoms: Atoms, found: tuple[np.ndarray | None, float], start: float) -> Best:
        """The best of all that is allowed, which were looked through one by one."""
        grid, value = found
        candidates = [] if grid is None else [(grid, dict[int, float]())]
        return self._known(atoms, candidates, Solved(grid, {}, value, "infeasible", 0, 0.0), start)

    def _known(
        self, atoms: Atoms, candidates: Sequence[tuple[np.ndarray, dict[int, float]]], solved: Solved, start: float
    ) -> Best:
        """The best of what was found, as the ensemble itself values it, and what is proven of it."""
        points = [self._point(atoms, *one) for one in candidates]
        if not points:
            seconds = time.perf_counter() - start
            status = solved.status if solved.status == "infeasible" else "time limit"
            bound = -np.inf if status == "infeasible" else solved.bound
            return Best(None, -np.inf, np.nan, bound, status, seconds, (), solved.nodes)
        values, predictions = self.value(np.stack(points))
        k = int(values.argmax())
        value, bound = float(values[k]), max(solved.bound, float(values[k]))
        return Best(
            points[k],
            value,
            float(predictions[k]),
            bound,
            self._status(value, bound),
            time.perf_counter() - start,
            _alike(atoms, points[k]),
            solved.nodes,
        )

    def _status(self, value: float, bound: float) -> str:
        close = 1.001 * max(_TOLERANCE, self.effort.gap) * max(1.0, abs(value))
        return "optimal" if bound - value <= close else "time limit"

    def value(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What is maximised, and the mean prediction, of points, (n,) each."""
        features = self.space.features(points)
        predictions = np.stack([forest.predict(features) for forest in self.forests])
        return acquisition(predictions, self.goal, self.bonus, points, self.space.coded), predictions.mean(0)

    def _atoms(self, constraints: Sequence[Constraint]) -> Atoms:
        floors = [(self._read(one.model), one.low) for one in constraints if isinstance(one, AtLeast)]
        return merge(self.space, self.forests, constraints, self.bonus.data, self.bonus.terms, floors)

    def _read(self, model: Any) -> Forest:
        """A bounded ensemble, read once."""
        if id(model) not in self._floors:
            self._floors[id(model)] = (model, read_forest(model, self.space))
        return self._floors[id(model)][1]

    def _bound(self, atoms: Atoms) -> float:
        """Without a proof: the trees one by one, the farthest that a point can lie, the widest spread."""
        low, high = (np.mean([getattr(b, name) for b in atoms.boxes]) for name in ("lowest", "highest"))
        mean = float(np.max(self.goal(np.array([low, high])))) if self.goal.target is None else 0.0
        wide = max(b.highest for b in atoms.boxes) - min(b.lowest for b in atoms.boxes)
        far = self.bonus.distance * float(self.space.coded.sum())
        return mean + far + self.bonus.spread * wide + sum(float(term.max()) for term in self.bonus.terms.values())

    def _point(self, atoms: Atoms, found: np.ndarray, numbers: dict[int, float]) -> np.ndarray:
        """Atoms as a point; a number that was weighed has the value that the program gave it, kept inside its atom."""
        point = atoms.decode(found[None])[0]
        for c, value in numbers.items():
            own = atoms.columns[c]
            point[c] = np.clip(value, own.low[found[c]], own.high[found[c]])
        return point


def _checked(constraints: Constraint | Sequence[Constraint]) -> list[Constraint]:
    """Constraints as a list, a single one too.

    Raises:
        InputError: for anything else.
    """
    found = [constraints] if isinstance(constraints, Constraint) else list(constraints or ())
    for one in found:
        if not isinstance(one, Constraint):
            raise InputError(
                f"constraints are Ball, Exclude, Allowed, Linear, AtLeast or what `fixed` makes, not {one!r}"
            )
    return found


def _alike(atoms: Atoms, point: np.ndarray) -> tuple[np.ndarray, ...]:
    found = []
    for c, column in enumerate(atoms.columns):
        same = column.of_code
        found.append(np.empty(0, np.int64) if same is None else np.flatnonzero(same == same[int(point[c])]))
    return tuple(found)

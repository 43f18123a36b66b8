"""What a point must satisfy, as linear rows over its codes and numbers.

With x[p, c] = 1 where column p has code c, the codes that differ from a centre g are P - sum_p x[p, g_p], so a Hamming
ball, a point that is excluded, a budget and a ban are all of one form,

    low <= sum_p w[p, x_p] + sum_q w_q x_q <= high,

p over columns of codes, q over columns of numbers. A ball around any of several centres is an "or" of such rows. What
is not linear in the codes may be learned by an ensemble of its own, and bounded (`AtLeast`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from oneprior.core import InputError, ShapeError
from oneprior.inference.search.space import Categorical, Space


@dataclass(frozen=True, eq=False)
class Row:
    """One linear constraint.

    Args:
        weights: of columns, by their numbers: of codes (K,), of numbers a factor.
        low: of the sum.
        high: of the sum.
        apart: a point that the row tells from others (`Exclude`): of columns of numbers, the interval that holds its
            number weighs 1.
    """

    weights: Mapping[int, np.ndarray | float]
    low: float = -np.inf
    high: float = np.inf
    apart: np.ndarray | None = None


class Constraint(ABC):
    """Part of what a point must satisfy."""

    @abstractmethod
    def alternatives(self, space: Space) -> list[list[Row]]:
        """Lists of rows, of one of which all must hold; one list where there is no choice."""


@dataclass(frozen=True, eq=False)
class Linear(Constraint):
    """low <= sum of weights <= high.

    Args:
        weights: of some columns, by number or by name: of codes (K,), of numbers a factor.
        low: of the sum.
        high: of the sum.
    """

    weights: Mapping[int | str, np.ndarray | float]
    low: float = -np.inf
    high: float = np.inf

    def alternatives(self, space: Space) -> list[list[Row]]:
        if not self.low <= self.high:
            raise InputError(f"nothing is between {self.low:g} and {self.high:g}: give low <= high")
        found = {}
        for which, weight in self.weights.items():
            c = column_number(space, which)
            column, weight = space.columns[c], np.asarray(weight, dtype=np.float64)
            needed = (column.size,) if isinstance(column, Categorical) else ()
            if weight.shape != needed:
                raise ShapeError(f"the weights of {column.name or f'column {c}'}", weight.shape, needed)
            if not np.isfinite(weight).all():
                raise InputError(f"the weights of {column.name or f'column {c}'} must be finite, got {weight}")
            found[c] = weight if weight.ndim else float(weight)
        return [[Row(found, self.low, self.high)]]


@dataclass(frozen=True, eq=False)
class Ball(Constraint):
    """At most `radius` columns of codes differ from one of the centres.

    Args:
        centres: (k, columns), or one of them, (columns,); numbers that are not codes do not count.
        radius: 0 or more.
        where: the columns of codes that may differ; any of them where None.
    """

    centres: np.ndarray
    radius: int
    where: Sequence[int] | None = None

    def alternatives(self, space: Space) -> list[list[Row]]:
        if self.radius < 0:
            raise InputError(f"the radius of a ball must be 0 or more, got {self.radius}")
        centres = space.checked(np.atleast_2d(self.centres))
        coded = np.flatnonzero(space.coded)
        kept: list[int] = [] if self.where is None else np.setdiff1d(coded, self.where).tolist()
        found = []
        for centre in np.unique(centres[:, coded], axis=0):
            same = _same(space, centre)
            rest = [Row({c: same[c] for c in kept}, low=len(kept))] if kept else []
            found.append([Row(same, low=len(coded) - self.radius), *rest])
        return found


@dataclass(frozen=True, eq=False)
class Exclude(Constraint):
    """Not these points: some codes differ, or numbers lie in other intervals of the model's.

    Args:
        points: (k, columns).
        apart: columns that differ, at least.
    """

    points: np.ndarray
    apart: int = 1

    def alternatives(self, space: Space) -> list[list[Row]]:
        points = space.checked(np.atleast_2d(self.points))
        if not 1 <= self.apart <= len(space):
            raise InputError(f"points differ in 1 .. {len(space)} columns, got {self.apart}")
        coded = np.flatnonzero(space.coded)
        return [[Row(_same(space, g[coded]), high=len(space) - self.apart, apart=g) for g in np.unique(points, axis=0)]]


@dataclass(frozen=True, eq=False)
class Allowed(Constraint):
    """Only some codes of a column.

    Args:
        column: number or name.
        codes: that it may have; one for a fixed position.
    """

    column: int | str
    codes: Sequence[int]

    def alternatives(self, space: Space) -> list[list[Row]]:
        c = column_number(space, self.column)
        column = space.columns[c]
        if not isinstance(column, Categorical):
            raise InputError(f"{column.name or f'column {c}'} has no codes: bound it by Linear")
        wrong = [code for code in self.codes if not 0 <= code < column.size]
        if wrong or not len(self.codes):
            raise InputError(
                f"{column.name or f'column {c}'} may have codes 0 .. {column.size - 1}, and at least one must be "
                f"allowed; got {list(self.codes)}"
            )
        weight = np.isin(np.arange(column.size), np.asarray(self.codes)).astype(np.float64)
        return [[Row({c: weight}, low=1.0)]]


@dataclass(frozen=True, eq=False)
class AtLeast(Constraint):
    """Another ensemble predicts at least so much.

    Args:
        model: a trained ensemble (see `ensembles`).
        low: of its prediction.
    """

    model: Any
    low: float

    def alternatives(self, space: Space) -> list[list[Row]]:
        return [[]]  # its trees are part of the problem, not a row of codes


@dataclass(frozen=True, eq=False)
class Worked(Constraint):
    """Another constraint whose rows are worked out already, or some of its alternatives.

    Args:
        either: lists of rows, of one of which all must hold.
    """

    either: list[list[Row]]

    def alternatives(self, space: Space) -> list[list[Row]]:
        return self.either


def fixed(space: Space, point: np.ndarray, columns: Sequence[int]) -> list[Constraint]:
    """The codes of a point at some columns, kept.

    Args:
        space: of the point.
        point: (columns,).
        columns: those that are kept; all of codes.
    """
    point = space.checked(point[None])[0]
    return [Allowed(int(c), [int(point[c])]) for c in columns]


def at_least_as_tight(a: Constraint, b: Constraint) -> bool:
    """Whether a is known to allow nothing that b does not: it is b, or has the same sum between narrower ends."""
    if isinstance(a, Linear) and isinstance(b, Linear):
        return a.weights is b.weights and a.low >= b.low and a.high <= b.high
    return a is b


def column_number(space: Space, which: int | str) -> int:
    """The number of a column that is told by number or by name."""
    if isinstance(which, str):
        names = [column.name for column in space.columns]
        if which not in names:
            raise InputError(f"no column is called {which!r}; there are {', '.join(filter(None, names)) or 'no names'}")
        return names.index(which)
    if not 0 <= which < len(space):
        raise InputError(f"column {which}: the space has columns 0 .. {len(space) - 1}")
    return int(which)


def _same(space: Space, codes: np.ndarray) -> dict[int, np.ndarray | float]:
    """Weights whose sum is the number of columns of codes that have these."""
    found: dict[int, np.ndarray | float] = {}
    for c, code in zip(np.flatnonzero(space.coded), codes, strict=True):
        column = space.columns[c]
        assert isinstance(column, Categorical)
        found[int(c)] = (np.arange(column.size) == code).astype(np.float64)
    return found

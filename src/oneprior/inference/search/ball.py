"""Small balls, looked through point by point: all that differs from a centre in one column or in two.

Of a leaf l, a point that has atom b in column q, and the centre's atoms elsewhere, breaks B[l, qb] columns. With atom a
in column p as well, the leaves that ask for p are all that changes:

    f(p at a, q at b) = f(q at b) + sum_{l asks p} value_l ([l allows a] - [l allows the centre's]) [B'[l, qb] = 0],

B' without column p: for each p a product of two small matrices, over all b of all q at once. A few thousand atoms have
a few million pairs, which takes a tenth of a second; a program takes seconds, and is what wider balls are left to.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from oneprior.inference.search.atoms import SLACK, AtomRow, Atoms, Boxes
from oneprior.inference.search.objective import Bonus, Goal


@dataclass(frozen=True, eq=False)
class SmallBall:
    """A centre and how many columns may differ from it.

    Args:
        centre: (columns,) atoms.
        radius: 0, 1 or 2.
    """

    centre: np.ndarray
    radius: int


def small_ball(atoms: Atoms, most: int) -> SmallBall | None:
    """The ball that holds all that is allowed, if there is one of at most two columns and about so many points."""
    size = sum(len(column) for column in atoms.columns)
    tables = size * max(size, *(len(boxes.value) for boxes in (*atoms.boxes, *(boxes for boxes, _ in atoms.floors))))
    if tables > 2 * most:
        return None
    certain = [row for alternatives in atoms.rows if len(alternatives) == 1 for row in alternatives[0]]
    return next((ball for row in certain if (ball := _ball(row, atoms)) is not None), None)


def _ball(row: AtomRow, atoms: Atoms) -> SmallBall | None:
    """A row that counts the columns that are as in a centre."""
    centre, same = np.zeros(len(atoms.columns), dtype=np.int64), 0.0
    for c, column in enumerate(atoms.columns):
        weight = row.of(c, column)
        if len(column) > 1 and not (np.isin(weight, (0.0, 1.0)).all() and weight.sum() == 1):
            return None
        centre[c], same = int(weight.argmax()), same + float(weight.max())
    radius = same - row.low
    return SmallBall(centre, int(radius)) if np.isinf(row.high) and 0 <= radius < 3 else None


def best_in_ball(ball: SmallBall, atoms: Atoms, goal: Goal, bonus: Bonus) -> tuple[np.ndarray | None, float]:
    """The best grid of atoms in a ball, (columns,), and its value; None and -inf where none is allowed.

    Args:
        ball: see `small_ball` and `listing.by_atoms`.
        atoms: the small problem.
        goal: of the mean prediction.
        bonus: what is added.
    """
    column = np.repeat(np.arange(len(atoms.columns)), [len(one) for one in atoms.columns])
    atom = np.arange(len(column)) - atoms.start[:-1][column]
    members = [_Around(boxes, atoms, ball.centre) for boxes in atoms.boxes]
    floors = [(_Around(boxes, atoms, ball.centre), low) for boxes, low in atoms.floors]
    rows = _Rows(atoms, ball.centre)
    reward = np.concatenate(atoms.rewards(bonus.terms))
    own = atoms.start[:-1] + ball.centre
    gained = reward - reward[own][column]
    found: tuple[np.ndarray | None, float] = (None, -np.inf)
    for p in [None, *range(len(atoms.columns) - 1)] if ball.radius > 1 else [None]:
        first = 0 if p is None else int(atoms.start[p + 1])  # of each pair of columns the later one
        predictions = [one.values(p) for one in members]  # (A of p, A - first)
        mean = sum(predictions[1:], predictions[0]) / len(predictions)
        value = goal(mean) + reward[own].sum() + gained[first:]
        if p is not None:
            value = value + gained[atoms.start[p] : first, None]
        if bonus.spread:
            value = value + bonus.spread * np.mean([np.abs(one - mean) for one in predictions], 0)
        if value.max() <= found[1]:
            continue  # whatever is allowed of them
        inside = rows.hold(p)
        for floor, low in floors:
            inside &= floor.values(p) >= low - SLACK
        if ball.radius == 0:
            inside &= atom == ball.centre[column]
        value = np.where(inside, value, -np.inf)
        k, j = np.unravel_index(int(value.argmax()), value.shape)
        if value[k, j] > found[1]:
            grid = ball.centre.copy()
            grid[column[first + j]] = atom[first + j]
            if p is not None:
                grid[p] = k
            found = (grid, float(value[k, j]))
    return found


class _Around:
    """The predictions of a forest around a centre.

    Args:
        boxes: of the forest.
        atoms: the small problem.
        centre: (columns,) atoms.
    """

    def __init__(self, boxes: Boxes, atoms: Atoms, centre: np.ndarray) -> None:
        self.boxes, self.atoms, self.centre = boxes, atoms, centre
        start, leaves = atoms.start, len(boxes.value)
        breaks = np.zeros((leaves, int(start[-1])), dtype=np.int16)
        for leaf, c, allowed in zip(boxes.path_leaf, boxes.path_column, boxes.path_allowed, strict=True):
            breaks[leaf, start[c] : start[c + 1]] = ~allowed
        self.breaks, self.own = breaks, breaks[:, start[:-1] + centre]  # (L, A), (L, columns)
        wide = np.repeat(self.own, np.diff(start), 1)
        self.broken = self.own.sum(1, dtype=np.int16)[:, None] - wide + breaks  # with one atom changed, (L, A)
        self.single = boxes.base + boxes.value @ (self.broken == 0)  # (A,)
        self.asking = [boxes.path_leaf[own] for own in boxes.asking(len(atoms.columns))]

    def values(self, p: int | None) -> np.ndarray:
        """Predictions where one atom is changed, (1, A), or one of column p and one behind it, (A of p, ..)."""
        if p is None:
            return self.single[None]
        leaf, begin, end = self.asking[p], *self.atoms.start[p : p + 2]
        open_ = (self.broken[leaf, end:] == self.own[leaf, p, None]).astype(np.float64)
        gained = self.own[leaf, p, None] - self.breaks[leaf, begin:end].astype(np.float64)
        return self.single[end:] + (self.boxes.value[leaf, None] * gained).T @ open_


class _Rows:
    """The rows of the constraints around a centre.

    Args:
        atoms: the small problem.
        centre: (columns,) atoms.
    """

    def __init__(self, atoms: Atoms, centre: np.ndarray) -> None:
        self.start = atoms.start
        self.told = [
            [[self._changes(row, atoms, centre) for row in rows] for rows in alternatives]
            for alternatives in atoms.asked
        ]

    @staticmethod
    def _changes(row: AtomRow, atoms: Atoms, centre: np.ndarray) -> tuple[np.ndarray, float, float]:
        """By how much each atom changes its sum, (A,), and how far that may go down and up."""
        weights = [row.of(c, column) for c, column in enumerate(atoms.columns)]
        now = [float(weight[k]) for weight, k in zip(weights, centre, strict=True)]
        change = np.concatenate([weight - one for weight, one in zip(weights, now, strict=True)])
        return change, row.low - sum(now) - SLACK, row.high - sum(now) + SLACK

    def hold(self, p: int | None) -> np.ndarray:
        """Whether all constraints hold where one atom is changed, or two; as `_Around.values` has them."""
        begin, end = (0, 0) if p is None else self.start[p : p + 2]
        found = np.ones((max(1, end - begin), int(self.start[-1] - end)), dtype=bool)
        for alternatives in self.told:
            found &= np.logical_or.reduce([np.logical_and.reduce(list(self._each(rows, p))) for rows in alternatives])
        return found

    def _each(self, rows: list[tuple[np.ndarray, float, float]], p: int | None) -> Iterator[np.ndarray]:
        for change, low, high in rows:
            begin, end = (0, 0) if p is None else self.start[p : p + 2]
            total = change[None] if p is None else change[end:] + change[begin:end, None]
            yield (total >= low) & (total <= high)

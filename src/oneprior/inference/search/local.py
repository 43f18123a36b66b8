"""A local search over atoms, many points at once: coordinate ascent, with crossing and kicks.

One column of a point is changed at a time, to the best of its atoms. What every atom of a column would give is had
without visiting it: a leaf counts for an atom if the point satisfies the leaf's box in all *other* columns and the box
allows the atom. With v[r, l] the number of columns in which row r breaks leaf l, and v'[r, l] that without column p,

    f(r, p at a) = f(r) - sum_{l asks p} value_l [v[r, l] = 0] + sum_{l asks p} value_l [v'[r, l] = 0] [l allows a],

a product of two small matrices. When no column gains, the best points are crossed and kicked, and climb again (memetic
search: Moscato 1989). It proves nothing: it gives the exact search its first point, and an answer where the proof takes
too long.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from oneprior.inference.search.atoms import AtomRow, Atoms, Boxes, ColumnAtoms
from oneprior.inference.search.objective import Bonus, Goal

_GAIN = 1e-9
_PENALTY = 1e3


@dataclass(frozen=True)
class Climb:
    """How hard to search.

    Args:
        points: that climb together.
        rounds: of crossing and kicking after the first climb.
        sweeps: over all columns in one climb, at most.
        kicked: share of the columns that a kick changes.
    """

    points: int = 32
    rounds: int = 20
    sweeps: int = 50
    kicked: float = 0.05


def climb(
    atoms: Atoms, goal: Goal, bonus: Bonus, starts: np.ndarray, how: Climb, rng: np.random.Generator
) -> np.ndarray:
    """The best points found, the best first, without repeats, (k, columns) atoms.

    Args:
        atoms: the small problem.
        goal: of the mean prediction.
        bonus: what is added; its data in atoms are found here.
        starts: points to begin with, (n, columns); the rest are drawn.
        how: how hard.
        rng: of the drawn points, the order of columns, crossings and kicks.
    """
    climber = _Climber(atoms, goal, bonus)
    sizes = np.array([len(column) for column in atoms.columns])
    x = rng.integers(0, sizes, (how.points, len(sizes)))
    first = atoms.encode(starts)[: how.points] if len(starts) else x[:0]
    x[: len(first)] = first
    x, value = climber.ascend(x, how.sweeps, rng)
    for _ in range(how.rounds):
        order = np.argsort(-value, kind="stable")
        elite = order[: max(2, how.points // 4)]
        mother, father = rng.choice(elite, (2, how.points))
        child = np.where(rng.random(x.shape) < 0.5, x[mother], x[father])
        kick = rng.random(x.shape) < how.kicked
        child = np.where(kick, rng.integers(0, sizes, x.shape), child)
        child, reached = climber.ascend(child, how.sweeps, rng)
        both, values = np.concatenate([x, child]), np.concatenate([value, reached])
        _, distinct = np.unique(both, axis=0, return_index=True)
        best = distinct[np.argsort(-values[distinct], kind="stable")][: how.points]
        missing = how.points - len(best)
        x = np.concatenate([both[best], both[best[:1]].repeat(missing, 0)])
        value = np.concatenate([values[best], values[best[:1]].repeat(missing)])
    order = np.argsort(-value, kind="stable")
    feasible = climber.broken(x) <= _GAIN
    x = x[order][feasible[order]]
    _, distinct = np.unique(x, axis=0, return_index=True)
    return x[np.sort(distinct)]


class _Tables:
    """A forest's leaves by the column that they ask for."""

    def __init__(self, boxes: Boxes, columns: int, sizes: np.ndarray) -> None:
        self.boxes = boxes
        asking = boxes.asking(columns)
        self.leaf = [boxes.path_leaf[own] for own in asking]
        self.allowed = [
            np.array([boxes.path_allowed[k] for k in own], dtype=bool).reshape(len(own), size)
            for own, size in zip(asking, sizes, strict=True)
        ]
        self.weighed = [
            boxes.value[leaf][:, None] * allowed for leaf, allowed in zip(self.leaf, self.allowed, strict=True)
        ]

    def broken(self, x: np.ndarray) -> np.ndarray:
        """In how many columns each row breaks each leaf, (R, L) int16."""
        v = np.zeros((len(x), len(self.boxes.value)), dtype=np.int16)
        for p, (leaf, allowed) in enumerate(zip(self.leaf, self.allowed, strict=True)):
            v[:, leaf] += ~allowed[:, x[:, p]].T
        return v


class _Climber:
    """The objective of all atoms of a column at once.

    Args:
        atoms: the small problem.
        goal: of the mean prediction.
        bonus: what is added.
    """

    def __init__(self, atoms: Atoms, goal: Goal, bonus: Bonus) -> None:
        self.atoms, self.goal, self.bonus = atoms, goal, bonus
        self.sizes = np.array([len(column) for column in atoms.columns])
        forests = [*atoms.boxes, *(boxes for boxes, _ in atoms.floors)]
        self.tables = [_Tables(boxes, len(self.sizes), self.sizes) for boxes in forests]
        self.members, self.low = len(atoms.boxes), np.array([low for _, low in atoms.floors])
        self.coded = atoms.space.coded
        self.terms = atoms.rewards(bonus.terms)
        self.data = None
        if bonus.distance and bonus.data is not None:
            self.data = np.unique(atoms.encode(bonus.data), axis=0)
        high, low = (max(getattr(b, name) for b in atoms.boxes) for name in ("highest", "lowest"))
        self.penalty = _PENALTY * max(1.0, abs(high), abs(low))
        self.rows = _Rows(atoms)

    def ascend(self, x: np.ndarray, sweeps: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Coordinate ascent of all rows until no column gains; the points and their values."""
        x, every = x.copy(), np.arange(len(x))
        v = [table.broken(x) for table in self.tables]
        f = [np.where(w == 0, table.boxes.value, 0).sum(1) for w, table in zip(v, self.tables, strict=True)]
        apart = None if self.data is None else (x[:, None, self.coded] != self.data[None][:, :, self.coded]).sum(2)
        totals = self.rows.totals(x)
        for _ in range(sweeps):
            moved = False
            for p in rng.permutation(len(self.sizes)):
                if self.sizes[p] == 1:
                    continue
                every_one = np.stack([self._of_column(k, p, x, v[k], f[k]) for k in range(len(self.tables))])
                value = self._value(every_one[: self.members], p, x, apart) + self.terms[p]
                value = value - self.penalty * (self.rows.violation(totals, x[:, p], p) + self._below(every_one))
                best = value.argmax(1)
                better = value[every, best] > value[every, x[:, p]] + _GAIN
                if not better.any():
                    continue
                moved, new, old = True, np.where(better, best, x[:, p]), x[:, p].copy()
                for k, table in enumerate(self.tables):
                    allowed, leaf = table.allowed[p], table.leaf[p]
                    v[k][:, leaf] += allowed[:, old].T.astype(np.int16) - allowed[:, new].T
                    f[k] = every_one[k][every, new] - table.boxes.base
                if apart is not None and self.coded[p] and self.data is not None:
                    own = self.data[None, :, p]
                    apart += (new[:, None] != own).astype(apart.dtype) - (old[:, None] != own)
                totals += self.rows.weights[p][:, new] - self.rows.weights[p][:, old]
                x[:, p] = new
            if not moved:
                break
        predictions = np.stack([f[k] + table.boxes.base for k, table in enumerate(self.tables)])
        least = None if apart is None else apart.min(1)
        rewards = np.sum([term[x[:, c]] for c, term in enumerate(self.terms)], 0)
        return x, self._combined(predictions[: self.members], least) + rewards - self.penalty * self.broken(x)

    def broken(self, x: np.ndarray) -> np.ndarray:
        """By how much each row breaks the constraints, (R,)."""
        total = self.rows.broken(self.rows.totals(x))
        for table, low in zip(self.tables[self.members :], self.low, strict=True):
            reached = table.boxes.base + np.where(table.broken(x) == 0, table.boxes.value, 0).sum(1)
            total = total + np.maximum(0.0, low - reached)
        return total

    def _below(self, predictions: np.ndarray) -> np.ndarray:
        """By how much the bounded forests are below their bounds, (forests, R, A) -> (R, A)."""
        return np.maximum(0.0, self.low[:, None, None] - predictions[self.members :]).sum(0)

    def _of_column(self, k: int, p: int, x: np.ndarray, v: np.ndarray, f: np.ndarray) -> np.ndarray:
        """Predictions of a member for every atom of column p, (R, A)."""
        table = self.tables[k]
        leaf, base = table.leaf[p], table.boxes.base
        if not len(leaf):
            return np.repeat((base + f)[:, None], self.sizes[p], 1)
        here = v[:, leaf]
        own = ~table.allowed[p][:, x[:, p]].T
        rest = f - np.where(here == 0, table.boxes.value[leaf], 0).sum(1)
        return base + rest[:, None] + (here == own).astype(np.float64) @ table.weighed[p]

    def _value(self, members: np.ndarray, p: int, x: np.ndarray, apart: np.ndarray | None) -> np.ndarray:
        """a for every atom of column p, (R, A)."""
        if apart is None or self.data is None:
            return self._combined(members, None)
        if not self.coded[p]:
            return self._combined(members, apart.min(1)[:, None])
        own = self.data[:, p]
        without = apart - (x[:, p : p + 1] != own[None])  # (R, N)
        least = np.repeat(without.min(1)[:, None] + 1, self.sizes[p], 1)
        for a in np.unique(own):  # the data that have this atom are one nearer
            least[:, a] = np.minimum(least[:, a], without[:, own == a].min(1))
        return self._combined(members, least)

    def _combined(self, members: np.ndarray, least: np.ndarray | None) -> np.ndarray:
        mean = members.mean(0)
        found = self.goal(mean)
        if self.bonus.spread:
            found = found + self.bonus.spread * np.abs(members - mean).mean(0)
        return found if least is None else found + self.bonus.distance * least


class _Rows:
    """All rows of all constraints at once, K of them: first those that must hold, then those of which one alternative
    is chosen, which stand together.

    Args:
        atoms: the small problem.
    """

    def __init__(self, atoms: Atoms) -> None:
        plain = [row for alternatives in atoms.asked if len(alternatives) == 1 for row in alternatives[0]]
        chosen = [alternatives for alternatives in atoms.asked if len(alternatives) > 1]
        flat = plain + [row for alternatives in chosen for rows in alternatives for row in rows]
        self.low, self.high = np.array([row.low for row in flat]), np.array([row.high for row in flat])
        self.plain = len(plain)
        own = [len(rows) for alternatives in chosen for rows in alternatives]
        self.of_alternative = np.cumsum([0, *own])[:-1]
        self.of_constraint = np.cumsum([0, *(len(alternatives) for alternatives in chosen)])[:-1]
        self.weights = [
            np.stack([_weights(row, c, column) for row in flat]) if flat else np.zeros((0, len(column)))
            for c, column in enumerate(atoms.columns)
        ]
        choices = np.arange(self.plain, len(flat))
        self.asking = [np.r_[np.flatnonzero(weight[: self.plain].any(1)), choices] for weight in self.weights]
        self.own = [weight[rows] for weight, rows in zip(self.weights, self.asking, strict=True)]
        self.least, self.most = ([getattr(own, name)(1) for own in self.own] for name in ("min", "max"))

    def totals(self, x: np.ndarray) -> np.ndarray:
        """The sums of each row, (R, columns) -> (K, R)."""
        found = np.zeros((len(self.low), len(x)))
        for c, weight in enumerate(self.weights):
            found += weight[:, x[:, c]]
        return found

    def broken(self, totals: np.ndarray) -> np.ndarray:
        """By how much the constraints are broken, (K, R) -> (R,)."""
        return self._broken(totals, np.arange(len(totals)))

    def violation(self, totals: np.ndarray, now: np.ndarray, p: int) -> np.ndarray:
        """By how much each atom of column p would break those that ask for it, (R, A); (1, 1) where none does.

        Args:
            totals: of the rows as they are, (K, R).
            now: the atoms of the column, (R,).
            p: the column.
        """
        weight, rows = self.own[p], self.asking[p]
        if not len(rows):
            return np.zeros((1, 1))
        rest = totals[rows] - weight[:, now]
        low, high = rest.min(1) + self.least[p], rest.max(1) + self.most[p]
        near = (low < self.low[rows]) | (high > self.high[rows]) | (rows >= self.plain)  # no atom breaks the others
        return self._broken(rest[near][:, :, None] + weight[near][:, None], rows[near])

    def _broken(self, totals: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Of some rows, all choices among them, (rows, R, ...) -> (R, ...)."""
        shape = (-1, *[1] * (totals.ndim - 1))
        low, high = self.low[rows].reshape(shape), self.high[rows].reshape(shape)
        off = np.maximum(low - totals, totals - high)
        np.maximum(off, 0.0, out=off)
        choices = len(self.low) - self.plain
        found = off[: len(off) - choices].sum(0)
        if choices:
            alternatives = np.add.reduceat(off[len(off) - choices :], self.of_alternative, axis=0)
            found = found + np.minimum.reduceat(alternatives, self.of_constraint, axis=0).sum(0)
        return found


def _weights(row: AtomRow, c: int, column: ColumnAtoms) -> np.ndarray:
    """A number weighs by its atom's value here; the exact search may choose another within the atom."""
    return row.of(c, column) + row.factors.get(c, 0.0) * column.value

"""The search as a mixed-integer linear program, solved by HiGHS.

Over atoms x[p, a] in {0, 1} and leaves z[l] >= 0 (Misic 2020, eq. 4, for sets of codes):

    max  base + sum_l value_l z_l
    sum_a x[p, a] = 1                              for every column p
    sum_{l in t} z_l = 1                           for every tree t
    sum_{l left of s in t} z_l <= sum_{a in S} x[p, a]          for every tree t and split s = (p, S) of it
    sum_{l right of s in t} z_l <= 1 - sum_{a in S} x[p, a]

With x whole the leaves are, so they need not be told so. Nodes of one tree that ask the same question share their two
rows, which is tighter. Shallow trees of many codes have a nearly integral relaxation: that is why this is fast.

Bonus is linear too: a variable below the overlap distance to each of the data, P - sum_p x[p, x_i,p]; and for the
mean deviation of the members, which is to be large, a sign for each. A ball around any of several centres is a choice
of one of them. Numbers that are weighed have a variable between the ends of their atom. A bounded ensemble has leaves
of its own, and one row over their values.

The bound that is returned is HiGHS's dual bound: no point of the space is higher, up to its tolerance.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from oneprior.core import InputError
from oneprior.inference.search.atoms import AtomRow, Atoms, Boxes
from oneprior.inference.search.objective import Bonus, Goal
from oneprior.inference.search.space import Integer

if TYPE_CHECKING:
    from highspy import Highs

LARGEST = 20_000_000
"""Numbers of the matrix beyond which a program is not built: about 2 GB in HiGHS."""


@dataclass(frozen=True)
class Solved:
    """What HiGHS found.

    Args:
        atoms: of the best point, (columns,); None where there is none.
        numbers: of columns that are weighed, by column: their values.
        bound: of the objective, from above.
        status: "optimal", "time limit", "infeasible".
        nodes: of the search tree.
        seconds: in HiGHS.
    """

    atoms: np.ndarray | None
    numbers: dict[int, float]
    bound: float
    status: str
    nodes: int
    seconds: float


@dataclass
class _Lines:
    """Rows of a sparse matrix, collected in pieces."""

    row: list[np.ndarray] = field(default_factory=list)
    column: list[np.ndarray] = field(default_factory=list)
    value: list[np.ndarray] = field(default_factory=list)
    low: list[np.ndarray] = field(default_factory=list)
    high: list[np.ndarray] = field(default_factory=list)
    count: int = 0

    def add(self, row: Any, column: Any, value: Any, low: Any, high: Any) -> None:
        """Rows numbered from 0 within this piece; low and high have one number for each."""
        low, high = np.atleast_1d(np.asarray(low, float)), np.atleast_1d(np.asarray(high, float))
        column = np.atleast_1d(np.asarray(column, np.int64))
        self.row.append(np.broadcast_to(np.asarray(row, np.int64), column.shape) + self.count)
        self.column.append(column)
        self.value.append(np.broadcast_to(np.asarray(value, float), column.shape))
        self.low.append(low)
        self.high.append(high)
        self.count += len(low)


class Program:
    """The program of a small problem.

    Args:
        atoms: space, forests and constraints over atoms.
        goal: of the mean prediction.
        bonus: what is added.

    Raises:
        InputError: for a program beyond `LARGEST`; says how large it is and what to do.
    """

    def __init__(self, atoms: Atoms, goal: Goal, bonus: Bonus) -> None:
        self.atoms, self.goal, self.bonus = atoms, goal, bonus
        self.start = atoms.start
        self.cost: list[np.ndarray] = []
        self.lower: list[np.ndarray] = []
        self.upper: list[np.ndarray] = []
        self.whole: list[np.ndarray] = []
        self.width = 0
        self.offset = 0.0
        self.lines = _Lines()
        self.numbers: dict[int, int] = {}
        self._fits()
        self.x = self._variables(int(self.start[-1]), 0.0, 0.0, 1.0, whole=True)
        places = np.repeat(np.arange(len(atoms.columns)), np.diff(self.start))
        ones = np.ones(len(atoms.columns))
        self.lines.add(places, self.x + np.arange(self.start[-1]), 1.0, ones, ones)
        self._objective()
        for boxes, low in atoms.floors:
            z = self._forest(boxes, 0.0)
            self.lines.add(0, z + np.arange(len(boxes.value)), boxes.value, low - boxes.base, np.inf)
        for alternatives in atoms.rows:
            self._constraint(alternatives)

    def _fits(self) -> None:
        points = 0 if self.bonus.data is None else len(self.bonus.data) * len(self.atoms.columns)
        forests = [*self.atoms.boxes, *(boxes for boxes, _ in self.atoms.floors)]
        splits = sum(len(b.node_split) * 2 * np.mean([len(left) for left in b.split_left] or [0]) for b in forests)
        leaves = sum(2 * len(boxes.path_leaf) for boxes in forests)
        size = int(self.start[-1]) + points + int(splits) + leaves
        if size > LARGEST:
            raise InputError(
                f"the program of this search has about {size:.1e} numbers ({len(self.atoms.columns)} columns, "
                f"{int(self.start[-1])} codes that differ, {sum(len(b.value) for b in forests)} leaves, "
                f"{points} of the distance), and {LARGEST:.1e} can be held: use fewer or shallower trees, fewer codes, "
                "or a distance to fewer points"
            )

    # Parts --------------------------------------------------------------------------------------------------------

    def _variables(self, count: int, cost: Any, low: Any, high: Any, *, whole: bool = False) -> int:
        """Add variables; the number of the first."""
        first, self.width = self.width, self.width + count
        for held, value in ((self.cost, cost), (self.lower, low), (self.upper, high), (self.whole, float(whole))):
            held.append(np.broadcast_to(np.asarray(value, float), (count,)))
        return first

    def _objective(self) -> None:
        members = self.atoms.boxes
        share = 1 / len(members)
        single = self.goal.target is None and not self.bonus.spread
        leaves = [self._forest(boxes, self.goal.sign * share if single else 0.0) for boxes in members]
        if single:
            self.offset += self.goal.sign * sum(boxes.base for boxes in members) * share
        else:
            self._nonlinear(members, leaves)
        if self.bonus.distance and self.bonus.data is not None:
            self._distance()
        self.cost[0] = self.cost[0] + np.concatenate(self.atoms.rewards(self.bonus.terms))  # atoms come first

    def _forest(self, boxes: Boxes, share: float) -> int:
        """Leaves of a forest and their rows; the number of its first leaf."""
        z = self._variables(len(boxes.value), share * boxes.value, 0.0, 1.0)
        trees = int(boxes.tree.max()) + 1
        self.lines.add(boxes.tree, z + np.arange(len(boxes.value)), 1.0, np.ones(trees), np.ones(trees))
        asked, question = np.unique(np.stack([boxes.node_tree, boxes.node_split], 1), axis=0, return_inverse=True)
        if not len(asked):
            return z
        question = question.reshape(-1)
        for first, last, sign in ((0, 1, 1.0), (1, 2, -1.0)):  # the leaves on the left, on the right
            count = boxes.node_leaves[:, last] - boxes.node_leaves[:, first]
            leaf = _ranges(boxes.node_leaves[:, first], count)
            own = np.repeat(question, count)
            left = [np.flatnonzero(boxes.split_left[split]) for split in asked[:, 1]]
            atom = [self.start[boxes.split_column[split]] + on for split, on in zip(asked[:, 1], left, strict=True)]
            there = np.repeat(np.arange(len(asked)), [len(on) for on in left])
            row = np.concatenate([own, there])
            column = np.concatenate([z + leaf, self.x + np.concatenate(atom)])
            value = np.concatenate([np.ones(len(leaf)), np.full(len(there), -sign)])
            high = np.full(len(asked), 0.0 if sign > 0 else 1.0)
            self.lines.add(row, column, value, np.full(len(asked), -np.inf), high)
        return z

    def _nonlinear(self, members: Sequence[Boxes], leaves: Sequence[int]) -> None:
        """Distance to a target, and the members' mean deviation, with a variable for each prediction."""
        low = np.array([boxes.lowest for boxes in members])
        high = np.array([boxes.highest for boxes in members])
        count = len(members)
        f = self._variables(count, 0.0, low, high)
        for k, (boxes, z) in enumerate(zip(members, leaves, strict=True)):
            column = np.concatenate([z + np.arange(len(boxes.value)), [f + k]])
            self.lines.add(0, column, np.append(boxes.value, -1.0), -boxes.base, -boxes.base)
        cost = self.goal.sign if self.goal.target is None else 0.0
        m = self._variables(1, cost, low.mean(), high.mean())
        self.lines.add(0, [*range(f, f + count), m], [1 / count] * count + [-1.0], 0.0, 0.0)
        if self.goal.target is not None:
            t = self.goal.target
            far = max(abs(low.mean() - t), abs(high.mean() - t))
            e = self._variables(1, -1.0, 0.0, far)
            self.lines.add([0, 0, 1, 1], [e, m, e, m], [1.0, -1.0, 1.0, 1.0], [-t, t], [np.inf, np.inf])
        if self.bonus.spread and count > 1:
            s = self._variables(count, self.bonus.spread / count, 0.0, np.inf)
            above = self._variables(count, 0.0, 0.0, 1.0, whole=True)
            room = 2 * np.maximum(high - low.mean(), high.mean() - low)  # large enough for either sign
            for k in range(count):  # s <= f - m where the sign is 1, s <= m - f where it is 0
                self.lines.add(0, [s + k, f + k, m, above + k], [1.0, -1.0, 1.0, room[k]], -np.inf, room[k])
                self.lines.add(0, [s + k, f + k, m, above + k], [1.0, 1.0, -1.0, -room[k]], -np.inf, 0.0)

    def _distance(self) -> None:
        """d <= P - sum_p x[p, x_i,p] for each of the data."""
        coded = np.flatnonzero(self.atoms.space.coded)
        assert self.bonus.data is not None
        data = np.unique(self.atoms.encode(self.bonus.data)[:, coded], axis=0)
        d = self._variables(1, self.bonus.distance, 0.0, float(len(coded)))
        n = len(data)
        row = np.concatenate([np.repeat(np.arange(n), len(coded)), np.arange(n)])
        column = np.concatenate([(self.x + self.start[coded] + data).ravel(), np.full(n, d)])
        self.lines.add(row, column, 1.0, np.full(n, -np.inf), np.full(n, float(len(coded))))

    def _constraint(self, alternatives: list[list[AtomRow]]) -> None:
        """Rows that must hold, or of several lists one."""
        if len(alternatives) == 1:
            for row in alternatives[0]:
                column, value, _, _ = self._terms(row)
                self.lines.add(0, column, value, row.low, row.high)
            return
        chosen = self._variables(len(alternatives), 0.0, 0.0, 1.0, whole=True)
        self.lines.add(0, chosen + np.arange(len(alternatives)), 1.0, 1.0, np.inf)
        for k, rows in enumerate(alternatives):
            for row in rows:
                column, value, least, most = self._terms(row)
                if np.isfinite(row.low):  # sum >= least + (low - least) chosen
                    slack = row.low - least
                    self.lines.add(0, np.append(column, chosen + k), np.append(value, -slack), least, np.inf)
                if np.isfinite(row.high):
                    slack = most - row.high
                    self.lines.add(0, np.append(column, chosen + k), np.append(value, slack), -np.inf, most)

    def _terms(self, row: AtomRow) -> tuple[np.ndarray, np.ndarray, float, float]:
        """Variables and weights of a row, and the least and the most that it can be."""
        column, value, least, most = [], [], 0.0, 0.0
        for c, weight in row.weights.items():
            column.append(self.x + self.start[c] + np.arange(len(weight)))
            value.append(weight)
            least, most = least + weight.min(), most + weight.max()
        for c, factor in row.factors.items():
            column.append(np.array([self._number(c)]))
            value.append(np.array([factor]))
            ends = factor * self.atoms.columns[c].low[0], factor * self.atoms.columns[c].high[-1]
            least, most = least + min(ends), most + max(ends)
        kept = np.concatenate(value) != 0
        return np.concatenate(column)[kept], np.concatenate(value)[kept], least, most

    def _number(self, c: int) -> int:
        """The variable of a column of numbers, between the ends of its atom."""
        if c not in self.numbers:
            own = self.atoms.columns[c]
            whole = isinstance(self.atoms.space.columns[c], Integer)
            v = self._variables(1, 0.0, own.low[0], own.high[-1], whole=whole)
            places = self.x + self.start[c] + np.arange(len(own))
            self.lines.add(0, np.append(places, v), np.append(-own.low, 1.0), 0.0, np.inf)
            self.lines.add(0, np.append(places, v), np.append(-own.high, 1.0), -np.inf, 0.0)
            self.numbers[c] = v
        return self.numbers[c]

    # Solving ------------------------------------------------------------------------------------------------------

    def highs(self) -> Highs:
        """The program in HiGHS."""
        import highspy
        from scipy.sparse import coo_array

        row, column, value = (np.concatenate(part) for part in (self.lines.row, self.lines.column, self.lines.value))
        matrix = coo_array((value, (row, column)), shape=(self.lines.count, self.width)).tocsr()
        lp = highspy.HighsLp()
        lp.num_col_, lp.num_row_ = self.width, self.lines.count
        lp.col_cost_ = np.concatenate(self.cost)
        lp.col_lower_, lp.col_upper_ = np.concatenate(self.lower), np.concatenate(self.upper)
        lp.row_lower_, lp.row_upper_ = np.concatenate(self.lines.low), np.concatenate(self.lines.high)
        lp.sense_, lp.offset_ = highspy.ObjSense.kMaximize, self.offset
        lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        lp.a_matrix_.start_, lp.a_matrix_.index_ = matrix.indptr.astype(np.int32), matrix.indices.astype(np.int32)
        lp.a_matrix_.value_ = matrix.data.astype(np.float64)
        kinds = (highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger)
        lp.integrality_ = [kinds[int(whole)] for whole in np.concatenate(self.whole)]
        solver = highspy.Highs()
        solver.silent()
        solver.passModel(lp)
        return solver

    def write(self, path: Path) -> Path:
        """The program as an .mps file, for any other solver."""
        self.highs().writeModel(str(path))
        return path

    def solve(self, *, seconds: float, gap: float, first: np.ndarray | None, seed: int, threads: int) -> Solved:
        """Solve it.

        Args:
            seconds: limit of time.
            gap: of objective and bound at which it stops, absolute and relative.
            first: atoms of a point to begin with, (columns,).
            seed: of HiGHS.
            threads: that it may use.
        """
        import highspy

        start, solver = time.perf_counter(), self.highs()
        options = {"time_limit": seconds, "mip_rel_gap": gap, "mip_abs_gap": gap, "random_seed": seed}
        for name, value in {**options, "threads": threads}.items():
            solver.setOptionValue(name, value)
        if first is not None:
            places = (self.x + self.start[:-1] + first).astype(np.int32)
            others = np.setdiff1d(np.arange(self.x, self.x + self.start[-1], dtype=np.int32), places)
            index = np.concatenate([places, others])
            value = np.concatenate([np.ones(len(places)), np.zeros(len(others))])
            solver.setSolution(len(index), index, value)  # HiGHS finds the leaves itself
        solver.run()
        model, info = solver.getModelStatus(), solver.getInfo()
        seconds = time.perf_counter() - start
        if model in (highspy.HighsModelStatus.kInfeasible, highspy.HighsModelStatus.kUnboundedOrInfeasible):
            return Solved(None, {}, -np.inf, "infeasible", int(info.mip_node_count), seconds)
        status = "optimal" if model == highspy.HighsModelStatus.kOptimal else "time limit"
        found, numbers = None, {}
        if info.primal_solution_status == 2:  # a feasible point
            solution = np.asarray(solver.getSolution().col_value)
            parts = [solution[self.x + a : self.x + b] for a, b in zip(self.start[:-1], self.start[1:], strict=True)]
            found = np.array([int(part.argmax()) for part in parts])
            numbers = {c: float(solution[v]) for c, v in self.numbers.items()}
        return Solved(found, numbers, float(info.mip_dual_bound), status, int(info.mip_node_count), seconds)


def _ranges(first: np.ndarray, count: np.ndarray) -> np.ndarray:
    """first[0], first[0] + 1, ... count[0] numbers, then those of the next."""
    ends = np.cumsum(count)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(first - (ends - count), count)

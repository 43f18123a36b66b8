"""Values that nothing tells apart, merged: the small problem behind a large space.

A split of a categorical column is a set of codes, a split of a number a half line. Codes that lie in the same sets of
every split and of every constraint are one *atom*; so are the numbers between two neighbouring thresholds. A space is
then a grid of few atoms a column (of 64 x 256 codes and 400 trees of depth 2, 4,361 atoms are left of 16,384), every
split a set of atoms, and every leaf a box: a set of allowed atoms for each column that its path asks for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from oneprior.core import InputError
from oneprior.inference.search.constraints import Constraint, Row
from oneprior.inference.search.forest import Forest
from oneprior.inference.search.space import Categorical, Integer, Numeric, Space

SLACK = 1e-9
"""By which a sum may miss its bound: rounding."""


@dataclass(frozen=True, eq=False)
class ColumnAtoms:
    """The atoms of one column, A of them.

    Args:
        value: one of each atom's values, (A,).
        low: the least, (A,).
        high: the largest, (A,).
        of_code: the atom of each code, (K,); None for a column of numbers.
        edges: the least value of each interval but the first, (A - 1,); empty for codes.
        step: the precision in which a number is compared with them.
    """

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    of_code: np.ndarray | None
    edges: np.ndarray
    step: type[np.floating] = np.float64

    def __len__(self) -> int:
        return len(self.value)

    def find(self, values: np.ndarray) -> np.ndarray:
        """The atoms of values, (n,) int64."""
        if self.of_code is not None:
            return self.of_code[values.astype(np.int64)]
        return np.searchsorted(self.edges, values.astype(self.step).astype(np.float64), side="right")


@dataclass(frozen=True, eq=False)
class Boxes:
    """A forest over atoms: leaves in the order of a walk through the trees, L of them.

    Args:
        base: added to the leaves.
        tree: of each leaf, (L,).
        value: of each leaf, (L,).
        node_tree: of each inner node, (N,).
        node_split: the number of its split, (N,).
        node_leaves: its leaves: first, first on the right, past the last, (N, 3).
        split_column: (S,).
        split_left: which atoms of its column go left, (S,) of (A,) bool.
        path_leaf: the leaf of each pair of leaf and column of its path, (I,).
        path_column: the column, (I,).
        path_allowed: the column's atoms that the leaf allows, (I,) of (A,) bool.
    """

    base: float
    tree: np.ndarray
    value: np.ndarray
    node_tree: np.ndarray
    node_split: np.ndarray
    node_leaves: np.ndarray
    split_column: np.ndarray
    split_left: tuple[np.ndarray, ...]
    path_leaf: np.ndarray
    path_column: np.ndarray
    path_allowed: tuple[np.ndarray, ...]

    def asking(self, columns: int) -> list[np.ndarray]:
        """For each column the pairs of leaf and column, by their numbers, that ask for it."""
        order = np.argsort(self.path_column, kind="stable")
        cut = np.searchsorted(self.path_column[order], np.arange(columns + 1))
        return [order[a:b] for a, b in zip(cut[:-1], cut[1:], strict=True)]

    def at(self, x: np.ndarray) -> float:
        """The prediction of a grid of atoms, (columns,)."""
        pairs = zip(self.path_column, self.path_allowed, strict=True)
        broken = np.array([not allowed[x[c]] for c, allowed in pairs], dtype=bool)
        inside = np.ones(len(self.value), dtype=bool)
        inside[self.path_leaf[broken]] = False
        return float(self.base + self.value[inside].sum())

    @property
    def highest(self) -> float:
        """The sum of the best leaves: no point is higher."""
        best = np.full(self.tree.max() + 1, -np.inf)
        np.maximum.at(best, self.tree, self.value)
        return float(self.base + best.sum())

    @property
    def lowest(self) -> float:
        """The sum of the worst leaves."""
        worst = np.full(self.tree.max() + 1, np.inf)
        np.minimum.at(worst, self.tree, self.value)
        return float(self.base + worst.sum())


@dataclass(frozen=True, eq=False)
class AtomRow:
    """A linear constraint over atoms.

    Args:
        weights: of the atoms of each column it asks for.
        factors: of the values of columns of numbers.
        low: of the sum.
        high: of the sum.
    """

    weights: dict[int, np.ndarray]
    factors: dict[int, float]
    low: float
    high: float

    def of(self, c: int, column: ColumnAtoms) -> np.ndarray:
        """The weights of a column's atoms, (A,)."""
        return self.weights.get(c, np.zeros(len(column)))


@dataclass(frozen=True, eq=False)
class Atoms:
    """A space, forests and constraints over atoms.

    Args:
        space: as it was.
        columns: their atoms.
        boxes: one for each forest.
        rows: of each constraint its alternatives, each a list of rows.
        floors: forests that are bounded, and what each must at least be.
    """

    space: Space
    columns: tuple[ColumnAtoms, ...]
    boxes: tuple[Boxes, ...]
    rows: tuple[list[list[AtomRow]], ...]
    floors: tuple[tuple[Boxes, float], ...] = ()

    @property
    def start(self) -> np.ndarray:
        """Where the atoms of each column start when all are in one line, (columns + 1,)."""
        return np.concatenate([[0], np.cumsum([len(column) for column in self.columns])])

    @property
    def asked(self) -> list[list[list[AtomRow]]]:
        """The alternatives of each constraint that can be broken: one that may be without rows always holds."""
        return [alternatives for alternatives in self.rows if all(alternatives)]

    @property
    def counted(self) -> bool:
        """Whether constraints are of atoms alone: no number is weighed by its value."""
        return not any(row.factors for alternatives in self.rows for rows in alternatives for row in rows)

    def allow(self, x: np.ndarray) -> bool:
        """Whether all constraints hold of a grid of atoms, (columns,); where they are `counted`."""

        def holds(row: AtomRow) -> bool:
            total = sum(float(weight[x[c]]) for c, weight in row.weights.items())
            return row.low - SLACK <= total <= row.high + SLACK

        every = all(any(all(map(holds, rows)) for rows in alternatives) for alternatives in self.asked)
        return every and all(boxes.at(x) >= low - SLACK for boxes, low in self.floors)

    def rewards(self, terms: Mapping[int, np.ndarray]) -> list[np.ndarray]:
        """Of each column's atoms, (A,): what their codes are rewarded with.

        Args:
            terms: of columns of codes, by number: a reward of each code, (K,).
        """
        return [
            terms[c][column.value.astype(np.int64)] if c in terms else np.zeros(len(column))
            for c, column in enumerate(self.columns)
        ]

    def encode(self, points: np.ndarray) -> np.ndarray:
        """The atoms of points, (n, columns) int64."""
        return np.stack([column.find(points[:, c]) for c, column in enumerate(self.columns)], 1)

    def decode(self, atoms: np.ndarray) -> np.ndarray:
        """A point of each row of atoms, (n, columns)."""
        return np.stack([column.value[atoms[:, c]] for c, column in enumerate(self.columns)], 1)


def merge(
    space: Space,
    forests: Sequence[Forest],
    constraints: Sequence[Constraint] = (),
    points: np.ndarray | None = None,
    terms: Mapping[int, np.ndarray] | None = None,
    floors: Sequence[tuple[Forest, float]] = (),
) -> Atoms:
    """The atoms of a space under some forests and constraints.

    Args:
        space: of the columns.
        forests: over its features.
        constraints: all are to hold.
        points: whose every code is told apart (data that a distance is taken to), (n, columns).
        terms: of columns of codes, a reward of each code, (K,): an atom's value is its best code.
        floors: forests that are bounded from below, and their bounds.
    """
    told = [constraint.alternatives(space) for constraint in constraints]
    rows = [row for alternatives in told for rows in alternatives for row in rows]
    grouped = _Splits(space, [*forests, *(forest for forest, _ in floors)])
    columns = []
    for c, column in enumerate(space.columns):
        if isinstance(column, Categorical):
            weights = [np.asarray(row.weights[c]) for row in rows if c in row.weights]
            if points is not None:
                seen = np.unique(points[:, c].astype(np.int64))
                own = np.zeros(column.size)
                own[seen] = 1 + np.arange(len(seen))  # a code of the data is an atom of its own
                weights.append(own)
            columns.append(_of_codes(column.size, grouped.sets(c), weights, (terms or {}).get(c)))
        else:
            columns.append(_of_numbers(column, grouped.edges(c), grouped.step))
    return Atoms(
        space,
        tuple(columns),
        tuple(_boxes(forest, space, columns) for forest in forests),
        tuple([[_row(row, columns) for row in alternative] for alternative in alternatives] for alternatives in told),
        tuple((_boxes(forest, space, columns), low) for forest, low in floors),
    )


class _Splits:
    """All splits of some forests, by column."""

    def __init__(self, space: Space, forests: Sequence[Forest]) -> None:
        self.space, self.forests = space, forests
        if len({forest.step for forest in forests}) > 1:
            raise InputError("ensembles of different libraries in one search: train all members with one")
        self.step = forests[0].step

    def sets(self, column: int) -> list[np.ndarray]:
        """Which codes go left, (K,) bool, for each different split of a column of codes."""
        found: dict[bytes, np.ndarray] = {}
        for forest in self.forests:
            for left in _split_sets(forest, self.space, column).values():
                found[left.tobytes()] = left
        return list(found.values())

    def edges(self, column: int) -> np.ndarray:
        """The least values that go right at the splits of a column of numbers, in order."""
        feature = [f for f, (c, _) in enumerate(self.space.sources) if c == column]
        found = [forest.first_right()[np.isin(forest.feature, feature)] for forest in self.forests]
        return np.unique(np.concatenate(found))


def _split_sets(forest: Forest, space: Space, column: int) -> dict[int, np.ndarray]:
    """Which codes of a column go left at each node that asks for it."""
    own = space.columns[column]
    assert isinstance(own, Categorical)
    found = {}
    for feature, (c, number) in enumerate(space.sources):
        if c != column:
            continue
        values = np.arange(own.size) if number is None or own.embedding is None else own.embedding[:, number]
        for node in np.flatnonzero(forest.feature == feature):
            found[int(node)] = forest.goes_left(int(node), values.astype(np.float64))
    return found


def _of_codes(size: int, sets: list[np.ndarray], weights: list[np.ndarray], term: np.ndarray | None) -> ColumnAtoms:
    table = np.stack([np.zeros(size), *sets, *weights], 1)
    _, of_code = np.unique(table, axis=0, return_inverse=True)
    of_code = of_code.reshape(-1)
    best_first = np.argsort(-term, kind="stable") if term is not None else np.arange(size)
    _, first = np.unique(of_code[best_first], return_index=True)
    value = best_first[first].astype(np.float64)
    return ColumnAtoms(value, value, value, of_code, np.empty(0))


def _of_numbers(column: Integer | Numeric, edges: np.ndarray, step: type[np.floating]) -> ColumnAtoms:
    """Intervals between the edges of splits; those without a value of the column are left out."""
    edges = edges[(edges > column.low) & (edges <= column.high)]
    low = np.concatenate([[float(column.low)], edges])
    high = np.concatenate([np.nextafter(edges.astype(step), step(-np.inf)).astype(np.float64), [float(column.high)]])
    if isinstance(column, Integer):
        low, high = np.ceil(low), np.floor(high)
    there = low <= high
    low, high = low[there], high[there]
    value = (low + high) / 2
    value = np.floor(value) if isinstance(column, Integer) else value.astype(step).astype(np.float64)
    return ColumnAtoms(value, low, high, None, low[1:], step)


def _boxes(forest: Forest, space: Space, columns: Sequence[ColumnAtoms]) -> Boxes:
    """Walk through all trees; leaves that no point reaches are left out."""
    column_of = [c for c, _ in space.sources]
    left_of: dict[int, np.ndarray] = {}
    for c, column in enumerate(space.columns):
        if isinstance(column, Categorical):
            codes = columns[c].value.astype(np.int64)
            left_of |= {node: left[codes] for node, left in _split_sets(forest, space, c).items()}
    for node in np.flatnonzero(forest.feature >= 0):
        if int(node) not in left_of:
            left_of[int(node)] = forest.goes_left(int(node), columns[column_of[forest.feature[node]]].value)
    splits: dict[tuple[int, bytes], int] = {}
    masks: list[np.ndarray] = []
    leaves: list[tuple[int, float]] = []
    nodes: list[tuple[int, int, int, int, int]] = []
    paths: list[tuple[int, int, np.ndarray]] = []

    def walk(tree: int, node: int, box: dict[int, np.ndarray]) -> None:
        if forest.feature[node] < 0:
            paths.extend((len(leaves), c, allowed) for c, allowed in box.items())
            leaves.append((tree, float(forest.value[node])))
            return
        c, left = column_of[forest.feature[node]], left_of[int(node)]
        here = box.get(c)
        both = [(left if here is None else here & left), (~left if here is None else here & ~left)]
        if not both[0].any() or not both[1].any():  # one side is empty: no question is asked
            walk(tree, int(forest.left[node] if both[0].any() else forest.right[node]), box)
            return
        split = splits.setdefault((c, left.tobytes()), len(masks))
        if split == len(masks):
            masks.append(left)
        first = len(leaves)
        walk(tree, int(forest.left[node]), {**box, c: both[0]})
        middle = len(leaves)
        walk(tree, int(forest.right[node]), {**box, c: both[1]})
        nodes.append((tree, split, first, middle, len(leaves)))

    for tree, root in enumerate(forest.roots):
        walk(tree, int(root), {})
    table = np.array(nodes, dtype=np.int64).reshape(-1, 5)
    return Boxes(
        forest.base,
        np.array([tree for tree, _ in leaves], dtype=np.int64),
        np.array([value for _, value in leaves]),
        table[:, 0],
        table[:, 1],
        table[:, 2:],
        np.array([c for c, _ in splits], dtype=np.int64),
        tuple(masks),
        np.array([leaf for leaf, _, _ in paths], dtype=np.int64),
        np.array([c for _, c, _ in paths], dtype=np.int64),
        tuple(allowed for _, _, allowed in paths),
    )


def _row(row: Row, columns: Sequence[ColumnAtoms]) -> AtomRow:
    weights, factors = {}, {}
    for c, weight in row.weights.items():
        if isinstance(weight, np.ndarray):
            weights[c] = weight[columns[c].value.astype(np.int64)]
        else:
            factors[c] = weight
    if row.apart is not None:
        for c, column in enumerate(columns):
            if column.of_code is None:
                weights[c] = (np.arange(len(column)) == column.find(row.apart[c : c + 1])[0]).astype(np.float64)
    return AtomRow(weights, factors, row.low, row.high)

"""A sum of trees as arrays: what every library's ensemble is read into.

    f(x) = base + sum over trees of the value of the leaf that x comes to.

At an inner node x goes left if its feature is at most the threshold (below it, where the library says so), or if its
code is in the node's set. Libraries compare in single or double precision, and so does this.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Forest:
    """Nodes of all trees, N of them, one after another.

    Args:
        base: added to the leaves.
        roots: the first node of each tree, (T,).
        feature: that a node asks for, -1 at a leaf, (N,).
        threshold: of a numeric split, (N,).
        codes: which of `sets` a categorical split goes left for, -1 for a numeric one, (N,).
        sets: (codes,) bool each; a row may serve many nodes.
        left: child of an inner node, (N,).
        right: child of an inner node, (N,).
        value: of a leaf, (N,).
        below: whether x goes left only strictly below the threshold.
        single: whether features are rounded to float32 before they are compared.
    """

    base: float
    roots: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray
    codes: np.ndarray
    sets: tuple[np.ndarray, ...]
    left: np.ndarray
    right: np.ndarray
    value: np.ndarray
    below: bool = False
    single: bool = False

    def __len__(self) -> int:
        return len(self.roots)

    def goes_left(self, node: int, values: np.ndarray) -> np.ndarray:
        """Whether values of a node's feature go left there, bool."""
        if self.codes[node] >= 0:
            return self.sets[self.codes[node]][values.astype(np.int64)]
        return self._under(values, self.threshold[node])

    def predict(self, features: np.ndarray) -> np.ndarray:
        """f of each row of features, (n, features) -> (n,)."""
        rows = np.arange(len(features))[:, None]
        node = np.repeat(self.roots[None], len(features), 0)
        table = np.zeros((len(self.sets) + 1, max([1, *(len(s) for s in self.sets)])), dtype=bool)
        for k, one in enumerate(self.sets):
            table[k, : len(one)] = one
        while (inner := self.feature[node] >= 0).any():
            x = features[rows, self.feature[node]]
            coded = self.codes[node]
            code = np.where(coded >= 0, x, 0).astype(np.int64)
            left = np.where(coded >= 0, table[coded, code], self._under(x, self.threshold[node]))
            node = np.where(inner, np.where(left, self.left[node], self.right[node]), node)
        return self.base + self.value[node].sum(1)

    @property
    def step(self) -> type[np.floating]:
        """The precision in which features are compared."""
        return np.float32 if self.single else np.float64

    def first_right(self) -> np.ndarray:
        """The least value that goes right at each node's threshold, (N,) float64; of numeric splits."""
        t = self.threshold
        if self.below:
            return t
        rounded = t.astype(self.step)
        after = np.nextafter(rounded, self.step(np.inf))
        return np.where(rounded.astype(np.float64) > t, rounded, after).astype(np.float64)

    def _under(self, x: np.ndarray, threshold: np.ndarray) -> np.ndarray:
        x = x.astype(self.step).astype(np.float64)
        return x < threshold if self.below else x <= threshold


def together(a: Forest, b: Forest) -> Forest:
    """The sum of two forests, which compare in the same way.

    Args:
        a: whose comparisons count.
        b: of splits on codes only, or that compares like a.
    """
    nodes, sets = len(a.feature), len(a.sets)

    def moved(numbers: np.ndarray, by: int) -> np.ndarray:
        return np.where(numbers >= 0, numbers + by, numbers)

    return Forest(
        a.base + b.base,
        np.concatenate([a.roots, b.roots + nodes]),
        np.concatenate([a.feature, b.feature]),
        np.concatenate([a.threshold, b.threshold]),
        np.concatenate([a.codes, moved(b.codes, sets)]),
        (*a.sets, *b.sets),
        np.concatenate([a.left, moved(b.left, nodes)]),
        np.concatenate([a.right, moved(b.right, nodes)]),
        np.concatenate([a.value, b.value]),
        a.below,
        a.single,
    )


class Grower:
    """Collects the nodes of a forest, tree by tree."""

    def __init__(self) -> None:
        self.roots: list[int] = []
        self.nodes: list[list[float]] = []  # feature, threshold, set, left, right, value
        self.sets: dict[bytes, int] = {}
        self.masks: list[np.ndarray] = []

    def root(self) -> None:
        """The next node is the first of a tree."""
        self.roots.append(len(self.nodes))

    def leaf(self, value: float) -> int:
        """Add a leaf; its number."""
        self.nodes.append([-1, 0.0, -1, -1, -1, value])
        return len(self.nodes) - 1

    def split(self, feature: int, threshold: float = 0.0, codes: np.ndarray | None = None) -> int:
        """Add an inner node, its children to be told by `join`; its number.

        Args:
            feature: that it asks for.
            threshold: of a numeric split.
            codes: those that go left, (codes,) bool, of a categorical one.
        """
        kind = -1
        if codes is not None:
            kind = self.sets.setdefault(codes.tobytes(), len(self.masks))
            if kind == len(self.masks):
                self.masks.append(codes)
        self.nodes.append([feature, threshold, kind, -1, -1, 0.0])
        return len(self.nodes) - 1

    def join(self, node: int, left: int, right: int) -> None:
        """Tell an inner node its children."""
        self.nodes[node][3:5] = [left, right]

    def forest(self, base: float, *, below: bool = False, single: bool = False, scale: float = 1.0) -> Forest:
        """All of it; `scale` multiplies the leaves."""
        table = np.array(self.nodes, dtype=np.float64).reshape(-1, 6)
        whole = [table[:, k].astype(np.int64) for k in (0, 2, 3, 4)]
        return Forest(
            float(base),
            np.array(self.roots, dtype=np.int64),
            whole[0],
            table[:, 1],
            whole[1],
            tuple(self.masks),
            whole[2],
            whole[3],
            table[:, 5] * scale,
            below,
            single,
        )

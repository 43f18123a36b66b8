"""Where a search looks: columns of codes, of whole numbers and of real numbers.

A grid of codes is a space of categorical columns, one a position. A model may see a code as it is (a category) or as
its vector in a codebook, `Categorical.embedding`: a column is then as many features as the vectors have numbers, and a
numeric split on one of them is a set of codes all the same.

Points are rows of float64, (n, columns): codes and whole numbers as such.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from oneprior.core import InputError, ShapeError


@dataclass(frozen=True, eq=False)
class Categorical:
    """One of `size` codes, 0 .. size - 1.

    Args:
        size: how many codes, K.
        name: for messages.
        embedding: what the model is shown in place of a code, (K, numbers); the code itself by default.
    """

    size: int
    name: str = ""
    embedding: np.ndarray | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.size, int | np.integer):
            raise InputError(
                f"a categorical column is told how many codes it has, not {self.size!r}: number them 0, 1, .."
            )
        if self.size < 1:
            raise InputError(f"a categorical column needs at least one code, got {self.size}")
        if self.embedding is not None and (self.embedding.ndim != 2 or len(self.embedding) != self.size):
            raise ShapeError("the embedding of a column of codes", self.embedding.shape, f"({self.size}, numbers)")


@dataclass(frozen=True)
class Integer:
    """A whole number from `low` to `high`, both included."""

    low: int
    high: int
    name: str = ""

    def __post_init__(self) -> None:
        _in_order(self.low, self.high, self.name)


@dataclass(frozen=True)
class Numeric:
    """A real number from `low` to `high`."""

    low: float
    high: float
    name: str = ""

    def __post_init__(self) -> None:
        _in_order(self.low, self.high, self.name)


Column = Categorical | Integer | Numeric


@dataclass(frozen=True, eq=False)
class Space:
    """Columns, in the order of a point's numbers.

    Args:
        columns: at least one.
    """

    columns: tuple[Column, ...]

    def __post_init__(self) -> None:
        if not self.columns:
            raise InputError("a space to search needs at least one column")
        names = [column.name for column in self.columns if column.name]
        if twice := {name for name in names if names.count(name) > 1}:
            raise InputError(f"columns are told apart by their names, and several are called {min(twice)!r}")

    @classmethod
    def grid(cls, positions: int, codes: int, codebook: np.ndarray | None = None) -> Space:
        """The codes of a VQ-VAE: `positions` columns of `codes` codes.

        Args:
            positions: of the grid, flattened.
            codes: K.
            codebook: (K, numbers), where the model is shown the codes' vectors.
        """
        return cls(tuple(Categorical(codes, f"position {k}", codebook) for k in range(positions)))

    def __len__(self) -> int:
        return len(self.columns)

    @cached_property
    def sources(self) -> tuple[tuple[int, int | None], ...]:
        """Of each feature of a model: its column, and the number of the embedding that it is, if it is one."""
        found: list[tuple[int, int | None]] = []
        for c, column in enumerate(self.columns):
            vectors = column.embedding if isinstance(column, Categorical) else None
            found += [(c, None)] if vectors is None else [(c, d) for d in range(vectors.shape[1])]
        return tuple(found)

    @cached_property
    def categories(self) -> np.ndarray:
        """Of each feature: the number of its codes, 0 where it is a number; (features,)."""
        shown = (self.columns[c] if d is None else None for c, d in self.sources)
        return np.array([column.size if isinstance(column, Categorical) else 0 for column in shown])

    @property
    def coded(self) -> np.ndarray:
        """Which columns are of codes, (columns,) bool."""
        return np.array([isinstance(column, Categorical) for column in self.columns])

    def features(self, points: np.ndarray) -> np.ndarray:
        """What a model is shown of points, (n, columns) -> (n, features), float64."""
        points = self.checked(points)
        shown = []
        for c, column in enumerate(self.columns):
            vectors = column.embedding if isinstance(column, Categorical) else None
            shown.append(points[:, c : c + 1] if vectors is None else vectors[points[:, c].astype(np.int64)])
        return np.concatenate(shown, 1).astype(np.float64)

    def checked(self, points: np.ndarray | Sequence[Sequence[float]]) -> np.ndarray:
        """Points as float64, (n, columns).

        Raises:
            ShapeError: for another number of columns.
            InputError: for a number that its column does not have; names the row and the column.
        """
        points = np.asarray(points, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != len(self):
            raise ShapeError("points of a space", points.shape, f"(n, {len(self)})")
        for c, column in enumerate(self.columns):
            low, high = (0, column.size - 1) if isinstance(column, Categorical) else (column.low, column.high)
            value = points[:, c]
            wrong = ~((value >= low) & (value <= high))
            if not isinstance(column, Numeric):
                wrong |= value != np.round(value)
            if wrong.any():
                row = int(wrong.argmax())
                what = "a number" if isinstance(column, Numeric) else "a whole number"
                raise InputError(
                    f"row {row}, {column.name or f'column {c}'}: got {value[row]:g}, needed {what} in {low} .. {high}"
                )
        return points


def _in_order(low: float, high: float, name: str) -> None:
    if not (np.isfinite(low) and np.isfinite(high) and low <= high):
        raise InputError(f"{name or 'a column'}: its range must be finite and in order, got {low} .. {high}")

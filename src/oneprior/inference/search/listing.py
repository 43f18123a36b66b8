"""Small problems, looked through point by point: all grids of atoms at once, as a sum of tables.

What the leaves that ask for the same columns say is one table over these columns, and an ensemble is the sum of its
tables, each repeated along the columns that it does not ask for. Where a space has a million points or two that takes a
tenth of a second, however densely its columns act together, which is what a mixed-integer program finds hardest.
"""

from __future__ import annotations

import math
import string

import numpy as np

from oneprior.inference.search.atoms import SLACK, AtomRow, Atoms, Boxes
from oneprior.inference.search.objective import Bonus, Goal


def by_atoms(atoms: Atoms, bonus: Bonus) -> bool:
    """Whether grids can be looked through atom by atom: there is no distance to data, and no number is weighed."""
    return atoms.counted and not (bonus.distance and bonus.data is not None)


def can_list(atoms: Atoms, most: int) -> bool:
    """Whether there are at most so many grids."""
    return math.prod(len(column) for column in atoms.columns) <= most


def best_listed(atoms: Atoms, goal: Goal, bonus: Bonus) -> tuple[np.ndarray | None, float]:
    """The best grid of atoms, (columns,), and its value; None and -inf where no grid is allowed.

    Args:
        atoms: the small problem; see `by_atoms` and `can_list`.
        goal: of the mean prediction.
        bonus: what is added.
    """
    members = [_everywhere(boxes, atoms) for boxes in atoms.boxes]
    mean = sum(members[1:], members[0]) / len(members)
    value = goal(mean)
    if bonus.spread:
        value = value + bonus.spread * np.mean([np.abs(member - mean) for member in members], 0)
    rewards = atoms.rewards(bonus.terms)
    for c in bonus.terms:
        value = value + _along(rewards[c], (c,), atoms)
    value = np.where(_allowed(atoms), value, -np.inf)
    place = np.unravel_index(int(value.argmax()), value.shape)
    best = float(value[place])
    if not np.isfinite(best):
        return None, best
    found = np.zeros(len(atoms.columns), dtype=np.int64)
    found[_free(atoms)] = place
    return found, best


def _free(atoms: Atoms) -> list[int]:
    """The columns that have a choice, which are few where grids are; an array has an axis for each of them only."""
    return [c for c, column in enumerate(atoms.columns) if len(column) > 1]


def _shape(atoms: Atoms) -> list[int]:
    return [len(atoms.columns[c]) for c in _free(atoms)]


def _everywhere(boxes: Boxes, atoms: Atoms) -> np.ndarray:
    """The predictions of a forest on all grids, an axis for each free column."""
    order = np.lexsort((boxes.path_column, boxes.path_leaf))
    leaf = boxes.path_leaf[order]
    begin = np.searchsorted(leaf, np.arange(len(boxes.value) + 1))
    asked: dict[tuple[int, ...], list[int]] = {}
    for k in range(len(boxes.value)):
        asked.setdefault(tuple(boxes.path_column[order[begin[k] : begin[k + 1]]].tolist()), []).append(k)
    found = np.full(_shape(atoms), boxes.base)
    for columns, leaves in asked.items():
        letters = string.ascii_lowercase[: len(columns)]
        sides = [
            np.stack([boxes.path_allowed[order[begin[k] + d]] for k in leaves]).astype(np.float64)
            for d in range(len(columns))
        ]
        words = ",".join(["Z", *(f"Z{letter}" for letter in letters)]) + f"->{letters}"
        table = np.einsum(words, boxes.value[leaves], *sides, optimize=len(columns) > 1)
        found += _along(table, columns, atoms)
    return found


def _along(table: np.ndarray, columns: tuple[int, ...], atoms: Atoms) -> np.ndarray:
    """A table over some columns, in their order, that is repeated along all others."""
    shape = [len(atoms.columns[c]) if c in columns else 1 for c in _free(atoms)]
    return np.asarray(table).reshape(shape)


def _allowed(atoms: Atoms) -> np.ndarray:
    """Which grids keep all constraints."""
    found = np.ones(_shape(atoms), dtype=bool)
    for alternatives in atoms.asked:
        either = np.zeros_like(found)
        for rows in alternatives:
            every = np.ones_like(found)
            for row in rows:
                every &= _holds(row, atoms)
            either |= every
        found &= either
    for boxes, low in atoms.floors:
        found &= _everywhere(boxes, atoms) >= low - SLACK
    return found


def _holds(row: AtomRow, atoms: Atoms) -> np.ndarray:
    total = np.zeros([1] * len(_free(atoms)))
    for c, weight in row.weights.items():
        total = total + _along(weight, (c,), atoms)
    return (total >= row.low - SLACK) & (total <= row.high + SLACK)

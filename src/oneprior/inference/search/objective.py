"""What is maximised: the mean of an ensemble's predictions, or nearness to a target, and what is added to it.

    a(x) = g(m(x)) + w_d min_i d(x, x_i) + w_s mean_k |f_k(x) - m(x)| + sum_p r[p, x_p],    m = mean_k f_k,

g(m) = m, -m or -|m - target|; d the number of columns of codes that differ (overlap distance), x_i the data: far from
all of them is unknown ground (ENTMOOT: Thebelt et al. 2021). f_k are ensembles trained on parts of the data, whose
disagreement is the other sign of unknown ground. r is a reward of each code at its place, such as the log-probability
of a code among the data there, which pulls the other way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Goal:
    """What of the mean prediction is maximised.

    Args:
        sign: 1 to maximise, -1 to minimise.
        target: to come near to, in place of either.
    """

    sign: float = 1.0
    target: float | None = None

    def __call__(self, mean: np.ndarray) -> np.ndarray:
        return self.sign * mean if self.target is None else -np.abs(mean - self.target)


@dataclass(frozen=True, eq=False)
class Bonus:
    """What is added to the prediction; nothing by default.

    Args:
        distance: weight of the overlap distance to the nearest of `data`, 0 or more.
        data: (n, columns); needed where `distance` counts.
        spread: weight of the mean absolute deviation of the ensembles, 0 or more.
        terms: of columns of codes, by number: a reward of each code, (K,).
    """

    distance: float = 0.0
    data: np.ndarray | None = None
    spread: float = 0.0
    terms: Mapping[int, np.ndarray] = field(default_factory=dict)


def acquisition(predictions: np.ndarray, goal: Goal, bonus: Bonus, points: np.ndarray, coded: np.ndarray) -> np.ndarray:
    """a of points, (n,).

    Args:
        predictions: of the ensembles, (members, n).
        goal: of their mean.
        bonus: what is added.
        points: (n, columns).
        coded: which columns are of codes.
    """
    mean = predictions.mean(0)
    found = goal(mean)
    if bonus.spread:
        found = found + bonus.spread * np.abs(predictions - mean).mean(0)
    if bonus.distance and bonus.data is not None:
        found = found + bonus.distance * nearest(points, bonus.data, coded)
    for c, term in bonus.terms.items():
        found = found + term[points[:, c].astype(np.int64)]
    return found


def nearest(points: np.ndarray, data: np.ndarray, coded: np.ndarray) -> np.ndarray:
    """Columns of codes in which points differ from the nearest of the data, (n,)."""
    a, b = points[:, coded].astype(np.int32), data[:, coded].astype(np.int32)
    least = np.full(len(a), a.shape[1])
    for start in range(0, len(b), 512):
        least = np.minimum(least, (a[:, None] != b[None, start : start + 512]).sum(2).min(1))
    return least.astype(np.float64)

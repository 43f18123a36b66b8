"""The tree ensemble that stands for an expensive score: fitted to what was measured, its size chosen on what was not.

A larger ensemble predicts higher optima than it delivers: in a trial 800 trees promised 11.1 and gave 6.4, 400 promised
7.9 and gave 7.1. So the number of trees is the one at which predictions of held-out points are best, and what
the held-out points say of the ensemble is told with it.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from oneprior.core import InputError
from oneprior.inference.search.ensembles import read_forest
from oneprior.inference.search.forest import Forest, together
from oneprior.inference.search.shared import STRENGTHS, SharedTable, fit_table
from oneprior.inference.search.space import Categorical, Space

if TYPE_CHECKING:
    from lightgbm import LGBMRegressor


@dataclass(frozen=True)
class Trees:
    """The settings of a surrogate.

    Args:
        most: trees at most; the best number up to it is taken.
        depth: of a tree: 2 sees pairs of columns, and is proven fastest.
        learning_rate: of boosting.
        patience: trees without gain on held-out points after which boosting ends.
        least: points in a leaf, at least.
        members: ensembles, each fitted without another part of the points; several have a spread.
        held_out: share of the points that choose the number of trees.
    """

    most: int = 800
    depth: int = 2
    learning_rate: float = 0.1
    patience: int = 50
    least: int = 20
    members: int = 1
    held_out: float = 0.2

    def __post_init__(self) -> None:
        for name in ("most", "depth", "least", "members", "patience"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.learning_rate <= 0 or not 0 < self.held_out < 1:
            raise InputError("learning_rate must be above 0, and held_out a share between 0 and 1")

    @property
    def fewest(self) -> int:
        """Points of which there are enough for a tree beside those that are held out."""
        return 2 * self.least + round(2 * self.least * self.held_out / (1 - self.held_out))


@dataclass(frozen=True, eq=False)
class Surrogate:
    """Ensembles fitted to scores.

    Args:
        models: LightGBM regressors, over the features of the space; or these with a shared table, as a sum of trees.
        space: of the points.
        r2: share of the variance of held-out points that the first ensemble explained, before it was fitted to all.
        error: root of its mean square error there, in units of the score.
        trees: how many were best.
        points: that it was fitted to.
    """

    models: tuple[LGBMRegressor | Forest, ...]
    space: Space
    r2: float
    error: float
    trees: int
    points: int

    def predict(self, points: np.ndarray) -> np.ndarray:
        """The mean prediction, (n, columns) -> (n,)."""
        features = self.space.features(points)
        return np.mean(np.stack([np.asarray(model.predict(features)) for model in self.models]), 0)


def fit_surrogate(
    space: Space,
    points: np.ndarray,
    scores: np.ndarray,
    trees: Trees,
    seed: int = 0,
    *,
    shared: bool = False,
    weights: np.ndarray | None = None,
) -> Surrogate:
    """Fit ensembles to scores, as they are: no rounding, no scaling.

    Args:
        space: of the points.
        points: (n, columns).
        scores: (n,), finite.
        trees: settings.
        seed: of what is held out.
        shared: whether what a code is worth wherever it stands comes first (`shared`), and trees learn the rest.
        weights: how much each point counts, (n,), in the fit and in the choice of the number of trees; all alike by
            default. What is said of held-out points counts each of them once.

    Raises:
        InputError: for scores that are all equal or not finite, too few points for a tree, or a shared table of
            columns that are no codes of one codebook.
    """
    points, scores = space.checked(points), np.asarray(scores, dtype=np.float64)
    if not np.isfinite(scores).all():
        raise InputError(f"score {int((~np.isfinite(scores)).argmax())} is not finite: leave failed points out")
    if len(points) < trees.fewest:
        raise InputError(
            f"{len(points)} scored points are too few for a tree whose leaves hold {trees.least}: score at least "
            f"{trees.fewest}, or ask for smaller leaves"
        )
    if np.ptp(scores) == 0:
        raise InputError(f"all {len(scores)} scores are {scores[0]:g}: there is nothing to learn from them")
    weights = np.ones(len(points)) if weights is None else np.asarray(weights, dtype=np.float64)
    told = _Scored(space, points, space.features(points), scores, weights)
    order = np.random.default_rng(seed).permutation(len(points))
    parts = np.array_split(order, max(2, round(1 / trees.held_out)))
    models, first = [], (0.0, 0.0, 0)
    for k in range(trees.members):
        out = parts[k % len(parts)]
        rest = np.setdiff1d(order, out)
        table = _best_table(told.of(rest), told.of(out)) if shared else None
        left = told.without(table)
        count, predicted = _best_count(left.of(rest), left.of(out), trees)
        if k == 0:
            off = left.scores[out] - predicted
            variance = max(float(np.var(scores[out])), 1e-12)
            first = (1 - float(np.mean(off**2)) / variance, float(np.mean(off**2)) ** 0.5, count)
        alone = trees.members == 1  # of several each has its own part held out, for their spread
        used = told if alone else told.of(rest)
        table = _table(told, table.strength) if alone and table is not None else table
        models.append(_sum(space, _fit(used.without(table), count, trees), table))
    return Surrogate(tuple(models), space, *first, len(points))


@dataclass(frozen=True, eq=False)
class _Scored:
    """Points and what is known of each.

    Args:
        space: of the points.
        points: (n, columns).
        features: what trees see of them, (n, features).
        scores: (n,).
        weights: (n,).
    """

    space: Space
    points: np.ndarray
    features: np.ndarray
    scores: np.ndarray
    weights: np.ndarray

    def of(self, rows: np.ndarray) -> _Scored:
        """Some of them."""
        return _Scored(self.space, self.points[rows], self.features[rows], self.scores[rows], self.weights[rows])

    def without(self, table: SharedTable | None) -> _Scored:
        """What a shared table leaves to the trees."""
        return self if table is None else replace(self, scores=self.scores - table.predict(self.points))


def _best_table(fitted: _Scored, out: _Scored) -> SharedTable:
    """The shared table that predicts held-out points best."""
    tables = [_table(fitted, strength) for strength in STRENGTHS]
    return min(tables, key=lambda table: float(out.weights @ out.without(table).scores ** 2))


def _table(fitted: _Scored, strength: float) -> SharedTable:
    sizes = {column.size if isinstance(column, Categorical) else 0 for column in fitted.space.columns}
    if len(sizes) > 1 or not fitted.space.categories.all():
        raise InputError("a shared table is of codes of one codebook, shown as codes, at every place")
    return fit_table(fitted.points, fitted.scores, max(sizes), strength, fitted.weights)


def _sum(space: Space, model: LGBMRegressor, table: SharedTable | None) -> LGBMRegressor | Forest:
    return model if table is None else together(read_forest(model, space), table.forest(len(space)))


def _best_count(fitted: _Scored, out: _Scored, trees: Trees) -> tuple[int, np.ndarray]:
    """The number of trees that predicts held-out points best, and its predictions of them."""
    import lightgbm

    stop = lightgbm.early_stopping(trees.patience, verbose=False)
    apart: dict[str, Any] = {"eval_X": out.features, "eval_y": out.scores}
    if "eval_X" not in inspect.signature(lightgbm.LGBMRegressor.fit).parameters:  # before LightGBM 4.7
        apart = {"eval_set": [(out.features, out.scores)]}
    held = {**apart, "eval_sample_weight": [out.weights], "eval_metric": "l2", "callbacks": [stop]}
    model = _fit(fitted, trees.most, trees, held)
    count = max(1, int(model.best_iteration_ or trees.most))
    return count, np.asarray(model.predict(out.features, num_iteration=count))


def _fit(told: _Scored, count: int, trees: Trees, held: dict[str, Any] | None = None) -> LGBMRegressor:
    import lightgbm

    model = lightgbm.LGBMRegressor(
        n_estimators=count,
        max_depth=trees.depth,
        num_leaves=2**trees.depth,
        learning_rate=trees.learning_rate,
        min_child_samples=trees.least,
        min_data_per_group=trees.least,
        cat_smooth=1.0,
        random_state=0,
        deterministic=True,
        force_row_wise=True,
        n_jobs=1,
        verbose=-1,
    )
    coded: Sequence[int] = np.flatnonzero(told.space.categories).tolist()
    given: dict[str, Any] = {"sample_weight": told.weights, "categorical_feature": coded or "auto", **(held or {})}
    return model.fit(told.features, told.scores, **given)

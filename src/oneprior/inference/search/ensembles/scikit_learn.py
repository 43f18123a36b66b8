"""scikit-learn: a decision tree, a random forest, extra trees, gradient boosting.

They know no categories: a column of codes is split as the number that it is. Features are compared in single precision.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from oneprior.core import InputError
from oneprior.inference.search.forest import Forest, Grower

AVERAGED = ("RandomForestRegressor", "ExtraTreesRegressor", "BaggingRegressor")
SINGLE = ("DecisionTreeRegressor", "ExtraTreeRegressor")
BOOSTED = ("GradientBoostingRegressor",)


def read(model: Any, categories: np.ndarray) -> Forest:
    """The trees of a fitted regressor.

    Args:
        model: one of `AVERAGED`, `SINGLE`, `BOOSTED`.
        categories: the number of codes of each feature, 0 of a number; unused, since all are split as numbers.
    """
    name, base, scale = type(model).__name__, 0.0, 1.0
    if name in SINGLE:
        trees = [model]
    elif name in AVERAGED:
        trees, scale = list(model.estimators_), 1 / len(model.estimators_)
        if name == "BaggingRegressor":
            _plain_bagging(model)
    elif name in BOOSTED:
        trees, scale = list(model.estimators_[:, 0]), model.learning_rate
        base = _start(model)
    else:
        raise InputError(
            f"scikit-learn's {name} is not a sum of trees: give one of {', '.join((*SINGLE, *AVERAGED, *BOOSTED))}, "
            "HistGradientBoostingRegressor"
        )
    if any(tree.tree_.n_outputs != 1 for tree in trees):
        raise InputError(f"a {name} of several outputs: train one for the one to be maximised")
    grower = Grower()
    for tree in trees:
        _grow(tree.tree_, grower)
    return grower.forest(base, single=True, scale=scale)


def _grow(tree: Any, grower: Grower) -> None:
    """Add the nodes of a tree; scikit-learn numbers them from its root, 0."""
    grower.root()
    first = len(grower.nodes)
    for k in range(tree.node_count):
        if tree.children_left[k] < 0:
            grower.leaf(float(tree.value[k].item()))
        else:
            own = grower.split(int(tree.feature[k]), threshold=float(tree.threshold[k]))
            grower.join(own, first + int(tree.children_left[k]), first + int(tree.children_right[k]))


def _plain_bagging(model: Any) -> None:
    inside = {type(one).__name__ for one in model.estimators_}
    if not inside <= set(SINGLE):
        raise InputError(f"a BaggingRegressor of {', '.join(sorted(inside))}: bag decision trees")
    if any(len(own) != model.n_features_in_ for own in model.estimators_features_):
        raise InputError("a BaggingRegressor whose trees see some of the features each: set max_features=1.0")


def _start(model: Any) -> float:
    """What gradient boosting starts from, the same for all x."""
    if isinstance(model.init_, str):
        return 0.0
    if type(model.init_).__name__ != "DummyRegressor":
        raise InputError(
            f"gradient boosting that starts from a {type(model.init_).__name__} is no sum of trees: leave init as it is"
        )
    return float(np.ravel(model.init_.constant_)[0])

"""LightGBM: boosters and its scikit-learn regressors; gbdt, dart, rf, stopped early.

A categorical node lists the codes that go left; all others go right, those that it never saw too. A random forest
(`rf`) averages its trees. `dump_model` gives the trees up to the best iteration, as `predict` takes them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from oneprior.core import InputError
from oneprior.inference.search.forest import Forest, Grower

IDENTITY = ("regression", "regression_l1", "huber", "fair", "quantile", "mape", "lambdarank", "rank_xendcg", "none")
"""Objectives whose prediction is the sum of the trees."""


def read(model: Any, categories: np.ndarray) -> Forest:
    """The trees of a booster.

    Args:
        model: `lightgbm.Booster` or a fitted `LGBMRegressor`.
        categories: the number of codes of each feature, 0 of a number, (features,).
    """
    told = getattr(model, "booster_", model).dump_model()
    objective, *rest = str(told.get("objective", "none")).split(" ")
    if objective not in IDENTITY or "sqrt" in rest:
        raise InputError(
            f"LightGBM's objective {told['objective']!r} puts a link between its trees and its prediction: train with "
            "objective 'regression' on the number that is to be maximised"
        )
    if told["num_class"] != 1 or told["num_tree_per_iteration"] != 1:
        raise InputError(f"a model of {told['num_class']} outputs: train one regressor for the one to be maximised")
    if any(list(labels) != list(range(len(labels))) for labels in told.get("pandas_categorical") or []):
        raise InputError(
            "the model was trained on categories of pandas: train it on the codes 0, 1, 2, ... of a column"
        )
    grower = Grower()
    for tree in told["tree_info"]:
        grower.root()
        _grow(tree["tree_structure"], categories, grower)
    count = len(told["tree_info"]) if told.get("average_output") else 1
    return grower.forest(0.0, scale=1 / max(1, count))


def _grow(node: dict[str, Any], categories: np.ndarray, grower: Grower) -> int:
    if "split_feature" not in node:
        if "leaf_coeff" in node:
            raise InputError("LightGBM's linear trees have a line in each leaf, not a value: train without linear_tree")
        return grower.leaf(node["leaf_value"])
    feature = node["split_feature"]
    if node["decision_type"] == "==":
        size = int(categories[feature])
        if not size:
            raise InputError(f"feature {feature} is a category of the model and a number of the space")
        listed = np.array([int(code) for code in str(node["threshold"]).split("||")])
        own = grower.split(feature, codes=np.isin(np.arange(size), listed))
    else:
        if node["missing_type"] == "Zero":
            raise InputError("the model was trained with zero_as_missing, which sends 0 its own way: train without it")
        own = grower.split(feature, threshold=float(node["threshold"]))
    grower.join(own, _grow(node["left_child"], categories, grower), _grow(node["right_child"], categories, grower))
    return own

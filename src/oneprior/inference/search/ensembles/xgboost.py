"""XGBoost: boosters and its scikit-learn regressors, numeric and categorical; gbtree, dart, random forests.

A number goes left strictly below its condition, in single precision; a categorical node lists the codes that go right,
and all others go left. The prediction is XGBoost's sum in single precision, ours that of the same trees in double.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from oneprior.core import InputError
from oneprior.inference.search.forest import Forest, Grower

IDENTITY = (
    "reg:squarederror",
    "reg:linear",
    "reg:absoluteerror",
    "reg:pseudohubererror",
    "reg:quantileerror",
    "rank:pairwise",
    "rank:ndcg",
    "rank:map",
)
"""Objectives whose prediction is the sum of the trees."""


def read(model: Any, categories: np.ndarray) -> Forest:
    """The trees of a booster.

    Args:
        model: `xgboost.Booster` or a fitted `XGBRegressor`.
        categories: the number of codes of each feature, 0 of a number, (features,).
    """
    booster = model.get_booster() if hasattr(model, "get_booster") else model  # two classes of one library
    told = json.loads(booster.save_raw("json"))["learner"]
    objective = told["objective"]["name"]
    if objective not in IDENTITY:
        raise InputError(
            f"XGBoost's objective {objective!r} puts a link between its trees and its prediction: train with "
            "reg:squarederror on the number that is to be maximised"
        )
    machine = told["gradient_booster"]
    if machine["name"] not in ("gbtree", "dart"):
        raise InputError(f"XGBoost's {machine['name']} has no trees: train with gbtree")
    drop = machine.get("weight_drop")
    trees = (machine["gbtree"] if machine["name"] == "dart" else machine)["model"]["trees"]
    start = np.atleast_1d(np.array(json.loads(str(told["learner_model_param"]["base_score"])), dtype=np.float64))
    if len(start) != 1 or any(len(tree["base_weights"]) != len(tree["left_children"]) for tree in trees):
        raise InputError("a model of several outputs: train one for the one to be maximised")
    last = booster.attr("best_iteration")
    if last is not None and machine["name"] == "gbtree":
        rounds = machine["model"]["iteration_indptr"]
        trees = trees[: rounds[int(last) + 1]]
    grower = Grower()
    for tree, weight in zip(trees, drop or [1.0] * len(trees), strict=True):
        _grow(tree, categories, grower, float(weight))
    return grower.forest(float(start[0]), below=True, single=True)


def _grow(tree: dict[str, Any], categories: np.ndarray, grower: Grower, weight: float) -> None:
    """Add the nodes of a tree, as it numbers them; a leaf's value is its condition."""
    grower.root()
    first = len(grower.nodes)
    listed = {
        node: tree["categories"][start : start + size]
        for node, start, size in zip(
            tree["categories_nodes"], tree["categories_segments"], tree["categories_sizes"], strict=True
        )
    }
    for k, (left, right) in enumerate(zip(tree["left_children"], tree["right_children"], strict=True)):
        if left < 0:
            grower.leaf(weight * float(tree["split_conditions"][k]))
            continue
        feature = int(tree["split_indices"][k])
        if k in listed:
            size = int(categories[feature])
            if not size:
                raise InputError(f"feature {feature} is a category of the model and a number of the space")
            own = grower.split(feature, codes=~np.isin(np.arange(size), listed[k]))
        else:
            own = grower.split(feature, threshold=float(np.float32(tree["split_conditions"][k])))
        grower.join(own, first + left, first + right)

"""scikit-learn's gradient boosting on histograms, numeric and categorical.

A categorical node keeps bits of the codes that go left; a code that was not among the training data counts as missing,
and goes where the node sends what is missing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from oneprior.core import InputError
from oneprior.inference.search.forest import Forest, Grower

IDENTITY = ("squared_error", "absolute_error", "quantile")


def read(model: Any, categories: np.ndarray) -> Forest:
    """The trees of a fitted `HistGradientBoostingRegressor`.

    Args:
        model: the regressor.
        categories: the number of codes of each feature, 0 of a number, (features,).
    """
    loss = getattr(model, "loss", "another")
    if loss not in IDENTITY:
        raise InputError(
            f"{type(model).__name__} with loss {loss!r} puts a link between its trees and its prediction: train a "
            "HistGradientBoostingRegressor with loss 'squared_error' on the number that is to be maximised"
        )
    columns, known = _inside(model, categories)
    grower = Grower()
    for (predictor,) in model._predictors:
        grower.root()
        first = len(grower.nodes)
        for node in predictor.nodes:
            if node["is_leaf"]:
                grower.leaf(float(node["value"]))
                continue
            feature = int(columns[node["feature_idx"]])
            if node["is_categorical"]:
                bits = predictor.raw_left_cat_bitsets[node["bitset_idx"]]
                own = grower.split(feature, codes=_left(bits, known[feature], bool(node["missing_go_to_left"])))
            else:
                own = grower.split(feature, threshold=float(node["num_threshold"]))
            grower.join(own, first + int(node["left"]), first + int(node["right"]))
    return grower.forest(float(np.ravel(model._baseline_prediction)[0]))


def _inside(model: Any, categories: np.ndarray) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """The features in the order in which the trees have them, and of each category what the trees call its codes.

    The regressor puts its categories first and counts the codes that it saw from 0; -1 is one that it did not see.
    """
    is_category = model.is_categorical_
    count = len(categories)
    if is_category is None or not np.any(is_category):
        return np.arange(count), {}
    order = np.concatenate([np.flatnonzero(is_category), np.flatnonzero(~is_category)])
    known = {}
    encoder = model._preprocessor.named_transformers_["encoder"]
    for feature, seen in zip(np.flatnonzero(is_category), encoder.categories_, strict=True):
        if not categories[feature]:
            raise InputError(f"feature {feature} is a category of the model and a number of the space")
        inner = np.full(categories[feature], -1)
        seen = seen[~np.isnan(seen)].astype(np.int64)
        kept = seen < categories[feature]
        inner[seen[kept]] = np.flatnonzero(kept)
        known[int(feature)] = inner
    return order, known


def _left(bits: np.ndarray, inner: np.ndarray, missing_left: bool) -> np.ndarray:
    """Which codes go left: a bit of eight words of 32 for each, or where what is missing goes."""
    code = np.maximum(inner, 0)
    there = (bits[code // 32] >> (code % 32).astype(np.uint32)) & 1
    return np.where(inner >= 0, there.astype(bool), missing_left)

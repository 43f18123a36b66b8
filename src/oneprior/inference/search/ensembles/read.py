"""One door for the ensembles of all libraries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from oneprior.core import InputError
from oneprior.inference.search.ensembles import gradient_histograms, lightgbm, scikit_learn, xgboost
from oneprior.inference.search.forest import Forest
from oneprior.inference.search.space import Space

Reader = Callable[[Any, np.ndarray], Forest]
READERS: dict[str, Reader] = {
    "lightgbm": lightgbm.read,
    "xgboost": xgboost.read,
    "sklearn.ensemble._hist_gradient_boosting": gradient_histograms.read,
    "sklearn": scikit_learn.read,
}
"""By the module of the model's class, the most particular first; no library is imported to read its model."""


def read_forest(model: Any, space: Space) -> Forest:
    """The sum of trees that a trained model is, over the features of a space.

    Args:
        model: a regressor of LightGBM (or its booster), scikit-learn (trees, forests, gradient boosting, histograms) or
            XGBoost; or a `Forest`.
        space: whose features the model was trained on.

    Raises:
        InputError: for what is no sum of trees (linear leaves, other links, several outputs), of another library, or
            not trained yet, or with another number of features than the space.
    """
    if isinstance(model, Forest):
        return model
    modules = [kind.__module__ for kind in type(model).__mro__]
    for root, read in READERS.items():
        if any(module == root or module.startswith(f"{root}.") for module in modules):
            if hasattr(model, "fit") and getattr(model, "n_features_in_", None) is None:
                raise InputError(f"this {type(model).__name__} has not been trained: fit it first")
            _same_features(model, space)
            return read(model, space.categories)
    raise InputError(
        f"{type(model).__module__}.{type(model).__name__} is not an ensemble that can be read: give a regressor of "
        "LightGBM, scikit-learn (trees, forests, gradient boosting) or XGBoost"
    )


def _same_features(model: Any, space: Space) -> None:
    for name in ("n_features_in_", "num_feature", "num_features"):
        count = getattr(model, name, None)
        count = count() if callable(count) else count
        if count is not None:
            if count != len(space.sources):
                shown = len(space.sources)
                raise InputError(f"the model has {count} features, and the columns of the space show it {shown}")
            return

"""Every library's ensemble, read into one forest, predicts what the library predicts, at every kind of point."""

import lightgbm
import numpy as np
import pytest
import xgboost
from sklearn.ensemble import (
    AdaBoostRegressor,
    BaggingRegressor,
    ExtraTreesRegressor,
    GradientBoostingRegressor,
    HistGradientBoostingRegressor,
    RandomForestRegressor,
)
from sklearn.linear_model import LinearRegression
from sklearn.tree import DecisionTreeRegressor

from oneprior.core import InputError
from oneprior.inference.search.ensembles import read_forest
from oneprior.inference.search.space import Categorical, Integer, Numeric, Space

CODES = 6
SPACE = Space((*(Categorical(CODES, f"code {k}") for k in range(4)), Numeric(-1, 1, "x"), Integer(0, 9, "n")))
COLUMNS = [0, 1, 2, 3]
LIGHT = {"verbose": -1, "min_data_per_group": 1, "cat_smooth": 1, "min_child_samples": 3, "n_jobs": 1}


def points(n: int, codes: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.column_stack([rng.integers(0, codes, (n, 4)), rng.uniform(-1, 1, n), rng.integers(0, 10, n)]).astype(
        float
    )


X = points(300, CODES - 1, 0)
"""Without the last code, which is then unseen."""
Y = np.sin(X[:, 0] * X[:, 1]) + (X[:, 2] == 3) * X[:, 4] + 0.1 * X[:, 5]
EVERYWHERE = points(1000, CODES, 1)


def agrees(model, tolerance: float = 1e-12) -> None:
    forest = read_forest(model, SPACE)
    assert np.abs(forest.predict(SPACE.features(EVERYWHERE)) - model.predict(EVERYWHERE)).max() < tolerance


@pytest.mark.parametrize("kind", ["gbdt", "dart", "rf"])
def test_lightgbm_of_every_boosting(kind):
    bagging = {"bagging_freq": 1, "bagging_fraction": 0.7} if kind == "rf" else {}
    model = lightgbm.LGBMRegressor(boosting_type=kind, n_estimators=20, **LIGHT, **bagging)
    agrees(model.fit(X, Y, categorical_feature=COLUMNS))


def test_lightgbm_stopped_early_has_the_trees_of_its_best_round():
    data, other = lightgbm.Dataset(X, Y, categorical_feature=[0, 1]), lightgbm.Dataset(X[:50], Y[:50] + 1)
    stop = lightgbm.early_stopping(3, verbose=False)
    model = lightgbm.train({"verbose": -1, "num_threads": 1}, data, 60, valid_sets=[other], callbacks=[stop])
    model.best_iteration -= 2  # as where the best round was not the last one kept
    assert len(read_forest(model, SPACE)) == model.best_iteration
    agrees(model)


def test_a_lightgbm_stump_is_a_constant():
    agrees(lightgbm.train({"verbose": -1, "num_threads": 1}, lightgbm.Dataset(X, np.full(len(X), 2.5)), 3))


@pytest.mark.parametrize("kind", ["gbtree", "dart"])
def test_xgboost_with_categories(kind):
    model = xgboost.XGBRegressor(
        n_estimators=15,
        booster=kind,
        enable_categorical=True,
        feature_types=["c"] * 4 + ["q", "int"],
        max_cat_to_onehot=3,
        n_jobs=1,
        **({"rate_drop": 0.2} if kind == "dart" else {}),
    )
    agrees(model.fit(X, Y), 1e-5)  # it sums in single precision


def test_xgboost_stopped_early_and_its_random_forest():
    model = xgboost.XGBRegressor(n_estimators=40, early_stopping_rounds=2, n_jobs=1)
    agrees(model.fit(X, Y, eval_set=[(X[:50], Y[:50] + 0.5)], verbose=False), 1e-5)
    assert len(read_forest(model, SPACE)) == model.best_iteration + 1
    agrees(xgboost.XGBRFRegressor(n_estimators=10, n_jobs=1).fit(X, Y), 1e-5)


@pytest.mark.parametrize(
    "model",
    [
        DecisionTreeRegressor(random_state=0),
        RandomForestRegressor(8, random_state=0),
        ExtraTreesRegressor(8, random_state=0),
        BaggingRegressor(n_estimators=5, random_state=0),
        GradientBoostingRegressor(n_estimators=20),
        GradientBoostingRegressor(n_estimators=20, init="zero"),
    ],
    ids=lambda model: type(model).__name__,
)
def test_scikit_learn(model):
    agrees(model.fit(X, Y))


@pytest.mark.parametrize("columns", [None, [0, 1, 2, 3], [1, 3]])
def test_histograms_with_categories_in_any_place(columns):
    model = HistGradientBoostingRegressor(categorical_features=columns, min_samples_leaf=3, max_iter=20)
    agrees(model.fit(X, Y))


def test_scikit_learn_compares_in_single_precision():
    """Thresholds lie between two neighbours of float32: what rounds to the right must go right."""
    x = np.float32(0.3) + np.arange(8, dtype=np.float32) * np.float32(3e-8)
    space, y = Space((Numeric(0, 1),)), np.arange(8.0) % 2
    model = DecisionTreeRegressor().fit(x[:, None], y)
    between = np.linspace(x[0], x[-1], 999)[:, None].astype(np.float64)
    assert (read_forest(model, space).predict(between) == model.predict(between)).all()


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (lightgbm.LGBMRegressor(linear_tree=True, verbose=-1, n_jobs=1), "linear_tree"),
        (lightgbm.LGBMRegressor(objective="poisson", verbose=-1, n_jobs=1), "'poisson'"),
        (lightgbm.LGBMRegressor(reg_sqrt=True, verbose=-1, n_jobs=1), "link"),
        (xgboost.XGBRegressor(objective="reg:gamma", n_jobs=1), "reg:gamma"),
        (xgboost.XGBRegressor(booster="gblinear", n_jobs=1), "gblinear"),
        (HistGradientBoostingRegressor(loss="poisson"), "'poisson'"),
        (AdaBoostRegressor(n_estimators=3), "AdaBoostRegressor"),
        (BaggingRegressor(LinearRegression(), 2), "LinearRegression"),
        (LinearRegression(), "LinearRegression"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_is_no_sum_of_trees_is_refused_by_name(model, said):
    model.fit(X, np.abs(Y) + 0.1)
    with pytest.raises(InputError, match=said):
        read_forest(model, SPACE)


def test_several_outputs_and_other_features_are_refused():
    with pytest.raises(InputError, match="several outputs"):
        read_forest(RandomForestRegressor(2).fit(X, np.stack([Y, Y], 1)), SPACE)
    with pytest.raises(InputError, match="has 5 features, and the columns of the space show it 6"):
        read_forest(DecisionTreeRegressor().fit(X[:, :5], Y), SPACE)
    model = lightgbm.LGBMRegressor(n_estimators=5, **LIGHT).fit(X, Y, categorical_feature=[5])
    with pytest.raises(InputError, match="a number of the space"):
        read_forest(model, SPACE)


@pytest.mark.parametrize(
    "model",
    [
        lightgbm.LGBMRegressor(),
        xgboost.XGBRegressor(),
        HistGradientBoostingRegressor(),
        RandomForestRegressor(),
        DecisionTreeRegressor(),
    ],
    ids=lambda model: type(model).__name__,
)
def test_what_was_not_trained_is_said_to_be_so(model):
    with pytest.raises(InputError, match=f"this {type(model).__name__} has not been trained: fit it first"):
        read_forest(model, SPACE)

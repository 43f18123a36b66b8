"""Looking through a small space gives what the program proves, and is fast where the program is not."""

import lightgbm
import numpy as np
import pytest

from oneprior.inference.search import Allowed, AtLeast, Ball, Bonus, Effort, Exclude, Goal, Linear, Search, Space
from oneprior.inference.search.space import Integer

SPACE = Space.grid(4, 5)
RNG = np.random.default_rng(0)
X = RNG.integers(0, 5, (400, 4)).astype(float)


@pytest.fixture
def _by_programs():
    """Both are asked here."""


def ensemble(seed, depth=3, trees=15):
    weights = np.random.default_rng(seed).normal(size=(4, 5))
    y = weights[np.arange(4), X.astype(int)].sum(1) + (X[:, 0] == X[:, 1]) * X[:, 2]
    model = lightgbm.LGBMRegressor(
        n_estimators=trees, max_depth=depth, min_child_samples=3, min_data_per_group=3, cat_smooth=1.0, verbose=-1
    )
    return model.fit(X, y, categorical_feature=[0, 1, 2, 3])


CASES = {
    "free": ([], Goal(), Bonus()),
    "minimise": ([], Goal(-1.0), Bonus()),
    "target": ([Ball(X[:1], 3)], Goal(target=1.5), Bonus()),
    "balls": ([Ball(X[:3], 1), Exclude(X[:40])], Goal(), Bonus()),
    "linear": ([Linear({0: np.arange(5.0), 3: np.arange(5.0)}, high=3), Allowed(1, [0, 4])], Goal(), Bonus()),
    "bounded": ([AtLeast(ensemble(9), 1.0)], Goal(), Bonus()),
    "rewarded": ([], Goal(), Bonus(terms={2: np.array([0.0, 3, 0, 0, 1])})),
    "spread": ([], Goal(), Bonus(spread=0.7)),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("seed", range(3))
def test_it_is_what_the_program_proves(case, seed):
    constraints, goal, bonus = CASES[case]
    models = [ensemble(seed), ensemble(seed + 50)]
    listed, proven = (
        Search(models, SPACE, goal=goal, bonus=bonus, effort=Effort(listed=most)).best(constraints)
        for most in (1 << 20, 0)
    )
    assert listed.status == proven.status == "optimal"
    assert listed.value == pytest.approx(proven.value, abs=2e-5)
    assert listed.gap < 1e-6
    if case == "balls":
        assert (listed.point != X[:3]).sum(1).min() <= 1
        assert (listed.point != X[:40]).any(1).all()


def test_where_nothing_is_allowed_it_says_so():
    found = Search(ensemble(0), SPACE).best([Allowed(0, [1]), Linear({0: np.arange(5.0)}, low=2)])
    assert (found.point, found.status) == (None, "infeasible")


def test_numbers_are_listed_by_their_intervals_unless_they_are_weighed():
    space = Space((Integer(0, 9, "a"), Integer(0, 9, "b")))
    x = RNG.integers(0, 10, (200, 2)).astype(float)
    model = lightgbm.LGBMRegressor(n_estimators=20, max_depth=2, min_child_samples=3, verbose=-1)
    model.fit(x, np.sin(x[:, 0]) + x[:, 1] * (x[:, 0] > 4))
    best = Search(model, space).best()
    every = np.stack(np.meshgrid(np.arange(10.0), np.arange(10.0)), -1).reshape(-1, 2)
    assert best.value == pytest.approx(model.predict(every).max())
    weighed = Search(model, space).best([Linear({"a": 1.0, "b": 1.0}, high=7)])
    allowed = every[every.sum(1) <= 7]
    assert weighed.value == pytest.approx(model.predict(allowed).max(), abs=1e-5)


def test_dense_ensembles_of_a_small_space_are_proven_where_a_program_takes_minutes():
    space, rng = Space.grid(4, 32), np.random.default_rng(0)
    x = rng.integers(0, 32, (3000, 4)).astype(float)
    y = rng.normal(size=3000)
    models = [
        lightgbm.LGBMRegressor(
            n_estimators=200, max_depth=4, min_child_samples=3, min_data_per_group=3, verbose=-1
        ).fit(x, target, categorical_feature=[0, 1, 2, 3])
        for target in (y, -y)
    ]
    best = Search(models[0], space, effort=Effort(listed=1 << 21)).best([AtLeast(models[1], 0.5)])
    assert best.status == "optimal"
    some = rng.integers(0, 32, (20_000, 4)).astype(float)
    kept = some[models[1].predict(some) >= 0.5]
    assert best.value >= models[0].predict(kept).max()


def test_a_wide_space_of_which_trees_ask_for_little_is_listed_too():
    space, rng = Space.grid(120, 16), np.random.default_rng(0)
    x = rng.integers(0, 16, (500, 120)).astype(float)
    model = lightgbm.LGBMRegressor(n_estimators=3, max_depth=2, min_child_samples=3, verbose=-1)
    model.fit(x, (x[:, 0] == 3) * 2.0 + (x[:, 7] > 8), categorical_feature=list(range(120)))
    listed, proven = (
        Search(model, space, effort=Effort(listed=most)).best([Exclude(x[:5]), Allowed(7, [2, 3])])
        for most in (1 << 21, 0)
    )
    assert listed.status == "optimal"
    assert listed.value == pytest.approx(proven.value, abs=1e-5)
    assert listed.point[7] in (2, 3)

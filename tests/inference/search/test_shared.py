"""A table of codes that all places share: as trees it says the same, and it learns from all places at once."""

import itertools

import numpy as np
import pytest

from oneprior.core import InputError
from oneprior.inference.search import Effort, Search, Space
from oneprior.inference.search.forest import Forest
from oneprior.inference.search.shared import LEVELS, SharedTable, fit_table
from oneprior.inference.search.surrogate import Trees, fit_surrogate

RNG = np.random.default_rng(0)


def test_as_trees_it_says_the_same():
    table = SharedTable(0.7, RNG.choice([-1.0, 0.0, 0.5, 2.0, 3.0], 12))
    points = RNG.integers(0, 12, (50, 6)).astype(float)
    assert table.forest(6).predict(points) == pytest.approx(table.predict(points), abs=1e-12)
    assert SharedTable(0.7, np.zeros(12)).forest(6).predict(points) == pytest.approx(np.full(50, 0.7))


def test_it_finds_what_codes_are_worth():
    worth = RNG.normal(size=40)
    points = RNG.integers(0, 40, (3000, 9)).astype(float)
    table = fit_table(points, 5 + worth[points.astype(int)].sum(1), 40, 1.0)
    assert len(np.unique(table.worth)) <= LEVELS
    right = 5 + worth[points.astype(int)].sum(1)
    assert np.mean((table.predict(points) - right) ** 2) < 0.01 * right.var()
    assert table.predict(points).mean() == pytest.approx(right.mean())


@pytest.mark.parametrize("members", [1, 3])
def test_it_predicts_better_where_codes_mean_the_same_everywhere(members):
    worth, points = RNG.normal(size=60), RNG.integers(0, 60, (800, 12)).astype(float)
    scores = worth[points.astype(int)].sum(1) + 2.0 * (points[:, 0] < 20) * (points[:, 1] < 20)
    space, trees = Space.grid(12, 60), Trees(most=150, least=5, members=members)
    alone = fit_surrogate(space, points, scores, trees)
    shared = fit_surrogate(space, points, scores, trees, shared=True)
    assert shared.r2 > alone.r2 + 0.2
    assert len(shared.models) == members
    assert all(isinstance(model, Forest) for model in shared.models)


def test_its_optimum_is_proven():
    points = RNG.integers(0, 6, (400, 4)).astype(float)
    scores = points.sum(1) - 6.0 * (points[:, 0] == 5) * (points[:, 1] == 5)
    space = Space.grid(4, 6)
    models = fit_surrogate(space, points, scores, Trees(most=60, least=5), shared=True).models
    every = np.array(list(itertools.product(range(6), repeat=4)), dtype=float)
    highest = np.mean([model.predict(every) for model in models], 0).max()
    for listed in (0, 1 << 20):
        best = Search(models, space, effort=Effort(listed=listed)).best()
        assert best.status == "optimal"
        assert best.value == pytest.approx(highest, abs=1e-5)


def test_columns_of_several_codebooks_share_nothing():
    from oneprior.inference.search.space import Categorical

    points = RNG.integers(0, 4, (200, 2)).astype(float)
    for space in (Space((Categorical(4, "a"), Categorical(5, "b"))), Space.grid(2, 4, RNG.normal(size=(4, 3)))):
        with pytest.raises(InputError, match="one codebook"):
            fit_surrogate(space, points, points.sum(1), Trees(least=5), shared=True)


def test_a_weight_is_as_many_rows():
    points, scores = RNG.integers(0, 12, (60, 5)).astype(float), RNG.normal(size=60)
    twice = np.r_[np.arange(60), np.arange(20), np.arange(20)]
    weighed = fit_table(points, scores, 12, 1.0, np.where(np.arange(60) < 20, 3.0, 1.0))
    repeated = fit_table(points[twice], scores[twice], 12, 1.0)
    assert weighed.predict(points) == pytest.approx(repeated.predict(points), abs=0.2)
    assert weighed.base + 5 * weighed.worth.mean() == pytest.approx(repeated.base + 5 * repeated.worth.mean(), abs=0.05)


@pytest.mark.parametrize("shared", [False, True])
def test_what_weighs_more_is_fitted_better(shared):
    points = RNG.integers(0, 8, (600, 6)).astype(float)
    own = np.arange(600) < 60
    scores = points.sum(1) + np.where(own, -10.0 * (points[:, 0] == points[:, 1]) - 3.0, 0.0)
    space, trees = Space.grid(6, 8), Trees(most=100, least=5)
    errors = [
        np.mean(
            (fit_surrogate(space, points, scores, trees, shared=shared, weights=w).predict(points) - scores)[own] ** 2
        )
        for w in (None, np.where(own, 40.0, 1.0))
    ]
    assert errors[1] < 0.6 * errors[0]

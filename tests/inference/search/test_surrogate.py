"""The ensemble behind a score: its size, what held-out points say of it, and what it cannot learn from."""

import numpy as np
import pytest

from oneprior.core import InputError
from oneprior.inference.search import Space, maximise
from oneprior.inference.search.surrogate import Trees, fit_surrogate

SPACE = Space.grid(6, 8)


def scored(n: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 8, (n, 6)).astype(float)
    weights = np.random.default_rng(99).normal(size=(6, 8))
    return x, weights[np.arange(6), x.astype(int)].sum(1) + noise * rng.normal(size=n)


def test_held_out_points_tell_what_it_has_learned():
    x, y = scored(1500, 0.5)
    found = fit_surrogate(SPACE, x, y, Trees(most=300))
    assert found.points == 1500
    assert 0 < found.trees <= 300
    fresh, truth = scored(2000, 0.5, 1)
    error = np.mean((found.predict(fresh) - truth) ** 2)
    assert found.r2 == pytest.approx(1 - error / truth.var(), abs=0.06)
    assert found.error == pytest.approx(error**0.5, rel=0.1)


def test_noise_alone_asks_for_few_trees_and_explains_nothing():
    x, _ = scored(600, 0.0)
    found = fit_surrogate(SPACE, x, np.random.default_rng(5).normal(size=600), Trees(most=300))
    assert found.trees < 30
    assert found.r2 < 0.1


def test_scores_stay_floats():
    x, y = scored(800, 0.0)
    found = fit_surrogate(SPACE, x, y / 100, Trees(most=200))  # all would be 0 as whole numbers
    assert found.r2 > 0.7


def test_members_disagree_where_the_parts_do_and_their_mean_is_maximised():
    x, y = scored(800, 0.5)
    found = fit_surrogate(SPACE, x, y, Trees(most=60, members=3))
    one, two, three = (model.predict(SPACE.features(x[:50])) for model in found.models)
    assert np.abs(one - two).max() > 0.01
    assert found.predict(x[:50]) == pytest.approx((one + two + three) / 3)
    best = maximise(list(found.models), SPACE)
    assert best.status == "optimal"
    assert found.predict(best.point[None])[0] == pytest.approx(best.value)


@pytest.mark.parametrize(
    ("points", "change", "said"),
    [
        (800, lambda y: y * 0 + 3, "all 800 scores are 3"),
        (30, lambda y: y, "30 scored points are too few"),
        (800, lambda y: np.where(np.arange(len(y)) == 7, np.nan, y), "score 7 is not finite"),
    ],
    ids=["equal", "few", "failed"],
)
def test_what_cannot_be_learned_from_is_refused(points, change, said):
    x, y = scored(points, 0.1)
    with pytest.raises(InputError, match=said):
        fit_surrogate(SPACE, x, change(y), Trees())

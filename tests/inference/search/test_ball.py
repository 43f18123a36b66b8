"""Looking through a ball of one column or two gives what the program proves, whatever else is asked."""

import lightgbm
import numpy as np
import pytest

from oneprior.inference.search import Allowed, AtLeast, Ball, Bonus, Effort, Exclude, Goal, Linear, Search, Space, exact

SPACE = Space.grid(9, 12)  # 5e9 grids: too many to look through
RNG = np.random.default_rng(0)
X = RNG.integers(0, 12, (500, 9)).astype(float)


def ensemble(seed, depth=3, trees=25):
    weights = np.random.default_rng(seed).normal(size=(9, 12))
    y = weights[np.arange(9), X.astype(int)].sum(1) + (X[:, 0] == X[:, 1]) * X[:, 2] - (X[:, 3] > 5) * X[:, 7]
    model = lightgbm.LGBMRegressor(
        n_estimators=trees, max_depth=depth, min_child_samples=3, min_data_per_group=3, cat_smooth=1.0, verbose=-1
    )
    return model.fit(X, y, categorical_feature=list(range(9)))


CASES = {
    "free": ([], Goal(), Bonus()),
    "minimise": ([], Goal(-1.0), Bonus()),
    "target": ([], Goal(target=1.5), Bonus()),
    "excluded": ([Exclude(X[:40]), Exclude(X[50], 3)], Goal(), Bonus()),
    "linear": ([Linear({0: np.arange(12.0), 3: np.arange(12.0)}, high=9), Allowed(1, [0, 4])], Goal(), Bonus()),
    "bounded": ([AtLeast(ensemble(9), 1.0)], Goal(), Bonus()),
    "rewarded": ([], Goal(), Bonus(terms={2: np.linspace(0, 3, 12), 5: np.linspace(2, 0, 12)})),
    "spread": ([], Goal(), Bonus(spread=0.7)),
}


@pytest.mark.parametrize("radius", [0, 1, 2])
@pytest.mark.parametrize("case", CASES)
def test_it_is_what_the_program_proves(case, radius):
    constraints, goal, bonus = CASES[case]
    models = [ensemble(1), ensemble(51)]
    constraints = [Ball(X[[3, 50, 77]], radius), *constraints]
    listed, proven = (
        Search(models, SPACE, goal=goal, bonus=bonus, effort=Effort(listed=most)).best(constraints)
        for most in (1 << 21, 0)
    )
    assert listed.status == proven.status
    if proven.point is None:
        assert listed.point is None
        return
    assert listed.value == pytest.approx(proven.value, abs=2e-5)
    assert listed.gap < 1e-6
    assert (listed.point != X[[3, 50, 77]]).sum(1).min() <= radius


def test_no_program_is_built_for_it(monkeypatch):
    def build(*_):
        raise AssertionError("a program was built")

    monkeypatch.setattr(exact, "Program", build)
    found = Search(ensemble(0), SPACE).best([Ball(X[3], 2)])
    assert found.status == "optimal"
    with pytest.raises(AssertionError, match="a program"):
        Search(ensemble(0), SPACE).best([Ball(X[3], 3)])


def test_the_next_best_of_a_ball_come_in_order():
    ranked = Search(ensemble(2), SPACE).ranked([Ball(X[3], 2)])
    found = [next(ranked) for _ in range(6)]
    assert [one.value for one in found] == sorted([one.value for one in found], reverse=True)
    assert len(np.unique(np.array([one.point for one in found]), axis=0)) == 6


def test_what_a_ball_forbids_is_not_found_by_way_of_the_centre():
    """Everything but the centre is excluded, or the centre is."""
    alone = Search(ensemble(3), SPACE).best([Ball(X[3], 2), *(Allowed(c, [int(X[3, c])]) for c in range(9))])
    assert (alone.point == X[3]).all()
    another = Search(ensemble(3), SPACE).best([Ball(X[3], 1), Exclude(X[3])])
    assert (another.point != X[3]).sum() == 1
    assert Search(ensemble(3), SPACE).best([Ball(X[3], 0), Exclude(X[3])]).status == "infeasible"

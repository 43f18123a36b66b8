"""The exact search against all points, its certificates, and laws that any optimum obeys."""

import itertools
from dataclasses import replace

import lightgbm
import numpy as np
import pytest
from sklearn.ensemble import GradientBoostingRegressor, RandomForestRegressor

from oneprior.core import InputError
from oneprior.inference.search import exact
from oneprior.inference.search.constraints import Allowed, AtLeast, Ball, Exclude, Linear, fixed
from oneprior.inference.search.exact import Effort, Search, maximise
from oneprior.inference.search.local import Climb
from oneprior.inference.search.objective import Bonus, Goal, acquisition
from oneprior.inference.search.space import Categorical, Integer, Numeric, Space

POSITIONS, CODES = 5, 6
SPACE = Space.grid(POSITIONS, CODES)
ALL = np.array(list(itertools.product(range(CODES), repeat=POSITIONS)), dtype=float)
"""7,776 points."""
QUICK = Effort(seconds=30, climb=Climb(points=8, rounds=2))
PROGRAMS = replace(QUICK, listed=0)


def codes(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.integers(0, CODES, (n, POSITIONS))
    weights = rng.normal(size=(POSITIONS, CODES))
    return x.astype(float), weights[np.arange(POSITIONS), x].sum(1) + 2.0 * (x[:, 0] == x[:, 1])


def ensemble(seed: int, kind: str = "gbdt", first: int = 0) -> lightgbm.LGBMRegressor:
    x, y = codes(300, seed)
    bagging = {"bagging_freq": 1, "bagging_fraction": 0.7} if kind == "rf" else {}
    model = lightgbm.LGBMRegressor(
        boosting_type=kind,
        n_estimators=20,
        max_depth=3,
        num_leaves=8,
        min_data_per_group=1,
        cat_smooth=1,
        min_child_samples=3,
        verbose=-1,
        n_jobs=1,
        **bagging,
    )
    return model.fit(x[first:], y[first:], categorical_feature=list(range(POSITIONS)))


def holds(best, values: np.ndarray) -> None:
    assert best.status == "optimal"
    assert best.value == pytest.approx(values.max(), abs=1e-5)
    assert best.bound >= best.value
    assert best.gap <= 1.1e-6 * max(1, abs(best.value))


@pytest.mark.parametrize("kind", ["gbdt", "dart", "rf"])
@pytest.mark.parametrize("seed", [0, 1])
def test_all_points_have_no_better_one(kind, seed):
    model = ensemble(seed, kind)
    values = model.predict(ALL)
    holds(maximise(model, SPACE, effort=QUICK), values)
    least = maximise(model, SPACE, goal=Goal(-1), effort=QUICK)
    holds(least, -values)
    assert least.prediction == pytest.approx(values.min())


CENTRES = codes(300, 7)[0][:3]
WEIGHTS = np.random.default_rng(3).normal(size=(POSITIONS, CODES))
APART = (ALL[:, None] != CENTRES).sum(2)
CASES = {
    "a ball": ([Ball(CENTRES[0], 2)], APART[:, 0] <= 2),
    "any of three balls": ([Ball(CENTRES, 1)], APART.min(1) <= 1),
    "a sum": (
        [Linear({k: WEIGHTS[k] for k in range(POSITIONS)}, high=-1.0)],
        WEIGHTS[np.arange(POSITIONS), ALL.astype(int)].sum(1) <= -1,
    ),
    "far from all three": ([Exclude(CENTRES, 4)], (APART >= 4).all(1)),
    "fixed positions": (fixed(SPACE, CENTRES[0], [0, 3]), (ALL[:, [0, 3]] == CENTRES[0, [0, 3]]).all(1)),
    "some codes": ([Allowed(1, [2, 3]), Allowed("position 4", [5])], np.isin(ALL[:, 1], [2, 3]) & (ALL[:, 4] == 5)),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("goal", [Goal(), Goal(target=0.5)], ids=["maximise", "target"])
def test_constraints_and_goals(case, goal):
    constraints, allowed = CASES[case]
    model = ensemble(2)
    values = goal(model.predict(ALL))
    best = maximise(model, SPACE, constraints, goal=goal, effort=QUICK)
    holds(best, values[allowed])
    assert allowed[(best.point == ALL).all(1)].all()


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_another_ensemble_is_bounded(share):
    model, other = ensemble(2), ensemble(9)
    learned = other.predict(ALL)
    low = float(np.quantile(learned, 1 - share)) - 1e-4
    constraints = [AtLeast(other, low), Ball(CENTRES[0], 4)]
    allowed = (learned >= low) & (APART[:, 0] <= 4)
    best = maximise(model, SPACE, constraints, effort=QUICK)
    holds(best, model.predict(ALL)[allowed])
    assert other.predict(best.point[None])[0] >= low - 1e-6
    climbed = maximise(model, SPACE, constraints, effort=Effort(exact=False))
    assert other.predict(climbed.point[None])[0] >= low - 1e-6
    nothing = maximise(model, SPACE, [AtLeast(other, learned.max() + 1)], effort=QUICK)
    assert (nothing.status, nothing.point) == ("infeasible", None)


@pytest.mark.parametrize(
    "bonus",
    [
        Bonus(0.3, codes(20, 5)[0]),
        Bonus(spread=0.7),
        Bonus(terms={k: np.random.default_rng(k).normal(size=CODES) for k in (0, 2, 3)}),
        Bonus(0.2, codes(20, 5)[0], 0.5, {1: np.arange(CODES) * 0.3}),
    ],
    ids=["distance", "spread", "rewards", "all"],
)
def test_what_is_added(bonus):
    models = [ensemble(4, first=40 * k) for k in range(3)]
    predictions = np.stack([model.predict(ALL) for model in models])
    values = acquisition(predictions, Goal(), bonus, ALL, SPACE.coded)
    holds(maximise(models, SPACE, bonus=bonus, effort=QUICK), values)
    inside = APART[:, 0] <= 1
    holds(maximise(models, SPACE, [Ball(CENTRES[0], 1)], bonus=bonus, effort=QUICK), values[inside])


def test_the_best_points_one_after_another():
    model = ensemble(0)
    found = list(itertools.islice(Search(model, SPACE, effort=QUICK).ranked(), 6))
    assert [best.value for best in found] == pytest.approx(np.sort(model.predict(ALL))[::-1][:6], abs=1e-5)
    assert len(np.unique([best.point for best in found], axis=0)) == 6


def test_all_points_of_a_small_space_come_once_and_then_no_more():
    model, centre = ensemble(0), CENTRES[0]
    found = list(Search(model, SPACE, effort=QUICK).ranked([*fixed(SPACE, centre, [0, 1, 2]), Allowed(3, [1])]))
    assert [best.status for best in found] == ["optimal"] * CODES + ["infeasible"]
    assert found[-1].point is None


def test_codes_that_are_alike_are_told():
    best = maximise(ensemble(1), SPACE, effort=QUICK)
    for column, alike in enumerate(best.alike):
        for code in alike:
            other = best.point.copy()
            other[column] = code
            assert ensemble(1).predict(other[None])[0] == pytest.approx(best.value, abs=1e-9)


@pytest.mark.parametrize("model", [RandomForestRegressor(10, max_depth=4), GradientBoostingRegressor(n_estimators=15)])
def test_numbers_and_whole_numbers(model):
    space = Space((Numeric(-1, 1, "a"), Integer(-2, 5, "n"), Categorical(4, "code")))
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.uniform(-1, 1, 200), rng.integers(-2, 6, 200), rng.integers(0, 4, 200)]).astype(float)
    model.set_params(random_state=0).fit(x, np.sin(3 * x[:, 0]) * x[:, 1] + x[:, 2])
    grid = np.array(list(itertools.product(np.linspace(-1, 1, 2001), range(-2, 6), range(4))))
    values = model.predict(grid)
    best = maximise(model, space, effort=QUICK)
    assert best.status == "optimal"
    assert best.value >= values.max() - 1e-9
    assert best.value == pytest.approx(model.predict(best.point[None])[0], abs=1e-9)
    bound = Linear({"a": 2.0, "n": 1.0, "code": np.array([0, 3, 1, 0])}, low=-1, high=1.5)
    sums = 2 * grid[:, 0] + grid[:, 1] + np.array([0, 3, 1, 0])[grid[:, 2].astype(int)]
    best = maximise(model, space, [bound], effort=QUICK)
    a, n, code = best.point
    assert -1 - 1e-6 <= 2 * a + n + [0, 3, 1, 0][int(code)] <= 1.5 + 1e-6
    assert best.value >= values[(sums >= -1) & (sums <= 1.5)].max() - 1e-9


def test_splits_on_the_vectors_of_a_codebook_are_sets_of_codes():
    codebook = np.random.default_rng(1).normal(size=(CODES, 2))
    space = Space.grid(POSITIONS, CODES, codebook)
    x, y = codes(300, 0)
    model = lightgbm.LGBMRegressor(n_estimators=15, max_depth=3, min_child_samples=3, verbose=-1, n_jobs=1)
    model.fit(space.features(x), y)
    holds(maximise(model, space, effort=QUICK), model.predict(space.features(ALL)))


def test_other_names_for_the_codes_change_nothing():
    x, y = codes(300, 0)
    names = np.stack([np.random.default_rng(k).permutation(CODES) for k in range(POSITIONS)])
    renamed = names[np.arange(POSITIONS), x.astype(int)].astype(float)
    settings = {"n_estimators": 20, "max_depth": 3, "cat_smooth": 1, "min_child_samples": 3, "verbose": -1, "n_jobs": 1}
    told = [
        lightgbm.LGBMRegressor(**settings).fit(z, y, categorical_feature=list(range(POSITIONS))) for z in (x, renamed)
    ]
    first, second = (maximise(model, SPACE, effort=QUICK) for model in told)
    assert first.value == pytest.approx(second.value, abs=1e-6)


def test_a_larger_ball_holds_no_worse_point_and_the_largest_is_the_space():
    model = ensemble(0)
    values = [maximise(model, SPACE, [Ball(CENTRES[0], r)], effort=QUICK).value for r in range(POSITIONS + 1)]
    assert values[0] == pytest.approx(model.predict(CENTRES[:1])[0])
    assert all(b >= a - 1e-9 for a, b in itertools.pairwise(values))
    assert values[-1] == pytest.approx(maximise(model, SPACE, effort=QUICK).value, abs=1e-6)


def test_an_added_constant_moves_value_and_bound():
    x, y = codes(300, 0)
    model = GradientBoostingRegressor(n_estimators=10, random_state=0)
    first = maximise(model.fit(x, y), SPACE, effort=QUICK)
    second = maximise(model.fit(x, y + 100), SPACE, effort=QUICK)
    assert second.value - first.value == pytest.approx(100, abs=1e-4)
    assert second.bound - first.bound == pytest.approx(100, abs=1e-3)


def test_without_a_proof_the_bound_still_bounds():
    model = ensemble(0)
    best = maximise(model, SPACE, effort=Effort(exact=False, climb=Climb(points=4, rounds=0)))
    assert best.bound >= model.predict(ALL).max() >= best.value
    again = maximise(model, SPACE, effort=Effort(exact=False))
    assert again.value == pytest.approx(model.predict(ALL).max())  # so small a space is climbed to its top


def test_what_cannot_be_satisfied_is_said():
    model = ensemble(0)
    best = maximise(model, SPACE, [Ball(CENTRES[0], 0), Exclude(CENTRES[0])], effort=QUICK)
    assert (best.point, best.status) == (None, "infeasible")


def test_the_program_can_be_written_for_another_solver(tmp_path):
    import highspy

    path = Search(ensemble(0), SPACE).write(tmp_path / "search.mps", [Ball(CENTRES, 2)])
    solver = highspy.Highs()
    solver.silent()
    solver.readModel(str(path))
    solver.run()
    best = maximise(ensemble(0), SPACE, [Ball(CENTRES, 2)], effort=QUICK)
    assert solver.getInfo().objective_function_value == pytest.approx(best.value, abs=1e-5)


def test_a_program_that_is_too_large_is_refused_with_its_size(monkeypatch):
    monkeypatch.setattr("oneprior.inference.search.program.LARGEST", 100)
    with pytest.raises(InputError, match="fewer or shallower trees"):
        maximise(ensemble(0), SPACE)


@pytest.mark.parametrize(
    ("constraint", "said"),
    [
        (Ball(CENTRES[0], -1), "radius"),
        (Allowed(0, []), "at least one"),
        (Allowed(9, [0]), "columns 0 .. 4"),
        (Allowed("nobody", [0]), "nobody"),
        (Linear({0: np.ones(3)}), "weights of position 0"),
        (Linear({0: np.full(CODES, np.nan)}), "weights of position 0 must be finite"),
        (Linear({0: np.ones(CODES)}, low=0.8, high=0.2), "nothing is between 0.8 and 0.2"),
        (Exclude(np.full(POSITIONS, 6.0)), "row 0, position 0: got 6"),
        (Exclude(CENTRES, 6), "1 .. 5 columns"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_constraints_that_make_no_sense_are_refused(constraint, said):
    with pytest.raises(InputError, match=said):
        maximise(ensemble(0), SPACE, [constraint])


FLOOR = {k: WEIGHTS[k] for k in range(POSITIONS)}


def test_a_constraint_alone_is_taken_and_what_is_none_is_named():
    model, ball = ensemble(0), Ball(ALL[:1], 2)
    alone, listed = (maximise(model, SPACE, one, effort=QUICK) for one in (ball, [ball]))
    assert alone.value == listed.value
    with pytest.raises(InputError, match="constraints are Ball, .* not 3"):
        maximise(model, SPACE, [3], effort=QUICK)  # type: ignore[list-item]


@pytest.mark.parametrize("floors", [(-1.0, 0.5), (0.5, -1.0)], ids=["tighter", "looser"])
def test_what_is_proven_of_a_ball_holds_while_constraints_are_added(floors):
    """One search asked again and again, and a new one each time, say the same; all points are asked."""
    model, weighed = ensemble(0), WEIGHTS[np.arange(POSITIONS), ALL.astype(int)].sum(1)
    search, balls, excluded = Search(model, SPACE, effort=PROGRAMS), Ball(CENTRES, 2), []
    values, allowed = model.predict(ALL), APART.min(1) <= 2
    for low in floors:
        for _ in range(4):
            best = search.best([balls, Linear(FLOOR, low=low), *excluded])
            inside = allowed & (weighed >= low)
            holds(best, values[inside])
            assert inside[(best.point == ALL).all(1).argmax()]
            excluded.append(Exclude(best.point, 2))
            allowed &= (best.point != ALL).sum(1) >= 2


def test_a_ball_is_not_proven_again(monkeypatch):
    built = []

    class Counted(exact.Program):
        def __init__(self, *given):
            built.append(1)
            super().__init__(*given)

    monkeypatch.setattr(exact, "Program", Counted)
    search, balls, excluded, programs = Search(ensemble(0), SPACE, effort=PROGRAMS), Ball(CENTRES, 1), [], []
    for _ in range(4):
        before = len(built)
        excluded.append(Exclude(search.best([balls, *excluded]).point))
        programs.append(len(built) - before)
    assert programs[0] == 3
    assert max(programs[1:]) < 3
    absent = [int(np.setdiff1d(np.arange(CODES), CENTRES[:, c])[0]) for c in (0, 1)]
    forbidden = [balls, Allowed(0, absent[:1]), Allowed(1, absent[1:])]
    nothing = Search(ensemble(0), SPACE, effort=PROGRAMS)
    assert [nothing.best(forbidden).status for _ in range(2)] == ["infeasible"] * 2


def test_codes_that_are_alike_are_told_anew():
    """Of what was proven before another point was excluded, too."""
    search, balls, excluded = Search(ensemble(0), SPACE, effort=QUICK), Ball(CENTRES, 2), []
    for _ in range(6):
        best = search.best([balls, *excluded])
        for grid in itertools.islice(itertools.product(*best.alike), 50):
            assert all((np.array(grid) != one.points).any() for one in excluded)
        excluded.append(Exclude(best.point))


@pytest.mark.parametrize("effort", [QUICK, PROGRAMS, replace(QUICK, exact=False)], ids=["listed", "program", "local"])
def test_a_ball_in_some_columns_keeps_all_others(effort):
    model, where = ensemble(1), [0, 3]
    kept = [c for c in range(POSITIONS) if c not in where]
    best = maximise(model, SPACE, [Ball(CENTRES, 2, where)], starts=CENTRES, effort=effort)
    allowed = (ALL[:, None, kept] == CENTRES[:, kept]).all(2).any(1)
    assert allowed.sum() > len(CENTRES)
    if effort.exact:
        holds(best, model.predict(ALL)[allowed])
    assert allowed[(best.point == ALL).all(1).argmax()]

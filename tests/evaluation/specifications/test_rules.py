"""Bounds, combinations, exact intervals and verdicts."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from oneprior.core import AffineMap, InputError, Rows
from oneprior.evaluation.specifications import (
    AllOf,
    AnyOf,
    Bound,
    Implies,
    Outputs,
    Specification,
    Suite,
    check,
    clopper_pearson,
    trials_needed,
)


def column(k: int, **bounds: float) -> Bound:
    return Bound(lambda outputs: outputs.x[:, 0, k], words=f"column {k}", **bounds)


def outputs(n: int = 200, **more: object) -> Outputs:
    return Outputs(Rows(n, seed=1).normal(1, 2) / 4, **more)  # type: ignore[arg-type]


def test_a_bound_says_by_how_much_it_holds() -> None:
    given = Outputs(torch.tensor([[[0.1, 0.0]], [[0.5, 0.0]], [[0.9, 0.0]]]))
    margin = column(0, at_least=0.3, at_most=0.7, scale=0.2).margin(given)
    assert margin.tolist() == pytest.approx([-1.0, 1.0, -1.0])


def test_nan_breaks_a_bound() -> None:
    rule = Bound(lambda o: torch.full((len(o),), math.nan), at_least=-1e9)
    assert not (rule.margin(outputs(3)) >= 0).any()


@given(st.floats(-0.4, 0.4), st.floats(-0.4, 0.4))
def test_combinations_are_the_logic_of_their_parts(a: float, b: float) -> None:
    x = outputs()
    first, second = column(0, at_least=a), column(1, at_most=b)
    p, q = first.margin(x) >= 0, second.margin(x) >= 0
    assert torch.equal(AllOf((first, second)).margin(x) >= 0, p & q)
    assert torch.equal(AnyOf((first, second)).margin(x) >= 0, p | q)
    assert torch.equal(Implies(first, second).margin(x) >= 0, ~p | q)


def test_bounds_that_forbid_nothing_or_everything_are_refused() -> None:
    with pytest.raises(InputError, match="forbids nothing"):
        column(0)
    with pytest.raises(InputError, match="lies above"):
        column(0, at_least=1, at_most=0)


@pytest.mark.parametrize(("k", "n"), [(0, 10), (3, 10), (10, 10), (295, 300)])
def test_the_interval_is_exact(k: int, n: int) -> None:
    from scipy.stats import binom

    low, high = clopper_pearson(k, n)
    if k:
        assert binom.sf(k - 1, n, low) == pytest.approx(0.025, rel=1e-6)
    if k < n:
        assert binom.cdf(k, n, high) == pytest.approx(0.025, rel=1e-6)
    assert low <= k / n <= high


def test_a_pass_rate_is_met_broken_or_undecided() -> None:
    def state(failing: int, n: int) -> str:
        x = torch.zeros(n, 1, 2)
        x[:failing] = -1
        return check(Specification("s", column(0, at_least=-0.5), 0.98), Outputs(x)).state

    assert trials_needed(0.98) == 149
    assert state(0, 148) == "undecided"
    assert state(0, 149) == "met"
    assert state(30, 300) == "broken"
    assert state(6, 300) == "undecided"


def test_outputs_of_one_subject_are_one_trial() -> None:
    x = torch.zeros(12, 1, 2)
    x[[0, 1, 5]] = -1  # two failures in subject 0, one in subject 1
    found = check(Specification("s", column(0, at_least=-0.5)), Outputs(x, group=torch.arange(12) // 4))
    assert (found.trials, found.passed) == (3, 1)
    assert found.failed.tolist() == [0, 1, 5]


def test_counter_examples_are_the_worst_and_can_be_made_again() -> None:
    x = outputs(50, index=torch.arange(100, 150), condition={"label": torch.arange(50) % 3}, units=AffineMap(2.0))
    found = check(Specification("s", column(0, at_least=0.0)), x, examples=3)
    worst = x.x[:, 0, 0].argsort()[:3]
    assert [e.position for e in found.worst] == worst.tolist()
    assert [e.row for e in found.worst] == (100 + worst).tolist()
    assert found.worst[0].values["column 0"] == pytest.approx(float(x.x[worst[0], 0, 0]))
    assert found.worst[0].asked == {"label": int(worst[0]) % 3}


def test_a_rule_of_the_whole_set_is_one_trial() -> None:
    rule = Bound(lambda o: o.x.mean().reshape(1), scope="set", at_least=10.0)
    found = check(Specification("s", rule), outputs())
    assert (found.trials, found.passed, found.state) == (1, 0, "broken")


def test_nan_outputs_and_twice_the_same_name_are_refused() -> None:
    x = torch.zeros(4, 1, 2)
    x[2, 0, 1] = math.nan
    with pytest.raises(InputError, match="1 of 4 outputs hold nan or infinity, such as number 2"):
        Outputs(x)
    s = Specification("s", column(0, at_least=0))
    with pytest.raises(InputError, match="two specifications are called 's'"):
        Suite("suite", (s, s))


def test_a_first_part_without_a_value_breaks_an_implication() -> None:
    nothing = Bound(lambda o: torch.full((len(o),), math.nan), at_least=0)
    assert not (Implies(nothing, column(0, at_least=9)).margin(outputs(3)) >= 0).any()
    assert torch.equal(Implies(nothing, column(0, at_least=-9)).margin(outputs(3)) >= 0, torch.ones(3).bool())

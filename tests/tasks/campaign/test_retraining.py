"""Rank weights: the paper's formula, its limits, ties, and that training draws by them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oneprior.core import InputError
from oneprior.tasks.campaign.retraining import rank_weights


def test_the_formula():
    weight = rank_weights(np.array([3.0, 9.0, 5.0]), 0.5)
    raw = np.array([1 / (1.5 + 2), 1 / 1.5, 1 / (1.5 + 1)])
    assert weight == pytest.approx(raw * 3 / raw.sum())


def test_its_limits():
    scores = np.array([1.0, 4.0, 2.0])
    assert rank_weights(scores, 0) == pytest.approx([0, 3, 0])
    assert rank_weights(scores, np.inf) == pytest.approx([1, 1, 1])
    assert rank_weights(scores, 1e9) == pytest.approx([1, 1, 1], rel=1e-6)


def test_equal_scores_rank_in_their_order():
    weight = rank_weights(np.zeros(4), 0.1)
    assert (np.diff(weight) < 0).all()


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50, unique=True), st.floats(1e-4, 10))
@settings(max_examples=50, deadline=None)
def test_better_never_weighs_less_and_the_mean_is_one(scores, k):
    weight = rank_weights(np.array(scores), k)
    assert weight.mean() == pytest.approx(1)
    assert (np.diff(weight[np.argsort(scores)]) >= -1e-12).all()


def test_what_makes_no_sense_is_refused():
    with pytest.raises(InputError, match="0 or more"):
        rank_weights(np.ones(3), -1)
    with pytest.raises(InputError, match="score 1 is not finite"):
        rank_weights(np.array([1.0, np.nan]), 1)

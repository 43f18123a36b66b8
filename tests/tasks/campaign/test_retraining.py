"""Rank weights: the paper's formula, its limits, ties, and that training draws by them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from oneprior.core import InputError
from oneprior.data import array_dataset
from oneprior.tasks.campaign.code_space import CodeSpace
from oneprior.tasks.campaign.retraining import rank_weights, retrain
from oneprior.training import load, train


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


def test_a_round_follows_the_best_and_forgets_nothing(tmp_path):
    """With the recipe's learning rate the error of all data grew by a quarter."""
    data = array_dataset((load_digits().images * 255 / 16).round().astype(np.uint8), layout="nhw")
    tiny = {"codes": 16, "latent": 4, "width": 8, "prior_width": 16, "prior_depth": 1, "prior_heads": 2}
    quiet = {"held_out": 0.0, "preview_every": 0, "tracker": "none"}
    run = train("vqvae", data=data, out=tmp_path / "run", images=60_000, batch_size=64, **quiet, **tiny)
    x = data.batch(torch.arange(len(data))).x
    ink = x.mean((1, 2, 3)).numpy()
    best = x[torch.from_numpy(np.argsort(-ink)[:30].copy())]
    for _ in retrain(run, data, ink, tmp_path / "next", k=1e-3, share=0.2, rate=0.1, seed=0):
        pass
    before, after = CodeSpace(run), CodeSpace(load(tmp_path / "next"))
    assert _error(after, x) < 1.1 * _error(before, x)
    assert _error(after, best) < 0.95 * _error(before, best)
    assert after.log_prob(after.encode(best)).mean() > before.log_prob(before.encode(best)).mean()


def _error(space: CodeSpace, x: torch.Tensor) -> float:
    return float((space.decode(space.encode(x)) - x).square().mean())

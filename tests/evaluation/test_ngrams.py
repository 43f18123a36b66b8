"""The n-gram baseline: a law that sums to one, the counts' own limit, and draws that follow it."""

import itertools

import numpy as np
import pytest
import torch

from oneprior.core import InputError
from oneprior.data import open_dataset
from oneprior.data.chorales import write_chorales
from oneprior.evaluation.ngrams import NGram


def hot(codes, tokens: int) -> torch.Tensor:
    """(n, groups, steps) -> (n, groups x tokens, steps) in [-1, 1]."""
    found = torch.nn.functional.one_hot(torch.as_tensor(np.asarray(codes)), tokens)
    return found.movedim(-1, 2).flatten(1, 2).float() * 2 - 1


@pytest.mark.parametrize(("groups", "order"), [(1, 1), (1, 3), (2, 4)])
def test_all_sequences_together_have_probability_one(groups, order):
    rng = np.random.default_rng(0)
    law = NGram.fit(hot(rng.integers(0, 3, (20, groups, 4)), 3), groups, order)
    steps = 4 // groups
    every = np.array(list(itertools.product(range(3), repeat=4))).reshape(-1, groups, steps)
    assert float(law.log_prob(hot(every, 3)).exp().sum()) == pytest.approx(1)


def test_of_many_sequences_it_is_their_law():
    rng = np.random.default_rng(1)
    chain = np.array([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8], [0.5, 0.25, 0.25]])
    codes = np.zeros((4000, 1, 6), dtype=int)
    for k in range(1, 6):
        codes[:, 0, k] = [rng.choice(3, p=chain[c]) for c in codes[:, 0, k - 1]]
    law = NGram.fit(hot(codes, 3), order=2)
    for before, own in enumerate(chain):
        assert law._next((before,), 1) == pytest.approx(own, abs=0.03)
    drawn = law.sample(2000, 6, seed=3).argmax(1).numpy()
    for before, own in enumerate(chain):
        after = drawn[:, 1:][drawn[:, :-1] == before]
        assert np.bincount(after, minlength=3) / len(after) == pytest.approx(own, abs=0.04)


def test_longer_contexts_help_with_music(tmp_path):
    data = open_dataset(write_chorales(tmp_path / "set", 30), size=32)
    x = data.batch(torch.arange(len(data))).x
    held = x[-20:]
    nats = [float(-NGram.fit(x[:-20], 4, order).log_prob(held).mean()) / (4 * 32) for order in (1, 5, 9)]
    assert nats[0] > nats[1] > 0
    assert nats[2] < nats[0]
    with pytest.raises(InputError, match="order 1 or more"):
        NGram.fit(x, 4, 0)

"""The trust region: its size by the paper's rule, its process against dense formulas, and that it climbs."""

import numpy as np
import pytest
import torch

from oneprior.inference.search.trust_region import _matern, _Process, improved, region_length, trust_region


def test_the_size_follows_successes_and_failures():
    assert region_length([], 4, 8) == 0.8
    assert region_length([True] * 3, 4, 8) == 1.6
    assert region_length([True] * 6, 4, 8) == 1.6  # the most
    assert region_length([False] * 2, 4, 8) == 0.4  # 8 dimensions by 4: two failures
    assert region_length([False, True, False], 4, 8) == 0.8
    small = [False] * (2 * 6)
    assert region_length(small, 4, 8) == pytest.approx(0.8 / 2**6)
    assert region_length([*small, False, False], 4, 8) == 0.8  # it starts anew


def test_what_counts_as_better():
    assert improved(-1.0, -0.99)
    assert not improved(-1.0, -0.9999)
    assert improved(0.0, 1e-9)


def test_leaving_one_out_is_what_it_says():
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(25, 3)))
    y = torch.sin(x[:, 0] * 2) + 0.1 * torch.from_numpy(rng.normal(size=25))
    process = _Process(x, y)
    off = []
    for k in range(25):
        rest = torch.arange(25) != k
        gram = _matern(x[rest], x[rest], process.lengths) * process.variance + process.noise * torch.eye(24)
        cross = _matern(x[k : k + 1], x[rest], process.lengths) * process.variance
        off.append(float(y[k] - cross @ torch.linalg.solve(gram, y[rest])))
    expected = 1 - np.square(off).mean() / float(y.var(correction=0))
    assert process.left_out_r2() == pytest.approx(expected, abs=1e-6)


def test_draws_have_the_mean_and_deviation_of_the_process():
    x = torch.linspace(-1, 1, 8, dtype=torch.float64)[:, None]
    process = _Process(x, torch.sin(3 * x[:, 0]))
    new = torch.tensor([[0.9], [0.05], [-0.4]], dtype=torch.float64)
    noise = torch.from_numpy(np.random.default_rng(1).standard_normal((4000, 3)))
    chosen = torch.stack([process.thompson(new, 1, one[None])[0] for one in noise])
    mean = process.mean(new)
    assert torch.bincount(chosen, minlength=3).argmax() == mean.argmax()


def test_candidates_lie_in_the_region_and_climb():
    rng = np.random.default_rng(0)
    goal = rng.normal(size=6)

    def score(z: np.ndarray) -> np.ndarray:
        return -np.square(z - goal).sum(1)

    points = rng.normal(size=(20, 6))
    first, rounds = score(points).max(), []
    for _ in range(12):
        scores = score(points)
        region = trust_region(points, scores, 4, region_length(rounds, 4, 6), rng)
        assert len(np.unique(region.points, axis=0)) == 4
        assert np.abs(region.points).max() <= 3
        rounds.append(improved(scores.max(), score(region.points).max()))
        points = np.concatenate([points, region.points])
    assert score(points).max() > first / 4  # three quarters of the way to 0
    assert region.r2 > 0.8

"""The energy score against its double sum, the CRPS and a closed form."""

import math

import pytest
import torch

from oneprior.core import InputError, Rows, ShapeError
from oneprior.evaluation import crps, energy
from oneprior.evaluation.energy import energy_score


def exact(n, count, *shape, seed=0):
    rows = Rows(n, seed=seed)
    return rows.normal(count, *shape).movedim(1, 0), rows.normal(*shape)


def test_it_is_its_double_sum(monkeypatch):
    draws, x = exact(7, 5, 2, 3)
    d = draws.double().flatten(2)
    pairs = (d[:, None] - d[None]).norm(dim=-1).sum((0, 1)) / (5 * 4)
    expected = (d - x.double().flatten(1)).norm(dim=-1).mean(0) - pairs / 2
    assert torch.allclose(energy_score(draws, x), expected, rtol=1e-12)
    monkeypatch.setattr(energy, "_CHUNK", 60)  # a row or two at a time
    assert torch.allclose(energy_score(draws, x), expected, rtol=1e-12)
    assert energy_score(draws, x).dtype == torch.float64


def test_of_numbers_it_is_the_crps():
    draws, x = exact(20, 19, 1)
    assert torch.allclose(energy_score(draws, x), crps(draws, x), atol=1e-7)


def test_no_digits_are_lost_far_from_zero():
    draws, x = exact(5, 9, 4, seed=1)
    near = energy_score(draws.double(), x.double())
    assert torch.allclose(energy_score(draws.double() + 1e6, x.double() + 1e6), near, rtol=1e-8)


@pytest.mark.parametrize("count", [2, 7])
def test_it_is_unbiased_for_any_number_of_draws(count):
    """E ES = E|X - X'| / 2 for exact draws; |X - X'| = sqrt(2) chi_d, of mean sqrt(2) sqrt(2) G((d+1)/2) / G(d/2)."""
    d = 5
    draws, x = exact(6000, count, d, seed=2)
    score = energy_score(draws, x)
    expected = math.exp(math.lgamma((d + 1) / 2) - math.lgamma(d / 2))
    assert abs(float(score.mean()) - expected) < 4 * float(score.std()) / math.sqrt(len(score))


def test_it_prefers_the_truth_and_sees_dependence():
    """The last rival has the right marginals and no correlation: the mean CRPS cannot tell, the energy score can."""
    draws, x = exact(6000, 19, 2, seed=3)
    root = torch.tensor([[1.0, 0.0], [0.9, math.sqrt(1 - 0.81)]])
    right, truth = draws @ root.T, x @ root.T
    score = energy_score(right, truth)
    for rival in (0.7 * right, 1.4 * right, right + 0.4, draws):
        gap = energy_score(rival, truth) - score
        assert float(gap.mean()) > 4 * float(gap.std()) / math.sqrt(len(gap))
    blind = crps(draws, truth) - crps(right, truth)
    assert abs(float(blind.mean())) < 4 * float(blind.std()) / math.sqrt(len(blind))


def test_a_mask_leaves_entries_out():
    draws, x = exact(6, 5, 4, seed=4)
    mask = torch.tensor([True, True, False, False])
    assert torch.allclose(energy_score(draws, x, mask), energy_score(draws[..., :2], x[..., :2]))


def test_errors():
    with pytest.raises(InputError, match="at least 2 draws"):
        energy_score(torch.zeros(1, 3, 2), torch.zeros(3, 2))
    with pytest.raises(ShapeError, match="Draws come first"):
        energy_score(torch.zeros(3, 5, 2), torch.zeros(3, 2))
    assert energy_score(torch.zeros(5, 0, 2), torch.zeros(0, 2)).shape == (0,)

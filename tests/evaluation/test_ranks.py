"""Ranks of exact posteriors are uniform, whatever the function; bands hold what they promise."""

import math

import pytest
import torch
from scipy import stats

from oneprior.core import InputError, Rows, ShapeError
from oneprior.evaluation.ranks import (
    NULLS,
    Ranks,
    counted_entries,
    exchanged_ranks,
    functionals,
    null_counts,
    rank_histogram,
    rank_truth,
    simultaneous_band,
)


def exact(n, count, *shape, seed=0):
    rows = Rows(n, seed=seed)
    return rows.normal(count, *shape).movedim(1, 0), rows.normal(*shape)


def test_ranks_count_the_draws_below():
    draws, x = exact(50, 19, 3)
    functions = {"sum": lambda e: e.sum(1), "largest": lambda e: e.amax(1)}
    ranks = rank_truth(draws, x, functions, Rows(50))
    assert torch.equal(ranks.values[:, 0], (draws.sum(2) < x.sum(1)).sum(0))
    assert torch.equal(ranks.values[:, 1], (draws.amax(2) < x.amax(1)).sum(0))
    assert torch.equal(ranks.exchanged[0], ranks.values)
    members = torch.cat([x[None], draws]).sum(2)
    assert torch.equal(ranks.exchanged[5, :, 0], (members < members[5]).sum(0))
    assert torch.equal(ranks.exchanged.sort(0).values, torch.arange(20)[:, None, None].expand(20, 50, 2))


def test_every_default_function_of_an_exact_posterior_has_uniform_ranks():
    """Chi-square against uniform, each function at 1e-4: images with structure, a mask, and few draws."""
    n, count = 3000, 9
    draws, x = exact(n, count, 2, 8, 6, seed=1)
    smooth = torch.nn.functional.avg_pool2d(draws.flatten(0, 1), 3, 1, 1).reshape(draws.shape)
    truth = torch.nn.functional.avg_pool2d(x, 3, 1, 1)
    mask = torch.zeros(8, 6, dtype=torch.bool)
    mask[2:7, 1:5] = True
    rows = Rows(n, seed=2)
    ranks = rank_truth(smooth, truth, functionals(truth, rows, mask), rows)
    assert set(ranks.names) >= {"mean", "contrast", "entry", "projection 1", "coarse projection 2"}
    for name, column in zip(ranks.names, ranks.values.T, strict=True):
        counts = torch.bincount(column, minlength=count + 1)
        assert stats.chisquare(counts.numpy()).pvalue > 1e-4, name


def test_functions_see_only_what_the_mask_counts():
    x = Rows(6, seed=3).normal(1, 5, 5)
    mask = torch.ones(6, 1, 5, 5, dtype=torch.bool)
    mask[:, :, 0] = False
    mask[2, :, 3:] = False
    changed = torch.where(mask, x, torch.full_like(x, 99.0))
    for name, function in functionals(x, Rows(6), mask).items():
        assert torch.allclose(function(x), function(changed)), name
    found = functionals(x, Rows(6), mask)
    assert float(found["mean"](x)[2]) == pytest.approx(float(x[2, 0, 1:3].mean()), rel=1e-6)
    inside = x[2, 0, 1:3].double()
    contrast = torch.cat([inside.diff(dim=0).flatten(), inside.diff(dim=1).flatten()]).abs().mean()
    assert float(found["contrast"](x)[2]) == pytest.approx(float(contrast))


def test_the_entry_is_chosen_at_random_among_the_counted_and_stays():
    n = 4000
    x = torch.arange(6.0).reshape(1, 2, 3).expand(n, 1, 2, 3)
    mask = torch.tensor([[True, False, True], [True, True, False]])
    entry = functionals(x, Rows(n, seed=4), mask)["entry"]
    counts = torch.bincount(entry(x).long(), minlength=6)
    assert counts[[1, 5]].sum() == 0
    assert stats.chisquare(counts[[0, 2, 3, 4]].numpy()).pvalue > 1e-4
    assert torch.equal(entry(x), entry(x))


def test_a_number_has_its_value_and_a_vector_no_contrast():
    assert set(functionals(torch.zeros(3, 1), Rows(3))) == {"value"}
    assert set(functionals(torch.zeros(3, 4), Rows(3))) == {"mean", "entry", "projection 1", "projection 2"}
    assert "coarse projection 1" in functionals(torch.zeros(3, 1, 5, 6, 7), Rows(3))


def test_equal_values_stand_in_random_order():
    ranks = exchanged_ranks(torch.zeros(10, 5000, 2), Rows(5000, seed=5))
    assert stats.chisquare(torch.bincount(ranks[0, :, 0], minlength=10).numpy()).pvalue > 1e-4
    assert torch.equal(ranks[..., 0], ranks[..., 1])
    values = torch.tensor([1.0, 0.0, 1.0, 2.0])[:, None, None].expand(4, 2000, 1)
    first = exchanged_ranks(values, Rows(2000, seed=6))[0, :, 0]
    assert set(first.tolist()) == {1, 2}
    assert abs(float((first == 1).double().mean()) - 0.5) < 4 * 0.5 / math.sqrt(2000)


def test_a_row_has_its_ranks_in_any_batch():
    draws = (exact(20, 9, 1, 6, 6, seed=7)[0] * 2).round()
    x = exact(20, 9, 1, 6, 6, seed=7)[1].round()
    rows, part = Rows(20, seed=8), slice(5, 11)
    whole = rank_truth(draws, x, functionals(x, rows), rows)
    some = rows.take(part)
    alone = rank_truth(draws[:, part], x[part], functionals(x[part], some), some)
    assert torch.equal(whole.values[part], alone.values)


@pytest.mark.parametrize(("n", "count"), [(200, 19), (1000, 99), (60, 16)])
def test_the_band_of_a_histogram_holds_at_its_level(n, count):
    ranks = Rows(800, seed=9).integers(count + 1, n)
    inside = sum(rank_histogram(row, count).inside for row in ranks) / 800
    assert abs(inside - 0.955) < 4 * math.sqrt(0.05 * 0.95 / 800)
    result = rank_histogram(ranks[0], count)
    assert sum(result.counts) == n
    assert sum(result.expected) == pytest.approx(n)
    assert len(result.counts) in ((20, 10, 12) if count != 16 else (12,))


def test_one_band_is_the_binomial_interval():
    simulated = torch.from_numpy(stats.binom.rvs(100, 0.3, size=(4000, 1), random_state=0)).long()
    low, high = simultaneous_band(simulated, 100, torch.tensor([0.3]), 0.9)
    expected = stats.binom.ppf([0.05, 0.95], 100, 0.3)
    assert abs(int(low) - expected[0]) <= 1
    assert abs(int(high) - expected[1]) <= 1


def test_the_null_is_uniform_and_the_same_every_time():
    counts = null_counts(30, 9)
    assert counts.shape == (NULLS, 10)
    assert bool((counts.sum(1) == 30).all())
    assert stats.chisquare(counts.sum(0).numpy()).pvalue > 1e-4
    assert float(counts.double().var(0).mean()) == pytest.approx(30 * 0.09, rel=0.03)
    null_counts.cache_clear()
    assert torch.equal(null_counts(30, 9), counts)


def test_what_cannot_be_is_said():
    draws, x = exact(4, 9, 2)
    with pytest.raises(ShapeError, match="Draws come first"):
        rank_truth(draws.transpose(0, 1), x, {"a": lambda e: e[:, 0]}, Rows(4))
    with pytest.raises(ShapeError, match="one row for each event"):
        rank_truth(draws, x, {"a": lambda e: e[:, 0]}, Rows(3))
    with pytest.raises(ShapeError, match="one number for each event"):
        rank_truth(draws, x, {"a": lambda e: e}, Rows(4))
    with pytest.raises(InputError, match="'a' gives NaN"):
        rank_truth(draws, x, {"a": lambda e: e[:, 0].log()}, Rows(4))
    with pytest.raises(InputError, match="at least one draw and one function"):
        rank_truth(draws, x, {}, Rows(4))
    with pytest.raises(InputError, match="run from 0 to 9"):
        Ranks(("a",), torch.tensor([[10]]), 9)
    with pytest.raises(ShapeError, match="One column"):
        Ranks(("a",), torch.zeros(3, 2, dtype=torch.int64), 9)
    with pytest.raises(InputError, match="at least one rank"):
        rank_histogram(torch.zeros(0, dtype=torch.int64), 9)
    with pytest.raises(InputError, match="1 to 10 bins"):
        rank_histogram(torch.zeros(5, dtype=torch.int64), 9, bins=11)
    with pytest.raises(InputError, match="leave that event out"):
        functionals(x, Rows(4), torch.zeros(4, 2))
    with pytest.raises(ShapeError, match="broadcastable"):
        counted_entries(x, torch.zeros(3))

"""One call measures all: against the single measures, for exact posteriors and for broken ones."""

import math

import pytest
import torch

from oneprior.core import InputError, Rows, ShapeError
from oneprior.evaluation import calibration, crps, interval_coverage
from oneprior.evaluation.calibration import calibrate
from oneprior.evaluation.energy import energy_score
from oneprior.evaluation.tarp import tarp


def exact(n, count, *shape, seed=0):
    """Every entry has a posterior deviation of its own, from 0.2 to 2."""
    rows = Rows(n, seed=seed)
    scale = 0.2 + 1.8 * rows.uniform(*shape)
    centre = rows.normal(*shape)
    return centre + scale * rows.normal(count, *shape).movedim(1, 0), centre + scale * rows.normal(*shape)


def test_an_exact_posterior_passes_everything():
    draws, x = exact(400, 39, 1, 8, 8, seed=1)
    result = calibrate(draws, x, Rows(400, seed=2))
    assert [c.level for c in result.coverage] == [0.5, 0.8, 0.9]
    assert all(abs(c.z) < 4 for c in result.coverage)
    assert len(result.by_deviation) == 10
    for band in result.by_deviation:
        assert abs(band.coverage.z) < 4
        assert (band.coverage.level, band.coverage.draws) == (0.9, 19)
        assert band.error / band.deviation == pytest.approx(math.sqrt(1 + 1 / 19), rel=0.1)
    assert result.by_deviation[0].deviation < result.by_deviation[-1].deviation
    assert not result.verdict.flagged
    assert (result.images, result.draws) == (400, 39)
    assert set(result.histograms) == set(result.ranks.names)
    assert result.ranks.names[-1] == "distance"
    assert abs(result.tarp.largest_gap) < 0.1


def test_it_is_the_single_measures_put_together(monkeypatch):
    draws, x = exact(30, 19, 2, 5, seed=3)
    mask = torch.ones(30, 2, 5, dtype=torch.bool)
    mask[:, 1, 3:] = False
    whole = calibrate(draws, x, Rows(30, seed=4), mask=mask)
    monkeypatch.setattr(calibration, "_CHUNK", 400)  # two images at a time
    parts = calibrate(draws, x, Rows(30, seed=4), mask=mask)
    assert str(parts.coverage) == str(whole.coverage)
    assert str(parts.by_deviation) == str(whole.by_deviation)
    for found, level in zip(whole.coverage, (0.5, 0.8, 0.9), strict=True):
        expected = interval_coverage(draws, x, level, mask)
        assert (found.value, found.width) == pytest.approx((expected.value, expected.width))
        assert found.standard_error == pytest.approx(expected.standard_error)
        assert (found.images, found.draws) == (30, 19)
    energy = energy_score(draws, x, mask)
    assert whole.energy.value == pytest.approx(float(energy.mean()))
    assert whole.energy.standard_error == pytest.approx(float(energy.std()) / math.sqrt(30))
    assert torch.equal(whole.tarp.ranks, tarp(draws, x, Rows(30, seed=4), mask=mask).ranks)
    counted = torch.where(mask, x, torch.zeros_like(x)), torch.where(mask, draws, torch.zeros_like(draws))
    assert whole.crps.value == pytest.approx(float(crps(counted[1], counted[0]).mean()) * 10 / 8, rel=1e-6)


@pytest.mark.parametrize(("change", "says"), [((0.75, 0.0), "too narrow"), ((1.35, 0.0), "too wide")])
def test_broken_posteriors_are_flagged(change, says):
    n = 300
    rows = Rows(n, seed=5)
    x, draws = rows.normal(1, 6, 6), rows.normal(39, 1, 6, 6).movedim(1, 0)
    result = calibrate(change[0] * draws + change[1], x, rows)
    assert result.verdict.flagged
    assert says in {flag.says for flag in result.verdict.flags}
    assert abs(result.coverage[-1].z) > 10
    assert not result.tarp.inside


def test_too_narrow_where_it_is_sure_shows_by_deviation():
    rows = Rows(300, seed=6)
    scale = torch.where(torch.arange(20) < 10, 0.3, 2.0)
    x, draws = scale * rows.normal(20), scale * rows.normal(39, 20).movedim(1, 0)
    draws = draws * torch.where(torch.arange(20) < 10, 0.6, 1.0)
    bands = calibrate(draws, x, rows).by_deviation
    assert bands[0].coverage.z < -10
    assert bands[0].error > 1.4 * bands[0].deviation
    assert abs(bands[-1].coverage.z) < 4


def test_a_function_that_knows_the_measurement_is_needed_and_taken():
    """A posterior that ignores y and draws from the prior has uniform ranks under all functions of x alone."""
    n = 400
    rows = Rows(n, seed=7)
    x, draws = rows.normal(6), rows.normal(39, 6).movedim(1, 0)
    y = x + 0.5 * rows.normal(6)
    assert not calibrate(draws, x, rows).verdict.flagged
    found = calibrate(draws, x, rows, extra={"likelihood": lambda e: -(e - y).double().square().sum(1)})
    assert found.verdict.flags[0].functional == "likelihood"
    with pytest.raises(InputError, match="'mean' already"):
        calibrate(draws, x, rows, extra={"mean": lambda e: e.sum(1)})


def test_few_images_odd_draws_and_events_without_counted_entries():
    draws, x = exact(6, 16, 1, 4, 4, seed=9)
    result = calibrate(draws, x, Rows(6))
    assert [c.level for c in result.coverage] == [1 - 2 / 17]
    assert not result.verdict.conclusive
    mask = torch.ones(6, 1, 4, 4, dtype=torch.bool)
    mask[2] = False
    assert calibrate(draws, x, Rows(6), mask=mask).images == 5
    with pytest.raises(InputError, match="before giving extra functions"):
        calibrate(draws, x, Rows(6), mask=mask, extra={"a": lambda e: e[:, 0, 0, 0]})
    one = calibrate(draws[:, :1], x[:1], Rows(1))
    assert math.isnan(one.energy.standard_error)
    assert math.isnan(one.coverage[0].standard_error)
    number = calibrate(draws[:, :, 0, 0, :1], x[:, 0, 0, :1], Rows(6))
    assert number.ranks.names == ("value", "distance")
    flat = calibrate(torch.zeros(19, 40, 3), torch.zeros(40, 3), Rows(40))
    assert len(flat.by_deviation) == 1
    assert not flat.verdict.flagged


def test_what_cannot_be_is_said():
    draws, x = exact(5, 19, 3)
    with pytest.raises(ShapeError, match="Draws come first"):
        calibrate(draws.transpose(0, 1), x, Rows(5))
    with pytest.raises(ShapeError, match="one row for each event"):
        calibrate(draws, x, Rows(4))
    with pytest.raises(InputError, match="4 draws of each"):
        calibrate(draws[:3], x, Rows(5))
    with pytest.raises(InputError, match="no entry to count"):
        calibrate(draws, x, Rows(5), mask=torch.zeros(3))
    with pytest.raises(InputError, match=r"\(0, 1\)"):
        calibrate(draws, x, Rows(5), levels=[1.2])
    draws[2, 1, 0] = math.nan
    with pytest.raises(InputError, match="the draws hold values that are not finite"):
        calibrate(draws, x, Rows(5))
    with pytest.raises(InputError, match="the truths hold"):
        calibrate(draws, draws[2], Rows(5))

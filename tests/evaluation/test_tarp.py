"""TARP holds for exact posteriors with any reference points, and finds what is wrong with others."""

import math

import pytest
import torch

from oneprior.core import InputError, Rows, ShapeError
from oneprior.evaluation.tarp import reference_points, tarp, tarp_curve


def exact(n, count, *shape, seed=0):
    rows = Rows(n, seed=seed)
    return rows.normal(count, *shape).movedim(1, 0), rows.normal(*shape)


def test_the_curve_is_its_definition():
    draws, x = exact(40, 9, 5)
    references = Rows(40, seed=1).normal(5)
    result = tarp(draws, x, Rows(40), references=references)
    nearer = (draws - references).norm(dim=2) < (x - references).norm(dim=1)
    assert torch.equal(result.ranks, nearer.sum(0))
    share = (
        result.ranks.double() / 9
    )  # f_i; the ball of credibility k / (S + 1) holds the truth if fewer than k draws do
    for k in (1, 4, 9):
        assert float(result.coverage[k - 1]) == float((share < (k - 0.5) / 9).double().mean())
    assert torch.allclose(result.levels, torch.arange(1, 10).double() / 10)
    p = float(result.coverage[4])
    assert float(result.standard_error[4]) == pytest.approx(math.sqrt(p * (1 - p) / 40))


@pytest.mark.parametrize("at", [None, 0.0, 30.0])
def test_an_exact_posterior_is_on_the_diagonal_whatever_the_points(at):
    n = 4000
    draws, x = exact(n, 19, 6, seed=2)
    references = None if at is None else torch.full((n, 6), at)
    result = tarp(draws, x, Rows(n, seed=3), references=references)
    z = (result.coverage - result.levels) / (result.levels * (1 - result.levels) / n).sqrt()
    assert float(z.abs().max()) < 4.5


def test_the_band_holds_the_whole_curve_at_its_level():
    ranks = Rows(600, seed=4).integers(40, 150)
    inside = sum(tarp_curve(row, 39).inside for row in ranks) / 600
    assert abs(inside - 0.955) < 4 * math.sqrt(0.05 * 0.95 / 600)


def test_too_narrow_and_too_wide_leave_the_band_in_their_directions():
    """References far away see one direction; of too narrow draws too few balls of 90 % hold the truth."""
    n = 1500
    draws, x = exact(n, 39, 3, seed=5)
    for factor, sign in ((0.7, -1), (1.4, 1)):
        result = tarp(factor * draws, x, Rows(n, seed=6), references=torch.full((n, 3), 20.0))
        assert not result.inside
        assert sign * float(result.coverage[35] - result.levels[35]) > 0
        assert sign * float(result.coverage[3] - result.levels[3]) < 0
    biased = tarp(draws + 0.4, x, Rows(n, seed=6), references=torch.full((n, 3), 20.0))
    assert biased.largest_gap < -0.1


def test_wrong_correlation_is_seen_though_marginals_are_right():
    n = 2000
    draws, x = exact(n, 39, 2, seed=7)
    truth = torch.stack([x[:, 0], 0.9 * x[:, 0] + math.sqrt(1 - 0.81) * x[:, 1]], 1)
    points = torch.tensor([8.0, 8.0]).expand(n, 2)
    assert not tarp(draws, truth, Rows(n), references=points).inside


def test_reference_points_do_not_tell_the_truth_from_a_draw():
    draws, x = exact(12, 9, 4, seed=8)
    members = torch.cat([x[None], draws])
    swapped = members[[3, 1, 2, 0, *range(4, 10)]]
    points = reference_points(draws, x, Rows(12, seed=9))
    assert torch.allclose(points, reference_points(swapped[1:], swapped[0], Rows(12, seed=9)), atol=1e-12)
    noise = points - members.double().mean(0).roll(1, 0)
    assert float(noise.std()) == pytest.approx(1.0, rel=0.35)


def test_the_mask_counts_and_errors_are_said():
    draws, x = exact(30, 9, 4, seed=10)
    mask = torch.tensor([True, True, False, False])
    references = torch.ones(30, 4)
    masked = tarp(draws, x, Rows(30), references=references, mask=mask)
    alone = tarp(draws[..., :2], x[..., :2], Rows(30), references=references[:, :2])
    assert torch.equal(masked.ranks, alone.ranks)
    with pytest.raises(ShapeError, match="one for each event"):
        tarp(draws, x, Rows(30), references=references[:, :2])
    with pytest.raises(ShapeError, match="Draws come first"):
        tarp(draws[:, :5], x, Rows(30))
    with pytest.raises(InputError, match="at least one event"):
        tarp(draws[:, :0], x[:0], Rows(0))

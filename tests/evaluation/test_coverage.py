"""Coverage is exact for exact draws, and its standard error is that of images, not of pixels."""

import math

import pytest
import torch

from oneprior.core import InputError, Rows, ShapeError
from oneprior.evaluation import interval_coverage


@pytest.mark.parametrize(("count", "level"), [(19, 0.9), (39, 0.9), (9, 0.8), (99, 0.5)])
def test_exact_draws_are_covered_at_the_level(count, level):
    rows = Rows(1500, seed=5)
    result = interval_coverage(rows.normal(count, 4).movedim(1, 0), rows.normal(4), level)
    assert abs(result.z) < 4
    assert result.images == 1500
    assert result.draws == count


def test_too_narrow_draws_are_caught():
    rows = Rows(500, seed=6)
    assert interval_coverage(0.5 * rows.normal(19, 4).movedim(1, 0), rows.normal(4)).z < -10


def test_the_error_is_clustered_by_image():
    """Every pixel of an image is the same number: n images tell as much as n pixels, however many pixels there are."""
    rows = Rows(800, seed=7)
    draws = rows.normal(19, 1).movedim(1, 0).expand(19, 800, 50)
    x = rows.normal(1).expand(800, 50)
    result = interval_coverage(draws, x)
    binomial = math.sqrt(result.value * (1 - result.value) / 800)
    assert result.standard_error == pytest.approx(binomial, rel=0.01)


def test_only_masked_entries_count_and_width_is_theirs():
    rows = Rows(50, seed=8)
    draws, x = rows.normal(19, 6).movedim(1, 0), rows.normal(6)
    mask = torch.tensor([True, True, True, False, False, False])
    masked = interval_coverage(draws, x, mask=mask)
    alone = interval_coverage(draws[..., :3], x[..., :3])
    assert (masked.value, masked.width) == pytest.approx((alone.value, alone.width))
    assert masked.standard_error == pytest.approx(alone.standard_error)
    assert alone.width == pytest.approx(
        float((draws[..., :3].max(0).values - draws[..., :3].min(0).values).mean()), rel=1e-5
    )


def test_what_cannot_be_is_said():
    draws, x = torch.zeros(16, 3, 2), torch.zeros(3, 2)
    with pytest.raises(InputError, match="draw 19"):
        interval_coverage(draws, x, 0.9)
    with pytest.raises(InputError, match=r"\(0, 1\)"):
        interval_coverage(draws, x, 1.5)
    with pytest.raises(InputError, match="no entry to count"):
        interval_coverage(torch.zeros(19, 3, 2), x, mask=torch.zeros(3, 2))
    with pytest.raises(ShapeError, match="Draws come first"):
        interval_coverage(torch.zeros(3, 19, 2), x)


def test_ties_take_their_place_at_random():
    """Exact draws of a law with an atom keep the promised level, and untied draws are judged as before."""
    from oneprior.evaluation.coverage import share_inside

    x = torch.randn(20, 4000, generator=torch.Generator().manual_seed(3)).clamp_min(0.3)  # 62 % of it is one value
    found = interval_coverage(x[1:, :, None], x[0, :, None])
    assert abs(found.value - 0.9) < 4 * found.standard_error
    assert float(((x[0] >= x[1:].amin(0)) & (x[0] <= x[1:].amax(0))).double().mean()) > 0.93  # closed intervals
    draws = torch.tensor([1.0, 2.0, 2.0, 3.0])
    assert share_inside(draws[:, None], torch.tensor([2.0]), 1).item() == pytest.approx(1.0)
    assert share_inside(draws[:, None], torch.tensor([1.0]), 1).item() == pytest.approx(0.5)
    assert share_inside(draws[:, None], torch.tensor([0.0]), 1).item() == 0.0

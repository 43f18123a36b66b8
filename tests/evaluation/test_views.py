"""Random views: each change is what it says, row by row, in one, two and three dimensions."""

import math

import pytest
import torch

from oneprior.core import InputError, Rows
from oneprior.evaluation.views import Views

NONE = Views(crop=1.0, stretch=0.0, shift=0.0, contrast=0.0, brightness=0.0, noise=0.0, cutout=0.0)


def _only(**amounts) -> Views:
    return Views(**{**NONE.__dict__, **amounts})


@pytest.mark.parametrize("space", [(9,), (8, 6), (4, 5, 6)])
def test_shapes_rows_and_the_view_that_changes_nothing(space):
    x = Rows(6, seed=1).normal(2, *space)
    torch.testing.assert_close(NONE(x, Rows(6, seed=2)), x, rtol=1e-5, atol=1e-5)
    views = Views(flips=tuple(range(len(space))))
    whole = views(x, Rows(6, seed=3))
    assert whole.shape == x.shape
    assert float((whole - x).abs().flatten(1).amax(1).min()) > 0.01
    torch.testing.assert_close(views(x[2:4], Rows([2, 3], seed=3)), whole[2:4], rtol=1e-5, atol=1e-6)
    assert not torch.equal(views(x, Rows(6, seed=4)), whole)


@pytest.mark.parametrize(("space", "axis"), [((9,), 0), ((8, 6), 0), ((8, 6), 1), ((4, 5, 6), 2)])
def test_flips_mirror_half_of_the_rows_along_their_axis(space, axis):
    x = Rows(200, seed=1).normal(1, *space)
    found = _only(flips=(axis,))(x, Rows(200, seed=2))
    flipped = (found - x.flip(2 + axis)).abs().flatten(1).amax(1) < 1e-4
    kept = (found - x).abs().flatten(1).amax(1) < 1e-4
    assert bool((flipped ^ kept).all())
    assert abs(int(flipped.sum()) - 100) < 4 * math.sqrt(50)


@pytest.mark.parametrize("space", [(16,), (16, 12), (8, 10, 12)])
def test_crops_of_a_ramp_are_ramps_of_the_declared_slope(space):
    """On a linear ramp a crop is the ramp over a shorter stretch: its slope is the crop's side, on every axis."""
    for axis, size in enumerate(space):
        ramp = torch.arange(float(size)).reshape([size if k == axis else 1 for k in range(len(space))])
        x = ramp.expand(300, 1, *space).contiguous()
        middle = _only(crop=0.5)(x, Rows(300, seed=5)).diff(dim=2 + axis).narrow(2 + axis, size // 2 - 1, 1)
        slope = middle.flatten(1)[:, 0]
        assert 0.49 < float(slope.min()) < 0.55
        assert 0.95 < float(slope.max()) < 1.01
        centre = _only(crop=0.5)(x, Rows(300, seed=5)).flatten(1).mean(1) - (size - 1) / 2
        assert abs(float(centre.mean())) < 4 * float(centre.std()) / math.sqrt(300)
        assert float(centre.abs().max()) > 0.1 * size


def test_values():
    x = Rows(2000, seed=6).normal(1, 12)
    mean = x.flatten(1).mean(1)
    bright = (_only(brightness=0.3)(x, Rows(2000, seed=7)) - x).flatten(1)
    assert float(bright.std(1).max()) < 1e-5
    assert float(bright.abs().max()) <= 0.3 + 1e-5
    assert abs(float(bright[:, 0].mean())) < 4 * 0.3 / math.sqrt(3 * 2000)
    contrast = _only(contrast=0.5)(x, Rows(2000, seed=7)).flatten(1)
    factor = contrast.std(1) / x.flatten(1).std(1)
    torch.testing.assert_close(contrast.mean(1), mean, rtol=1e-4, atol=1e-5)
    assert 1 / 1.5 - 1e-3 <= float(factor.min()) < float(factor.max()) <= 1.5 + 1e-3
    assert abs(float(factor.log().mean())) < 4 * math.log(1.5) / math.sqrt(3 * 2000)
    noise = (_only(noise=0.2)(x, Rows(2000, seed=8)) - x).flatten(1)
    assert abs(float(noise.square().mean()) - 0.04 / 3) < 0.04 / 3 * 4 * math.sqrt(1.0 / 2000)


def test_a_box_of_the_mean_is_cut_out_of_half_of_the_rows():
    x = Rows(400, seed=9).normal(1, 16, 16)
    found = _only(cutout=0.25)(x, Rows(400, seed=10))
    place = (found - x).abs() > 1e-4  # to resample without a change rounds
    changed = place.flatten(1).sum(1)
    assert abs(int((changed > 0).sum()) - 200) < 4 * math.sqrt(100)
    assert int(changed.max()) == 16
    mean = x.flatten(1).mean(1).reshape(-1, 1, 1, 1).expand_as(x)
    torch.testing.assert_close(found[place], mean[place], rtol=1e-4, atol=1e-5)


def test_errors():
    with pytest.raises(InputError, match="0 < crop"):
        Views(crop=0.0)
    with pytest.raises(InputError, match="amounts >= 0"):
        Views(noise=-1.0)
    with pytest.raises(InputError, match="flips"):
        Views(flips=(1,))(torch.zeros(2, 1, 5), Rows(2))

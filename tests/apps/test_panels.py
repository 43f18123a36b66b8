"""Panels show what was measured as it was measured, voxels in their aspect, and quantiles that are quantiles."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from oneprior.apps import panels
from oneprior.core import AffineMap, Geometry, Rows
from oneprior.data import phantoms
from oneprior.tasks import Restoration, simulate

AFFINE = ((1.0, 0, 0, 0), (0, 1.0, 0, 0), (0, 0, 4.0, 0), (0, 0, 0, 1.0))


def restoration(shape, operator, draws=19, truth=True, geometry=Geometry()):
    """Draws round the truth, as if some method had made them."""
    n = 2
    x = phantoms(n, shape, Rows(n))
    units = AffineMap.from_range(0, 255, "grey level")
    measurement = simulate(x, operator, "2%", Rows(n), units=units, geometry=geometry)
    spread = torch.randn(draws, *x.shape, generator=torch.Generator().manual_seed(0)) * 10
    samples = units.to_units(x) + spread
    told = {"misfit": torch.tensor([1.0, 1.0])}
    measurement = measurement if truth else replace(measurement, truth=None)
    std = samples.std(0, correction=min(1, draws - 1))
    return Restoration(samples, samples.mean(0), std, measurement, "made up", False, diagnostics=told)


@pytest.mark.parametrize(
    ("shape", "operator", "baseline"),
    [
        ((16, 12), "downsample:4", "least squares"),
        ((15, 13), "mask:left", "least squares"),
        ((16, 16), "identity", None),
        ((16, 12), "mri:equispaced:2", "zero-filled"),
        ((16, 16), "ct:parallel:8", "back-projection"),
        ((12,), "mask:left", "least squares"),
        ((8, 6, 4), "downsample:1x1x2", "least squares"),
        ((12, 12), "phase:2", None),
    ],
)
def test_every_quantity_has_a_picture(shape, operator, baseline):
    result = restoration(shape, operator)
    shown = panels.views(result, 1)
    names = ["measurement", baseline, "mean", "5 % quantile", "95 % quantile", "deviation"]
    names += [f"sample {k}" for k in (1, 2, 3, 4)] + ["truth", "error of mean"]
    assert list(shown) == [name for name in names if name is not None]
    assert all(p.dtype == np.uint8 and p.shape[-1] == 4 for p in shown.values())
    picture = panels.panel(result, 1)
    assert Image.open(io.BytesIO(picture.png)).size == (picture.width, picture.height)
    assert [name for name, _ in panels.strips(result, samples=4)] == list(shown)


def test_without_a_truth_or_with_one_draw_there_is_less_to_show():
    shown = panels.views(restoration((8, 8), "downsample:2", draws=1, truth=False), 0)
    assert list(shown) == ["measurement", "least squares", "mean", "deviation", "sample 1"]


def test_entries_that_were_not_measured_are_blank():
    shown = panels.views(restoration((8, 8), "mask:left"), 0)["measurement"]
    assert (shown[:, :4] == shown[0, 0]).all()
    assert len(set(shown[0, 0, :3].tolist())) > 1  # a hue that no grey level has
    assert (np.ptp(shown[:, 4:, :3].astype(int), axis=-1) == 0).all()


def test_k_space_is_dark_where_nothing_was_measured():
    result = restoration((16, 16), "mri:equispaced:4:center=0.2")
    shown = panels.views(result, 0)["measurement"][..., 0].astype(float)
    columns = shown.mean(0)
    share = result.measurement.operator.out_shape[-1] / 256
    assert (columns > 1).mean() == pytest.approx(share, abs=1e-6)
    assert shown.argmax() == 8 * 16 + 8  # the middle of k-space


def test_voxels_are_shown_in_their_aspect_and_direction():
    geometry = Geometry("float32", (1.0, 1.0, 4.0), AFFINE, "nifti")
    shown = panels.views(restoration((10, 8, 4), "downsample:1x1x2", geometry=geometry), 0)
    # planes of 10 x 8, 10 x 16 and 8 x 16 samples, the later axis upwards, two rows of margin each
    assert shown["mean"].shape[:2] == (8 + 16 + 16 + 6, 10)
    assert shown["measurement"].shape == shown["mean"].shape


def test_quantiles_are_order_statistics():
    draws = torch.randperm(19, generator=torch.Generator().manual_seed(1)).reshape(19, 1, 1, 1).float()
    share, low, high = panels.quantiles(draws)
    assert (share, float(low), float(high)) == (0.05, 0.0, 18.0)
    share, low, high = panels.quantiles(torch.arange(99.0).reshape(99, 1, 1, 1))
    assert (share, float(low), float(high)) == (0.05, 4.0, 94.0)
    share, low, high = panels.quantiles(torch.arange(3.0).reshape(3, 1, 1, 1))
    assert (share, float(low), float(high)) == (0.25, 0.0, 2.0)
    assert panels.quantiles(torch.zeros(2, 1, 1, 1)) is None


def test_the_deviation_and_the_error_share_their_colours():
    result = restoration((8, 8), "identity", draws=39)
    same = replace(result, mean=result.measurement.truth + result.std)
    shown = panels.views(same, 0)
    assert np.abs(shown["deviation"].astype(int) - shown["error of mean"]).max() <= 4  # of 255: rounding


def in_other_units(result, scale):
    """The same restoration with numbers so many times as large."""
    units = AffineMap(result.units.scale * scale, result.units.offset * scale)
    part = result.measurement
    told = replace(part, y=part.y * scale, units=units, truth=part.truth * scale)
    return replace(
        result, draws=result.draws * scale, mean=result.mean * scale, std=result.std * scale, measurement=told
    )


@pytest.mark.parametrize("scale", [2.0**-60, 2.0**-30, 2.0**40])
def test_the_colours_follow_the_data_whatever_their_units(scale):
    result = restoration((8, 8), "downsample:2")
    plain, scaled = panels.views(result, 0), panels.views(in_other_units(result, scale), 0)
    assert panels.highest_deviation(result.std * scale) == panels.highest_deviation(result.std) * scale
    for name in ("deviation", "error of mean"):
        assert np.ptp(plain[name]) > 100
        assert np.abs(plain[name].astype(int) - scaled[name]).max() <= 1


def test_where_nothing_deviates_the_map_is_black_and_the_errors_have_a_scale_of_their_own():
    result = restoration((8, 8), "identity", draws=1)
    assert panels.highest_deviation(result.std) == 0
    shown = panels.views(result, 0)
    assert (shown["deviation"][..., :3] == shown["deviation"][0, 0, :3]).all()
    assert len(np.unique(shown["error of mean"][..., 0])) > 20
    few = torch.zeros(1, 1, 40, 40)
    few[..., 0, 0] = 3.0  # less than a hundredth
    assert panels.highest_deviation(few) == 3.0


@pytest.mark.parametrize("shape", [(8, 8), (24, 20), (28, 28), (40, 160), (100, 300), (12,), (8, 6, 4)])
@pytest.mark.parametrize("truth", [True, False])
def test_a_panel_is_no_wider_than_a_page_and_its_rows_are_even(shape, truth):
    result = restoration(shape, "identity", truth=truth)
    assert panels.panel(result, 0).width <= 920
    names = list(panels.views(result, 0))
    for most in range(1, 7):
        lines = panels._lines([names[:5], names[5:]], most)
        assert [name for line in lines for name in line] == names
        lengths = [len(line) for line in lines]
        assert max(lengths) <= most
        assert max(lengths) - min(lengths) <= 1


def test_the_planes_of_a_volume_are_named():
    plain = restoration((8, 6, 4), "identity")
    assert list(panels.planes(plain)) == ["plane 3\nof axis 3", "plane 4\nof axis 2", "plane 5\nof axis 1"]
    middles = list(panels.planes(plain).values())  # planes of 8, 8 and 6 lines, two of margin each
    assert middles == pytest.approx([5 / 28, 15 / 28, 24 / 28])
    geometry = Geometry("float32", (1.0, 1.0, 4.0), AFFINE, "nifti")
    lying = restoration((10, 8, 4), "identity", geometry=geometry)
    assert list(panels.planes(lying)) == ["axial", "coronal", "sagittal"]
    assert list(panels.planes(lying).values()) == pytest.approx([5 / 46, 19 / 46, 37 / 46])
    turned = replace(geometry, affine=((0, 0, 4.0, 0), AFFINE[0], AFFINE[1], AFFINE[3]))
    assert list(panels.planes(restoration((10, 8, 4), "identity", geometry=turned))) == ["sagittal", "axial", "coronal"]
    assert panels.planes(restoration((8, 8), "identity")) == {}


def test_the_bar_says_what_it_serves_and_the_units_that_are_known(monkeypatch):
    labels = []
    real = panels.colour_bar
    monkeypatch.setattr(panels, "colour_bar", lambda *a, **k: labels.append(a[2]) or real(*a, **k))
    known = restoration((8, 8), "identity")
    panels.deviation_bar(known)
    panels.panel(known, 0)
    panels.deviation_bar(replace(known, measurement=replace(known.measurement, truth=None)))
    panels.panel(in_other_units(known, 2.0), 0)
    both = "deviation and error, grey level"
    assert labels == [both, both, "deviation, grey level", "deviation and error"]

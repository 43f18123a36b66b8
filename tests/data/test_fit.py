"""Sizes: parsing, the resizing filter against closed forms and Pillow, windows, channels."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from oneprior.core import InputError, ShapeError
from oneprior.data import fit_events, open_dataset, parse_size, resize
from oneprior.data.fit import fit_channels, resolve_size


def test_sizes_are_parsed():
    assert parse_size("32") == 32
    assert parse_size("80x96") == (80, 96)
    assert parse_size("8X9×10") == (8, 9, 10)
    assert parse_size((4, 5)) == (4, 5)
    assert parse_size(None) is None
    for wrong in ("", "x", "3x", "0", "-4", "1x2x3x4", "big"):
        with pytest.raises(InputError, match="size"):
            parse_size(wrong)
    assert resolve_size(8, (3, 4, 5)) == (8, 8, 8)
    assert resolve_size(8, (3, 4, 5), clip=True) == (3, 8, 8)
    with pytest.raises(ShapeError):
        resolve_size((8, 8), (3, 4, 5))


@pytest.mark.parametrize("space", [(12,), (12, 9), (12, 9, 6)])
def test_resizing_keeps_constants_and_means_and_is_separable(space):
    x = torch.randn(2, 3, *space, dtype=torch.float64)
    half = tuple(v // 3 for v in space)
    assert resize(x, half).shape == (2, 3, *half)
    torch.testing.assert_close(resize(torch.ones_like(x), half), torch.ones(2, 3, *half, dtype=torch.float64))
    weights = [
        resize(torch.eye(old, dtype=torch.float64)[None], (new,))[0].T for old, new in zip(space, half, strict=True)
    ]
    letters = "ijk"[: len(space)]
    equation = ",".join(f"{c.upper()}{c}" for c in letters) + f",nc{letters}->nc{letters.upper()}"
    torch.testing.assert_close(resize(x, half), torch.einsum(equation, *weights, x))


def test_resizing_agrees_with_pillow():
    plane = np.random.default_rng(0).integers(0, 256, (1, 1, 40, 30), dtype=np.uint8)
    ours = fit_events(plane, (16, 20))
    theirs = np.asarray(Image.fromarray(plane[0, 0]).resize((20, 16), Image.Resampling.BILINEAR))
    assert ours.dtype == np.uint8
    assert np.abs(ours[0, 0].astype(int) - theirs).max() <= 1


@settings(max_examples=60, deadline=None)
@given(
    space=st.lists(st.integers(2, 12), min_size=1, max_size=3),
    data=st.data(),
    fit=st.sampled_from(["resize", "cover", "pad"]),
)
def test_any_size_is_reached_within_the_range(space, data, fit):
    size = tuple(data.draw(st.integers(1, 14)) for _ in space)
    x = np.random.default_rng(0).integers(20, 200, (2, 1, *space), dtype=np.uint8)
    y = fit_events(x, size, fit)
    assert y.shape == (2, 1, *size)
    assert y.dtype == x.dtype
    assert (y.reshape(2, -1).min(1) >= x.reshape(2, -1).min(1)).all()
    assert (y.reshape(2, -1).max(1) <= x.reshape(2, -1).max(1)).all()


def test_crop_and_pad_are_central_and_undo_each_other():
    x = np.arange(1, 26, dtype=np.uint16).reshape(1, 1, 5, 5)
    np.testing.assert_array_equal(fit_events(x, (3, 3), "crop")[0, 0], x[0, 0, 1:4, 1:4])
    padded = fit_events(x, (9, 7), "pad")
    np.testing.assert_array_equal(fit_events(padded, (5, 5), "crop"), x)
    assert padded[0, 0, 0, 0] == 1  # its own smallest value
    with pytest.raises(ShapeError, match="fit='pad'"):
        fit_events(x, (6, 5), "crop")
    with pytest.raises(InputError, match="resize, cover, crop, pad"):
        fit_events(x, (6, 5), "squash")  # type: ignore[arg-type]


def test_cover_keeps_the_aspect():
    x = np.zeros((1, 1, 20, 40), np.uint8)
    x[..., 10:30] = 200  # the middle square
    assert (fit_events(x, (10, 10), "cover")[..., 1:-1] == 200).all()


def test_channels():
    rgb = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 5), dtype=np.uint8)
    theirs = [np.asarray(Image.fromarray(p.transpose(1, 2, 0)).convert("L")) for p in rgb]
    assert np.abs(fit_channels(rgb, "grey")[:, 0].astype(int) - theirs).max() <= 1
    assert (fit_channels(rgb[:, :1], "rgb") == rgb[:, :1]).all()
    with pytest.raises(InputError, match="2 channels cannot become grey"):
        fit_channels(rgb[:, :2], "grey")


def test_arrays_are_fitted_as_they_are_fetched(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (5, 12, 10, 3), dtype=np.uint8)
    np.save(tmp_path / "x.npy", values)
    dataset = open_dataset(tmp_path / "x.npy", size="6x5", channels="grey")
    assert dataset.event_shape == (1, 6, 5)
    x = dataset.units.to_units(dataset.batch(torch.tensor([3, 0])).x)
    grey = fit_channels(values.transpose(0, 3, 1, 2), "grey")[[3, 0]].astype(np.float32)
    torch.testing.assert_close(x, torch.from_numpy(fit_events(grey, (6, 5))), atol=1e-4, rtol=0)

"""Tensors become the pictures that they are."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from oneprior.apps import pictures
from oneprior.core import ShapeError


def opened(picture: pictures.Picture) -> np.ndarray:
    image = Image.open(io.BytesIO(picture.png))
    assert image.size == (picture.width, picture.height)
    return np.asarray(image)


def test_grey_values_and_gaps():
    x = torch.tensor([-1.0, 0.0, 1.0, 5.0]).reshape(4, 1, 1, 1).expand(4, 1, 2, 3)
    sheet = opened(pictures.grid(x, columns=2, pixels=4, gap=3))
    assert sheet.shape == (2 * 4 + 3, 2 * 6 + 3, 4)
    assert sheet[0, 0].tolist() == [0, 0, 0, 255]
    assert sheet[0, 9].tolist() == [128, 128, 128, 255]
    assert sheet[7, 0].tolist() == sheet[7, 9].tolist() == [255, 255, 255, 255]  # 5 is clipped to white
    assert sheet[4:7, :, 3].max() == sheet[:, 6:9, 3].max() == 0  # gaps are transparent


def test_enlargement_is_by_whole_pixels():
    x = torch.rand(1, 3, 5, 7) * 2 - 1
    small, big = pictures.tiles(x)[0], opened(pictures.grid(x, pixels=12))
    assert big.shape == (15, 21, 4)
    assert (big == small.repeat(3, 0).repeat(3, 1)).all()


def test_rgb_keeps_its_channels():
    x = torch.full((1, 3, 1, 1), -1.0)
    x[0, 1] = 1
    assert pictures.tiles(x)[0, 0, 0].tolist() == [0, 255, 0, 255]


@pytest.mark.parametrize(
    ("shape", "size"),
    [((1, 2, 4, 5), (4, 10)), ((1, 1, 6, 8, 7), (8, 7 + 7 + 8)), ((2, 1, 30), (96, 192))],
)
def test_other_shapes_stand_side_by_side(shape, size):
    assert pictures.tiles(torch.zeros(shape)).shape == (shape[0], *size, 4)


def test_a_clip_shows_frames_over_its_time():
    x = torch.linspace(-1, 1, 20).reshape(1, 1, 20, 1, 1)
    frames = pictures.tiles(x, clip=True)[0, 0, :, 0]
    assert len(frames) == 8
    assert (frames[0], frames[-1]) == (0, 255)
    assert (np.diff(frames.astype(int)) > 0).all()


def test_deviations_are_coloured_on_a_common_scale():
    x = torch.tensor([0.0, 0.5, 1.0]).reshape(3, 1, 1, 1)
    dark, middle, light = pictures.tiles(x, low=0, high=1, colours="magma")[:, 0, 0, :3].astype(int).sum(-1)
    assert dark < middle < light
    rgb = torch.tensor([0.0, 0.6, 0.8]).reshape(1, 3, 1, 1)  # root mean square: (1 / 3) ** 0.5
    one = torch.full((1, 1, 1, 1), (1 / 3) ** 0.5)
    both = [pictures.tiles(x, low=0, high=1, colours="magma") for x in (rgb, one)]
    assert (both[0] == both[1]).all()
    bar = opened(pictures.colour_bar(0, 1, "deviation"))
    assert (bar[0, 0, :3] == pictures.tiles(x[:1], low=0, high=1, colours="magma")[0, 0, 0, :3]).all()


def test_nothing_but_events():
    with pytest.raises(ShapeError, match=r"channels, \*space"):
        pictures.grid(torch.zeros(3, 4))


def test_values_that_are_no_numbers_do_not_stop_the_page():
    x = torch.tensor([float("nan"), 1.0]).reshape(2, 1, 1, 1)
    assert pictures.tiles(x)[:, 0, 0, 0].tolist() == [0, 255]


def test_labelled_strips(tmp_path):
    strip = pictures.grid(torch.zeros(3, 1, 8, 8), columns=3, pixels=32)
    sheet = pictures.stack([("truth", strip), ("mean of\nppca", strip)])
    assert sheet.height == 2 * strip.height + 6
    words = opened(sheet)[:, : sheet.width - strip.width, 3]
    assert words.max() > 0
    assert words[:, 0].max() == 0 or words[:, :3].any()
    longer = pictures.stack([("a label that is much longer than the others", strip)])
    assert longer.width > sheet.width + 100  # no label is cut off
    assert sheet.save(tmp_path / "a" / "b.png").read_bytes() == sheet.png

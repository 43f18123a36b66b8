"""Sheets of pictures."""

import numpy as np
import pytest
import torch
from PIL import Image

from oneprior.training.previews import sheet, write_sheet


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((4, 1, 8, 8), (2 * 66, 2 * 66)),
        ((4, 3, 8, 16), (2 * 34, 2 * 66, 3)),
        ((2, 5, 80, 96), (82, 2 * 98)),
        ((3, 1, 6, 8, 8), (2 * 66, 2 * 66)),
        ((1, 2, 32), (66, 34)),
    ],
)
def test_any_event_can_be_looked_at(shape, size):
    picture = sheet(torch.zeros(shape))
    assert picture.dtype == np.uint8
    assert picture.shape == size


def test_values_are_shown_as_they_are(tmp_path):
    x = torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1).expand(2, 1, 70, 70)
    write_sheet(x, tmp_path / "a" / "sheet.png")
    picture = np.asarray(Image.open(tmp_path / "a" / "sheet.png"))
    assert picture.shape == (72, 144)
    assert picture[1:71, 1:71].max() == 0
    assert picture[1:71, 73:143].min() == 255


def test_a_curve_is_drawn_where_it_is():
    picture = sheet(torch.linspace(-1, 1, 64).reshape(1, 1, 64))[1:-1, 1:-1]
    rows, columns = np.nonzero(picture)
    assert len(rows) == 64
    assert np.abs(rows - (63 - columns)).max() <= 1

"""The page of a restoration says how much of it is shown, and of whom a figure is."""

import pytest
import torch

from oneprior.apps import pictures, restored_page
from oneprior.apps.restored import judge

TOLD = restored_page.Told("some images", "mask:left", "5%", "ppca `run`", "best", "oneprior restore run", 0)


def rows(count, doubt=""):
    one = {
        "method": "closed form",
        "exact": True,
        "draws": 19,
        "network_calls": 0,
        "seconds": 0.1,
        "misfit": 1.0,
        "diagnostics": {"effective_sample_size": 19.0, "misfit_draw": 1.0},
    }
    return [one | {"doubt": doubt if k == count - 1 else ""} for k in range(count)]


def page(folder, count, doubt=""):
    names = [f"image_{k:03d}" for k in range(count)]
    for name in names:
        pictures.grid(torch.zeros(1, 1, 8, 8)).save(folder / name / "panel.png")
    found = rows(count, doubt)
    figures = judge(found, names) | {"aim": "best"}
    return restored_page.page_of_folder(folder, names, found, figures, TOLD).html()


@pytest.mark.parametrize(
    ("count", "doubt", "said"),
    [
        (20, "", "12 of 20 pictured, the first by name; the others"),
        (20, "far off: blur", "12 of 20 pictured, those to be doubted first; the others"),
        (12, "", None),
    ],
)
def test_a_page_of_many_says_how_many_are_pictured(tmp_path, count, doubt, said):
    text = page(tmp_path, count, doubt)
    assert text.count('class="words"') == 12
    if said is None:
        assert "pictured" not in text
    else:
        assert text.index(said) < text.index("<h3>")  # before the first of them


def test_a_median_is_one_of_several(tmp_path):
    assert "effective sample size (median)" in page(tmp_path, 2)
    alone = page(tmp_path / "alone", 1)
    assert "effective sample size" in alone
    assert "(median)" not in alone

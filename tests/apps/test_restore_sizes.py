"""Files of another size or with transparency, noise that cannot be meant: told in words of files and options."""

import json

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from oneprior.apps.main import run

DIGITS = (load_digits().images * 255 / 16).round().astype(np.uint8)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A ppca of digits, which can be tiled, and a mixture, which cannot."""
    folder = tmp_path_factory.mktemp("runs")
    np.savez(folder / "digits.npz", x=DIGITS[:400])
    for name, more in (("ppca", []), ("mixture", ["--components", "3"])):
        words = ["train", "ppca", "--data", str(folder / "digits.npz"), "--tracker", "none", "--held-out", "0", *more]
        assert run([*words, "--out", str(folder / name)]) == 0
    return folder


def asked(runs, name, path, operator, out, *more, source="--input"):
    words = ["restore", str(runs / name), source, str(path), "--operator", operator, "--samples", "3"]
    return [*words, *(more or ("--noise", "5%")), "--out", str(out)]


def figures(out):
    return json.loads((out / "result.json").read_text())["figures"]


@pytest.mark.parametrize(
    ("shape", "operator", "source", "said"),
    [
        ((12, 12), "identity", "--input", ["is 12 x 12 and the run is of 8 x 8", "not by this ppca run"]),
        ((12, 12), "identity", "--study", ["--study", "is 12 x 12 and the run is of 8 x 8", "not by this ppca run"]),
        (
            (8, 8),
            "downsample:2",
            "--input",
            ["is 8 x 8 and", "--operator downsample:2 makes 4 x 4", "give it as --study"],
        ),
        ((8, 6), "mask:left", "--input", ["is 8 x 6 and the run is of 8 x 8"]),
        ((4, 4), "identity", "--input", ["is 4 x 4 and", "--operator downsample:2 restores the finer picture"]),
    ],
)
def test_a_wrong_size_is_told_with_remedies_and_without_classes(runs, tmp_path, capsys, shape, operator, source, said):
    Image.fromarray(np.resize(DIGITS[1000], shape)).save(tmp_path / "x.png")
    assert run(asked(runs, "mixture", tmp_path / "x.png", operator, tmp_path / "out", source=source)) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    fit = ["--fit resize, cover, crop or pad"] if "give it as --study" not in said else []
    for words in [*said, *fit]:
        assert words in told
    assert "Prior" not in told
    assert "Denoiser" not in told
    assert "needed (n" not in told
    assert not (tmp_path / "out").exists()


def test_tiles_are_told_on_the_screen_on_the_page_and_in_the_record(runs, tmp_path, capsys):
    Image.fromarray(np.concatenate([DIGITS[1000], DIGITS[1001]], 1)).save(tmp_path / "x.png")
    assert run(asked(runs, "ppca", tmp_path / "x.png", "identity", tmp_path / "out")) == 0
    said = "the measurement is larger than the prior (8 x 16 against 8 x 8): covered by 3 overlapping tiles"
    screen = capsys.readouterr()
    assert f"note: {said}" in screen.out
    assert f"note: {said}" in screen.err  # before the work, too
    (note,) = figures(tmp_path / "out")["notes"]["x.png"]
    assert note.startswith(said)
    assert "strangeness cannot be had" in note
    assert "exact for the law of the tiles only" in note
    page = (tmp_path / "out" / "report.html").read_text()
    assert said in page
    assert "exact for the law of the tiles, which is not that of larger images" in page
    assert "not judged: in tiles" in page
    assert "noise: fits the prior" not in page


def test_in_a_folder_a_tiled_picture_is_not_said_to_fit(runs, tmp_path):
    (tmp_path / "x").mkdir()
    Image.fromarray(np.concatenate([DIGITS[1000], DIGITS[1001]], 1)).save(tmp_path / "x" / "wide.png")
    Image.fromarray(DIGITS[1002]).save(tmp_path / "x" / "own.png")
    assert run(asked(runs, "ppca", tmp_path / "x", "identity", tmp_path / "out")) == 0
    table = (tmp_path / "out" / "report.html").read_text().partition("Image by image")[2]
    rows = {name: table.partition(name)[2].partition("</tr>")[0] for name in ("wide<", "own<")}
    assert "not judged" in rows["wide<"]
    assert "yes" in rows["own<"]


def test_what_was_warned_of_is_on_the_page_and_in_the_record(runs, tmp_path):
    np.save(tmp_path / "x.npy", DIGITS[1000] / 255)
    with pytest.warns(UserWarning, match="hardly touch the range"):
        assert run(asked(runs, "mixture", tmp_path / "x.npy", "identity", tmp_path / "out")) == 0
    values, noise = figures(tmp_path / "out")["warnings"]["x.npy"]
    assert "hardly touch the range" in values
    assert "is more than any value" in noise
    page = (tmp_path / "out" / "report.html").read_text()
    assert "hardly touch the range" in page
    assert "noise: fits the prior" not in page
    assert "far more likely if it shows another kind of image" in page


def test_a_warning_without_a_doubt_leaves_the_verdict_open(runs, tmp_path):
    np.save(tmp_path / "y.npy", DIGITS[1000].reshape(2, 4, 2, 4).mean((1, 3)).round())
    words = asked(runs, "mixture", tmp_path / "y.npy", "downsample:4", tmp_path / "out", "--noise", "0.2")
    with pytest.warns(UserWarning, match="less than the rounding"):
        assert run(words) == 0
    assert not figures(tmp_path / "out")["doubtful"]
    assert "not for sure; see what to mind, above" in (tmp_path / "out" / "report.html").read_text()


def test_noise_stated_much_too_large_is_noted(runs, tmp_path, capsys):
    Image.fromarray(DIGITS[1000]).save(tmp_path / "x.png")
    path = tmp_path / "x.png"
    assert run(asked(runs, "mixture", path, "identity", tmp_path / "out", "--noise", "500")) == 0
    assert "perhaps the stated noise is too large" in capsys.readouterr().out
    assert "perhaps the stated noise is too large" in figures(tmp_path / "out")["notes"]["x.png"][-1]
    assert "the stated noise is too large" in (tmp_path / "out" / "report.html").read_text()
    assert run(asked(runs, "mixture", path, "identity", tmp_path / "right")) == 0
    assert figures(tmp_path / "right")["notes"] == {}


def test_transparency_is_refused_and_an_opaque_channel_dropped(runs, tmp_path, capsys):
    for name, opacity in (("clear", 200), ("opaque", 255)):
        alpha = np.full((8, 8, 1), opacity, np.uint8)
        Image.fromarray(np.concatenate([DIGITS[1000][..., None].repeat(3, 2), alpha], 2)).save(tmp_path / f"{name}.png")
    Image.fromarray(DIGITS[1000]).save(tmp_path / "grey.png")
    out = tmp_path / "out"
    assert run(asked(runs, "mixture", tmp_path / "clear.png", "identity", out)) == 2
    assert "clear.png is partly transparent, and a measurement is not" in capsys.readouterr().err
    for name in ("opaque", "grey"):
        assert run(asked(runs, "mixture", tmp_path / f"{name}.png", "identity", tmp_path / name)) == 0
    assert figures(tmp_path / "opaque")["misfit"] == figures(tmp_path / "grey")["misfit"]

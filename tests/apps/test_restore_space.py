"""`oneprior restore --space` and `--features`: what is asked is done, recorded, shown, and compared by --resume."""

import json

import numpy as np
import pytest
from PIL import Image

from oneprior.apps.main import run
from oneprior.core import AffineMap, Geometry
from oneprior.inference.noise.brgm import BRGM
from oneprior.models.configs.gan import GANConfig
from oneprior.models.configs.ppca import PPCAConfig
from oneprior.models.gan import GAN
from oneprior.models.ppca import PPCA
from oneprior.tasks import methods
from oneprior.training import save
from oneprior.training.order import seeded

SHAPE = (1, 8, 8)
GREY = {"units": AffineMap.from_range(0, 255, "grey level"), "geometry": Geometry(dtype="uint8", format="png")}


@pytest.fixture(scope="module")
def style(tmp_path_factory):
    """A StyleGAN2 of 8 x 8 pictures that has learned nothing."""
    with seeded(0, "style"):
        model = GAN(GANConfig(network="stylegan2", latent=4, width=4, mapping_layers=2), SHAPE)
    return save(model, tmp_path_factory.mktemp("runs") / "style", **GREY).path


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for k in range(2):
        values = np.random.default_rng(k).integers(60, 200, (8, 8)).astype(np.uint8)
        Image.fromarray(values).save(folder / f"p{k}.png")
    return folder


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """BRGM in three steps, and resampling of the fewest candidates."""
    quick = {"brgm-pytorch": methods.Method(BRGM("pytorch", steps=3))}
    monkeypatch.setattr(methods, "METHODS", {**methods.METHODS, **quick})


def restore(prior, source, out, *more, samples="2"):
    words = ["restore", str(prior), "--input", str(source), "--operator", "mask:left", "--noise", "20"]
    return run([*words, "--samples", samples, "--out", str(out), *more])


def record(folder):
    return json.loads((folder / "result.json").read_text())


def test_the_space_is_recorded_shown_and_compared(style, pictures, tmp_path, capsys):
    out = tmp_path / "out"
    more = ("--method", "resampling", "--space", "w+", "--truncation", "0.7")
    assert restore(style, pictures, out, *more) == 0
    found = record(out)
    assert (found["settings"]["space"], found["figures"]["space"]) == ("w+", "w+")
    assert found["figures"]["truncation"] == "0.7"
    page = (out / "report.html").read_text()
    assert "latent space of the posterior" in page
    capsys.readouterr()
    assert restore(style, pictures, out, "--method", "resampling", "--space", "w", "--resume") == 2
    assert "was begun with --space w+, --truncation 0.7" in capsys.readouterr().err
    assert restore(style, pictures, out, *more, "--resume") == 0
    assert "nothing was left to do" in capsys.readouterr().out


def test_brgm_says_what_it_looked_at_and_where(style, pictures, tmp_path, monkeypatch, capsys):
    (tmp_path / "looks.py").write_text("def distance(a, b):\n    return (a - b).abs().flatten(1).mean(1)\n")
    monkeypatch.chdir(tmp_path)
    one = pictures / "p0.png"
    assert restore(style, one, tmp_path / "a", "--method", "brgm-pytorch") == 0
    assert {k: record(tmp_path / "a")["figures"][k] for k in ("space", "perceptual")} == {
        "space": "w+",
        "perceptual": "none",
    }
    assert restore(style, one, tmp_path / "b", "--method", "brgm-pytorch", "--features", "looks:distance") == 0
    figures = record(tmp_path / "b")["figures"]
    assert (figures["perceptual"], figures["space"]) == ("looks:distance", "w+")
    assert "perceptual distance in the objective" in (tmp_path / "b" / "report.html").read_text()
    capsys.readouterr()
    assert restore(style, one, tmp_path / "c", "--features", "looks:distance") == 2
    assert "features are for the perceptual term of brgm" in capsys.readouterr().err
    assert restore(style, one, tmp_path / "c", "--method", "brgm-pytorch", "--features", "pixels") == 2
    assert "pixels have no stages" in capsys.readouterr().err
    assert not (tmp_path / "c").exists()


def test_a_family_without_spaces_says_so_before_any_work(pictures, tmp_path, capsys):
    ppca = save(PPCA(PPCAConfig(rank=2), SHAPE), tmp_path / "ppca", **GREY).path
    assert restore(ppca, pictures, tmp_path / "out", "--space", "w") == 2
    said = capsys.readouterr().err
    assert "a ppca has no space to choose" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_calibration_takes_the_space(style, tmp_path):
    np.savez(tmp_path / "real.npz", x=np.random.default_rng(1).integers(60, 200, (4, 8, 8)).astype(np.uint8))
    words = ["calibrate", str(style), "--data", str(tmp_path / "real.npz"), "--operator", "mask:left", "--noise", "20"]
    words += ["--n", "3", "--samples", "4", "--method", "resampling", "--space", "w", "--out", str(tmp_path / "c")]
    assert run(words) == 0
    assert record(tmp_path / "c")["settings"]["space"] == "w"

"""Grey levels are read as what they are: of the run's type by the run's range, of another type by that type's own."""

import json

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from oneprior.apps.main import run
from oneprior.core import AffineMap
from oneprior.data import read_arrays
from oneprior.tasks import Measurement, restore
from oneprior.training import load


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """A ppca of 12-bit digits stored in 16 bits, and one held-out digit as 16-bit and as 8-bit PNG."""
    folder = tmp_path_factory.mktemp("films")
    images = load_digits().images / 16
    np.savez(folder / "films.npz", x=(images[:200] * 4095).round().astype(np.uint16))
    Image.fromarray((images[300] * 4095).round().astype(np.uint16)).save(folder / "deep.png")
    Image.fromarray((images[300] * 255).round().astype(np.uint8)).save(folder / "shallow.png")
    words = ["train", "ppca", "--data", str(folder / "films.npz"), "--out", str(folder / "run"), "--tracker", "none"]
    assert run(words) == 0
    return folder


def restored(folder, picture, *more):
    out = folder / f"out-{picture}-{len(more)}"
    words = ["restore", str(folder / "run"), "--input", str(folder / picture), "--operator", "identity"]
    assert run([*words, "--noise", "5%", "--samples", "3", "--out", str(out), *more]) == 0
    arrays = read_arrays(out / "restoration.npz")
    return arrays["mean"], np.asarray(Image.open(out / "mean.png"))


def test_an_eight_bit_picture_and_a_sixteen_bit_prior_agree(films):
    deep, deep_picture = restored(films, "deep.png")
    shallow, shallow_picture = restored(films, "shallow.png")
    assert deep_picture.dtype == np.uint16
    assert shallow_picture.dtype == np.uint8
    assert np.corrcoef(deep.ravel(), shallow.ravel())[0, 1] > 0.99
    assert np.abs(deep / 4095 - shallow / 255).max() < 0.02
    assert np.corrcoef(shallow.ravel(), np.asarray(Image.open(films / "shallow.png")).ravel())[0, 1] > 0.8


def test_a_measurement_file_is_read_in_the_range_of_the_run(films, capsys):
    y = films / "y.npz"
    assert run(["simulate", str(films / "deep.png"), "--operator", "identity", "--noise", "50", "--out", str(y)]) == 0
    assert "noise 50 of the range 0 .. 65535; " in capsys.readouterr().out
    assert run(["restore", str(films / "run"), "--input", str(y), "--samples", "3", "--out", str(films / "r")]) == 0
    truth = np.asarray(Image.open(films / "deep.png")).astype(float)
    mean = read_arrays(films / "r" / "restoration.npz")["mean"].reshape(8, 8)
    assert np.abs(mean - truth).mean() < 120  # of 4095: the noise is 50


def test_python_reads_a_measurement_file_as_the_command_does(films):
    y = films / "again.npz"
    run(["simulate", str(films / "deep.png"), "--operator", "mask:left", "--noise", "50", "--out", str(y)])
    words = ["restore", str(films / "run"), "--input", str(y), "--samples", "3", "--out", str(films / "same")]
    assert run(words) == 0
    result = restore(load(films / "run"), Measurement.load(y), samples=3)
    assert result.units == load(films / "run").units != Measurement.load(y).units
    by_command = read_arrays(films / "same" / "restoration.npz")["mean"]
    assert np.allclose(result.mean.numpy(), by_command, rtol=1e-4, atol=0.1)


@pytest.mark.filterwarnings("ignore:the measurement's values")
def test_a_stated_range_wins(films):
    y = films / "again.npz"
    run(["simulate", str(films / "deep.png"), "--operator", "identity", "--noise", "50", "--out", str(y)])
    stated = AffineMap.from_range(0, 65535)
    assert restore(load(films / "run"), Measurement.load(y), samples=3, units=stated).units == stated
    words = ["restore", str(films / "run"), "--input", str(y), "--samples", "3", "--out", str(films / "stated")]
    assert run([*words, "--value-range", "0", "65535"]) == 0
    by_command = read_arrays(films / "stated" / "restoration.npz")["mean"]
    result = restore(load(films / "run"), Measurement.load(y), samples=3, units=stated)
    assert np.allclose(result.mean.numpy(), by_command, rtol=1e-4, atol=1.0)


def test_a_percentage_of_a_picture_does_not_depend_on_the_picture(films, tmp_path):
    y = tmp_path / "y.npz"
    run(["simulate", str(films / "deep.png"), "--operator", "identity", "--noise", "5%", "--out", str(y)])
    level = json.loads((tmp_path / "result.json").read_text())["figures"]["noise_level"]
    assert level == pytest.approx(0.05 * 65535)


def test_simulate_names_the_file_it_can_write(films, tmp_path, capsys):
    words = ["simulate", str(films / "deep.png"), "--operator", "identity", "--out", str(tmp_path / "z.png")]
    assert run(words) == 2
    assert "z.npz" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_fit_that_cannot_start_leaves_no_run_behind(films, tmp_path, capsys):
    words = ["train", "ppca", "--data", str(films / "films.npz"), "--out", str(tmp_path / "run"), "--tracker", "none"]
    assert run([*words, "--components", "500"]) == 2
    assert "give fewer components" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert run(words) == 0

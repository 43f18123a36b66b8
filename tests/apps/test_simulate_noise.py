"""`simulate --noise` in every law, and where the laws are listed."""

import json

import numpy as np
import pytest

from oneprior.apps.main import run
from oneprior.tasks import Measurement


@pytest.fixture
def picture(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((2, 8, 9)).astype(np.float32))
    return tmp_path


def measure(folder, noise):
    words = ["simulate", str(folder / "x.npy"), "--operator", "identity", "--noise", noise, "--value-range", "0", "1"]
    return run([*words, "--out", str(folder / "y.npz")])


@pytest.mark.parametrize(
    ("noise", "spec"),
    [
        ("rician:5%", "rician:0.05"),
        ("poisson:200", "poisson:gain=200.0:black=0.0"),
        ("laplace:0.1", "laplace:0.1"),
        ("outliers:5%", "outliers:0.05:share=0.1:spread=0.5"),
        ("unknown:1%:10%", "unknown:0.01:0.1"),
        ("5%", "gaussian:0.05"),
    ],
)
def test_simulate_takes_every_law(picture, noise, spec, capsys):
    assert measure(picture, noise) == 0
    figures = json.loads((picture / "result.json").read_text())["figures"]
    assert figures["noise"] == spec
    assert ("noise_level" in figures) == (not spec.startswith(("poisson", "unknown")))
    assert ("noise 0.05 of the range 0 .. 1" if noise == "5%" else spec) in " ".join(capsys.readouterr().out.split())
    got = Measurement.load(picture / "y.npz")
    assert got.noise.spec == spec
    assert ((got.misfit(got.truth) > 0.6) & (got.misfit(got.truth) < 1.5)).all()


def test_a_misspelt_law_is_one_line(picture, capsys):
    assert measure(picture, "poison:200") == 2
    assert "did you mean 'poisson'?" in " ".join(capsys.readouterr().err.split())


def test_operators_lists_the_laws(capsys):
    assert run(["operators"]) == 0
    out = capsys.readouterr().out
    assert all(f"{name}:" in out for name in ("gaussian", "poisson", "rician", "laplace", "outliers", "unknown"))

"""Music by the same commands as pictures: trained on, drawn as a tune, and a missing voice filled in."""

import re
import sys

import numpy as np
import pytest

from oneprior.apps.main import run as oneprior
from oneprior.data.chorales import chorale, write_chorales
from oneprior.data.midi import read_notes, write_notes
from oneprior.training import load, train


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two-bar windows of chorales, and a vqvae of them."""
    folder = tmp_path_factory.mktemp("music")
    write_chorales(folder / "set", 60)
    small = {"size": 32, "codes": 64, "downsample": 4, "width": 32, "prior_width": 32, "prior_depth": 1}
    quiet = {"held_out": 0.05, "preview_every": 0, "tracker": "none", "prior_heads": 2}
    train("vqvae", data=folder / "set", out=folder / "run", images=10_000, batch_size=32, **small, **quiet)
    return folder


def test_a_tune_is_drawn(place, tmp_path):
    run = load(place / "run")
    assert run.model.config.one_hot == 4  # a softmax a voice, set by itself
    assert oneprior(["sample", str(place / "run"), "--n", "2", "--out", str(tmp_path / "tune.mid")]) == 0
    voices = read_notes((tmp_path / "tune.mid").read_bytes())
    assert 1 <= len(voices) <= 4
    assert max(note.start + note.length for voice in voices for note in voice) <= 16


def test_a_missing_voice_is_filled_in_and_the_others_stay(place, tmp_path):
    told = chorale(np.random.default_rng([1, 7]), bars=2)
    (tmp_path / "piece.mid").write_bytes(write_notes(told))
    words = ["restore", str(place / "run"), "--input", str(tmp_path / "piece.mid"), "--samples", "3", "--noise", "5%"]
    assert oneprior([*words, "--operator", "mask:voice:1:of=4", "--out", str(tmp_path / "out")]) == 0
    means = sorted((tmp_path / "out").glob("mean.mid"))
    assert len(means) == 1
    assert len(list((tmp_path / "out").glob("sample_*.mid"))) == 3
    assert not list((tmp_path / "out").glob("*std*.mid"))
    page = (tmp_path / "out" / "report.html").read_text()
    assert "the mean shows all of them over each other" in page
    assert "quantiles" not in page
    assert not re.search(r"\b(image|picture)s?\b(?![/-])", page)
    again = read_notes(means[0].read_bytes())
    assert again[-3:] == told[-3:]
    for path in (tmp_path / "out").glob("sample_*.mid"):
        assert read_notes(path.read_bytes())[-3:] == told[-3:]


def test_a_voice_that_is_not_there_is_one_line(place, tmp_path, capsys):
    (tmp_path / "piece.mid").write_bytes(write_notes(chorale(np.random.default_rng(3), bars=2)))
    words = ["restore", str(place / "run"), "--input", str(tmp_path / "piece.mid"), "--noise", "5%"]
    assert oneprior([*words, "--operator", "mask:voice:5:of=4", "--out", str(tmp_path / "out")]) == 2
    assert "voice 5 of 4 is to be missing: give one from 1 to 4" in capsys.readouterr().err


def test_music_is_scored_by_its_notes(place, tmp_path, monkeypatch):
    told = "def short(voices):\n    return -sum(note.length > 1 for voice in voices for note in voice)\n"
    (tmp_path / "taste.py").write_text(told)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    words = ["optimise", str(place / "run"), "--initial", "60", "--leaf", "5", "--trees", "30", "--budget", "2"]
    words += ["--batch", "2", "--retrain-every", "0", "--out"]
    assert oneprior([*words, "notes", "--score", "taste:short"]) == 0
    (tmp_path / "size.py").write_text("import pathlib, sys; print(len(pathlib.Path(sys.argv[1]).read_bytes()))")
    assert oneprior([*words, "files", "--score-command", f"{sys.executable} size.py"]) == 0
    files = sorted((tmp_path / "files/best").glob("*.mid"))
    scores = [float(line.split(",")[3]) for line in (tmp_path / "files/candidates.csv").read_text().split()[1:]]
    assert sorted((float(path.stat().st_size) for path in files), reverse=True) == sorted(scores, reverse=True)

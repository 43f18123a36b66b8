"""`oneprior zoo`, and `zoo:NAME` wherever a command takes a run."""

import json
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from digits_of_a_zoo import FACTS
from PIL import Image
from sklearn.datasets import load_digits

import oneprior
from oneprior.apps.main import run
from oneprior.data import array_dataset
from oneprior.training import load, publish, zoo
from oneprior.training.zoo import Figure

PIXELS = (torch.from_numpy(load_digits().images) * 255 / 16).round().to(torch.uint8)[:, None]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A zoo of a Gaussian and a denoiser of digits."""
    folder = tmp_path_factory.mktemp("zoo")
    data, quiet = array_dataset(PIXELS[:500], layout="nchw"), {"tracker": "none", "preview_every": 0}
    shown = PIXELS[1500:1502].float() / 127.5 - 1
    for family, settings in (("ppca", {}), ("diffusion", {"images": 320, "batch_size": 32})):
        out = folder.parent / f"run-{family}"
        oneprior.train(family, data=data, out=out, **settings, **quiet)
        figures = [Figure("PSNR of the mean", 20.25, "dB")]
        publish(load(out), f"digits-{family}", FACTS, folder, figures=figures, examples=shown)
    return folder


@pytest.fixture(autouse=True)
def at_home(place, monkeypatch):
    monkeypatch.setattr(zoo, "zoo_folder", lambda: place)


def test_the_list_is_a_table_or_json(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    assert run(["zoo", "list"]) == 0
    said = capsys.readouterr().out
    for words in ("zoo:digits-diffusion", "zoo:digits-ppca", "1x8x8", "CC-BY-SA-4.0", "20.2 dB", "not for diagnosis"):
        assert words in said
    assert run(["zoo", "list", "--json"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in body] == ["digits-diffusion", "digits-ppca"]
    assert body[0]["facts"]["credit"] == FACTS.credit


def test_an_empty_zoo_says_so(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(zoo, "zoo_folder", lambda: tmp_path)
    assert run(["zoo", "list"]) == 0
    assert "the zoo is empty" in capsys.readouterr().out


def test_words_that_are_no_verb_are_told(capsys):
    assert run(["zoo"]) == 2
    assert run(["zoo", "lst"]) == 2
    assert run(["zoo", "get", "digits-gan", "--out", "x"]) == 2
    said = capsys.readouterr().err
    assert "zoo needs a word more: list, get, train" in said
    assert "did you mean list?" in said
    assert "the zoo has no 'digits-gan'; there is digits-diffusion, digits-ppca" in said
    assert run(["zoo", "--help"]) == 0
    assert "zoo:NAME stands for an entry" in capsys.readouterr().out


def test_a_prior_draws_and_restores_by_its_name(tmp_path, capsys):
    assert run(["sample", "zoo:digits-ppca", "--n", "3", "--out", str(tmp_path / "x.npz")]) == 0
    assert np.load(tmp_path / "x.npz")["x"].dtype == np.uint8
    out, study = tmp_path / "restored", load("zoo:digits-diffusion").path / "examples"
    words = ["--study", str(study), "--operator", "mask:left", "--noise", "5%", "--aim", "fast", "--samples", "2"]
    assert run(["restore", "zoo:digits-diffusion", *words, "--out", str(out)]) == 0
    record = json.loads((out / "result.json").read_text())
    assert record["settings"]["run"] == "zoo:digits-diffusion"
    assert record["figures"]["n"] == 2
    page = (out / "report.html").read_text()
    assert "zoo:digits-diffusion" in page
    assert "the prior learned from" in page  # and whom the licence asks to name
    lent = [*words, "--guide", "zoo:digits-ppca"]
    assert run(["restore", "zoo:digits-diffusion", *lent, "--out", str(tmp_path / "lent")]) == 0
    assert run(["info", "zoo:digits-ppca"]) == 0
    assert "CC-BY-SA-4.0" in capsys.readouterr().out
    assert run(["restore", "zoo:cats", *words, "--out", str(tmp_path / "no")]) == 2
    assert "the zoo has no 'cats'" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_pages_call_it_by_its_name(tmp_path):
    data = tmp_path / "digits.npy"
    np.save(data, PIXELS[1500:1600, 0].numpy())
    words = ["--data", str(data), "--n", "40", "--real", "40", "--out", str(tmp_path / "page")]
    assert run(["evaluate", "zoo:digits-ppca", *words]) == 0
    assert json.loads((tmp_path / "page/result.json").read_text())["figures"]["run"] == "zoo:digits-ppca"
    lead = (tmp_path / "page/report.html").read_text()
    assert "zoo:digits-ppca" in lead


def test_get_gives_a_run_and_never_overwrites(tmp_path, capsys):
    out = tmp_path / "mine"
    assert run(["zoo", "get", "zoo:digits-diffusion", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "Its licence is CC-BY-SA-4.0, for what is made of it too" in said
    assert load(out).family == "diffusion"
    assert sorted(path.name for path in (out / "examples").iterdir()) == ["00.png", "01.png"]
    before = (out / "model.safetensors").read_bytes()
    assert run(["zoo", "get", "digits-ppca", "--out", str(out)]) == 2
    assert "is there already and holds something" in capsys.readouterr().err
    assert (out / "model.safetensors").read_bytes() == before


def test_train_again_on_pictures_of_another_size(tmp_path, capsys):
    folder = tmp_path / "films"
    folder.mkdir()
    for k in range(12):
        Image.fromarray(np.kron(PIXELS[k, 0].numpy(), np.ones((2, 2), np.uint8))).save(folder / f"{k}.png")
    words = ["--data", str(folder), "--images", "64", "--seed", "3"]
    assert run(["zoo", "train", "digits-diffusion", *words, "--out", str(tmp_path / "again")]) == 0
    again = load(tmp_path / "again")
    assert again.event_shape == (1, 8, 8)
    assert (again.record.train["images"], again.record.train["seed"], again.record.train["batch_size"]) == (64, 3, 32)
    assert again.record.data["changes"] == {"images": 64, "seed": 3}
    assert "zoo:digits-diffusion, changed: images 64, seed 3" in (again.path / "card.md").read_text()
    capsys.readouterr()
    assert run(["zoo", "train", "digits-diffusion", *words, "--out", str(tmp_path / "again")]) == 2
    assert "holds config.json already" in capsys.readouterr().err
    assert run(["zoo", "train", "digits-ppca", *words, "--out", str(tmp_path / "other")]) == 2
    assert "closed form" in capsys.readouterr().err


def test_help_answers_at_once():
    """0.5 s on an idle machine; a bare interpreter's start is the yardstick on a busy one."""

    def seconds(*words: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, *words], check=True, capture_output=True)
        return time.perf_counter() - start

    bare = min(seconds("-c", "import json, argparse, dataclasses, typing") for _ in range(3))
    assert min(seconds("-m", "oneprior", "zoo", "--help") for _ in range(3)) < max(0.5, 8 * bare)

"""`oneprior stress` from end to end: digits, a tiny conditional prior, a classifier that does not know its eights."""

import json
from pathlib import Path

import numpy as np
import pytest

from oneprior.apps.main import run

MODEL = """
import numpy as np

TRAINED = np.load({path!r})
MEANS = np.stack([TRAINED["x"][TRAINED["labels"] == k].mean(0).ravel() for k in range(10)])


def classifier(x):
    far = ((np.asarray(x).reshape(len(x), 1, -1) - MEANS) ** 2).sum(2)
    return -far / 50


def blind(x):
    logits = classifier(x)
    logits[:, 8] = -1e9
    return logits


def broken(x):
    raise RuntimeError("weights are not there")


def ink(x):
    return np.asarray(x).mean((1, 2, 3))


number = 3
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Half of the digits to train on, some to test on, and a module with models, in one folder."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    folder = tmp_path_factory.mktemp("stress")
    x, labels = bunch.images.astype(np.uint8), bunch.target
    np.savez(folder / "train.npz", x=x[:900], labels=labels[:900])
    np.savez(folder / "test.npz", x=x[900:1200], labels=labels[900:1200])
    some = np.isin(labels[900:1500], (3, 8))
    np.savez(folder / "some.npz", x=x[900:1500][some], labels=labels[900:1500][some])
    (folder / "mymodels.py").write_text(MODEL.format(path=str(folder / "train.npz")))
    (folder / "bad.py").write_text("1 / 0\n")
    return folder


@pytest.fixture(scope="module")
def trained(files):
    words = ["--data", str(files / "train.npz"), "--value-range", "0", "16", "--tracker", "none", "--held-out", "0"]
    assert run(["train", "ppca", *words, "--rank", "8", "--out", str(files / "run")]) == 0
    return files / "run"


def record(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text())


def words(files, model, out, *more, data="test.npz"):
    return [str(files / "run"), "--model", f"mymodels:{model}", "--data", str(files / data), "--out", str(out), *more]


def test_the_class_that_a_classifier_does_not_know_is_found(trained, files, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(files)
    out = tmp_path / "out"
    assert run(["stress", *words(files, "blind", out, "--n", "20", "--seed", "3")]) == 0
    state = record(out)["figures"]
    rates = {line["name"]: line["generated"]["rate"] for line in state["by_condition"]}
    assert rates["8"] == 1.0
    assert max(rate for name, rate in rates.items() if name != "8") < 0.6
    assert state["real"]["trials"] == 300
    assert state["generated"]["trials"] == 200
    assert sum(line["generated"]["failed"] for line in state["by_distance"]) == state["generated"]["failed"]
    assert sum(map(sum, state["confusion"]["generated"])) == 200
    assert all(row[8] == 0 for row in state["confusion"]["generated"])
    assert state["distance"] == {"features": "pixels", "to": "training"}
    sure = [failure["sure"] for failure in state["failures"]]
    assert sure == sorted(sure, reverse=True)
    page = (out / "report.html").read_text()
    assert page.count("data:image/png;base64,") > 10
    assert "mymodels:blind" in page
    assert "http" not in page.replace("http-equiv", "")
    written = list((out / "failures").glob("row_*.png"))
    assert len(written) == len(state["failures"])
    assert "mymodels:blind fails on" in capsys.readouterr().out


def test_a_failure_is_drawn_again_by_the_command_on_the_page(trained, files, tmp_path, monkeypatch):
    monkeypatch.chdir(files)
    out = tmp_path / "out"
    assert run(["stress", *words(files, "blind", out, "--n", "6", "--seed", "3", "--decoder-noise")]) == 0
    first = record(out)["figures"]["failures"][0]
    page = (out / "report.html").read_text()
    command = next(line for line in page.split("<code>") if line.startswith("oneprior sample")).split("</code>")[0]
    typed = command.split()[1:]
    assert "--decoder-noise" in typed
    assert typed[-2:] == ["--out", f"row_{first['row']}"]
    monkeypatch.chdir(tmp_path)
    assert run(typed) == 0
    from PIL import Image

    (again,) = (tmp_path / typed[-1]).glob("*.png")
    (kept,) = (out / "failures").glob(f"row_{first['row']:06d}_*.png")
    assert np.array_equal(np.asarray(Image.open(again)), np.asarray(Image.open(kept)))
    assert kept.stem.endswith(f"asked_{first['asked']}_said_{first['said']}")


def test_a_judge_gives_both_figures(trained, files, tmp_path, monkeypatch):
    import torch

    from oneprior.core import Rows
    from oneprior.evaluation import train_classifier

    monkeypatch.chdir(files)
    with np.load(files / "train.npz") as file:
        x = torch.from_numpy(file["x"]).float()[:, None] / 8 - 1
        judge = train_classifier(x, torch.from_numpy(file["labels"]).long(), Rows(64, seed=1), 150, width=8)
    judge.save(files / "judge.safetensors")
    out = tmp_path / "out"
    more = ["--n", "15", "--judge", str(files / "judge.safetensors")]
    assert run(["stress", *words(files, "classifier", out, *more)]) == 0
    state = record(out)["figures"]
    about = state["judge"]
    assert about["name"] == judge.name == state["distance"]["features"]
    assert about["confirmed"]["trials"] + about["disputes_of_generated"]["failed"] == 150
    assert about["disputes_of_real"]["rate"] < 0.2
    assert about["confirmed"]["rate"] < state["generated"]["rate"]
    assert "that the judge confirms" in (out / "report.html").read_text()


def test_a_test_set_with_some_of_the_classes_is_numbered_as_the_run(trained, files, tmp_path, monkeypatch):
    monkeypatch.chdir(files)
    out = tmp_path / "out"
    assert run(["stress", *words(files, "classifier", out, "--n", "5", data="some.npz")]) == 0
    state = record(out)["figures"]
    there = {line["name"] for line in state["by_condition"] if line["real"]["trials"]}
    assert there == {"3", "8"}
    assert state["real"]["rate"] < 0.4


def test_amounts_are_swept(files, tmp_path, monkeypatch):
    monkeypatch.chdir(files)
    with np.load(files / "train.npz") as file:
        x = file["x"]
    np.savez(files / "inked.npz", x=x, labels=x.mean((1, 2), dtype=np.float32))
    run_folder = tmp_path / "vae"
    told = ["--data", str(files / "inked.npz"), "--value-range", "0", "16", "--images", "256", "--batch-size", "64"]
    quiet = ["--tracker", "none", "--held-out", "0", "--preview-every", "0", "--compile", "off"]
    small = ["--width", "8", "--latent", "4"]
    assert run(["train", "vae", *told, *quiet, *small, "--out", str(run_folder)]) == 0
    out = tmp_path / "out"
    model = ["--model", "mymodels:ink", "--data", str(files / "inked.npz"), "--real", "200", "--n", "8"]
    assert run(["stress", str(run_folder), *model, "--out", str(out)]) == 0
    state = record(out)["figures"]
    assert state["agreement"]["real"]["slope"] == pytest.approx(1, abs=1e-3)
    assert state["real"]["rate"] < 0.06
    assert [line["generated"]["trials"] for line in state["by_condition"]] == [8] * 4


@pytest.mark.parametrize(
    ("model", "needed"),
    [
        (
            "mymodels:broken",
            "mymodels:broken fails on 64 events of shape (1, 8, 8): RuntimeError: weights are not there",
        ),
        ("mymodels:ink", "what mymodels:ink returns"),
        ("mymodels:nothing", "module mymodels has no nothing"),
        ("mymodels:number", "is int, and no function"),
        ("mymodel:classifier", "No module named 'mymodel'"),
        ("bad:classifier", "bad:classifier: the module fails when it is imported: ZeroDivisionError"),
        ("mymodels", "write module:function"),
    ],
)
def test_mistakes_are_told_in_one_line(trained, files, tmp_path, capsys, monkeypatch, model, needed):
    monkeypatch.chdir(files)
    line = [str(trained), "--model", model, "--data", str(files / "test.npz"), "--out", str(tmp_path / "out")]
    assert run(["stress", *line]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("oneprior: error: ")
    assert needed in said


def test_a_prior_without_labels_is_refused(files, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(files)
    np.save(tmp_path / "plain.npy", np.load(files / "train.npz")["x"][:100])
    quiet = ["--tracker", "none", "--held-out", "0", "--rank", "3", "--value-range", "0", "16"]
    folder = tmp_path / "plain"
    assert run(["train", "ppca", "--data", str(tmp_path / "plain.npy"), *quiet, "--out", str(folder)]) == 0
    line = [str(folder), "--model", "mymodels:ink", "--data", str(files / "test.npz"), "--out", str(tmp_path / "out")]
    assert run(["stress", *line]) == 2
    assert "a stress test needs a conditional prior; train it on data with class folders" in capsys.readouterr().err

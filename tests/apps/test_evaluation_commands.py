"""evaluate, compare, calibrate, specify and features from end to end: what they write, and what they refuse."""

import html
import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml

from oneprior.apps.main import run

SPEC = """
suite: digits
required: 0.8
checks:
  - {name: ink, check: largest, at_least: auto}
  - {name: sharp, check: sharpness, at_least: auto, at_most: auto}
  - {name: different, check: distinct, at_least: auto}
  - {name: as asked, check: label_rank, at_most: 3}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Digits to train on and to test with, two runs, a classifier and a fitted specification."""
    from sklearn.datasets import load_digits

    bunch, folder = load_digits(), tmp_path_factory.mktemp("evaluation")
    images = bunch.images.astype(np.uint8)
    np.savez(folder / "train.npz", x=images[:900], labels=bunch.target[:900])
    np.savez(folder / "test.npz", x=images[900:], labels=bunch.target[900:])
    told = ["--data", str(folder / "train.npz"), "--value-range", "0", "16", "--tracker", "none", "--held-out", "0.0"]
    for rank in (2, 12):
        assert run(["train", "ppca", *told, "--rank", str(rank), "--out", str(folder / f"ppca{rank}")]) == 0
    words = ["--data", str(folder / "train.npz"), "--steps", "150", "--batch-size", "64", "--width", "8"]
    assert run(["features", "train", *words, "--out", str(folder / "net.safetensors")]) == 0
    (folder / "spec.yaml").write_text(SPEC)
    return folder


def record(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text())


def complaint(capsys) -> str:
    said = capsys.readouterr().err
    lines = [line for line in said.splitlines() if line.startswith("oneprior: error: ")]
    assert len(lines) == 1
    assert "Traceback" not in said
    return lines[0]


def test_features_are_trained_named_and_kept(place):
    figures = record(place)["figures"]
    assert figures["accuracy"] > 0.7
    assert figures["features"] == 32
    assert figures["name"].startswith("train-classifier-")


@pytest.fixture(scope="module")
def specified(place):
    words = ["--data", str(place / "test.npz"), "--classifier", str(place / "net.safetensors")]
    words += ["--sets", "3", "--set-size", "60"]
    assert run(["specify", str(place / "spec.yaml"), *words, "--out", str(place / "specified")]) == 0
    return place / "specified"


def test_a_specification_is_fitted_tried_and_spoilt(specified):
    figures = record(specified)["figures"]
    assert figures["tried_on"] == 448
    assert [f["name"] for f in figures["findings"]][-1] == "all of one output together"
    assert all(f["state"] == "met" for f in figures["findings"])
    rates = {(k["mutant"], k["strength"]): k["rate"] for k in figures["kills"]}
    assert rates["none", 0.0] == 0
    assert rates["duplicated", 0.5] == rates["blurred", 2.0] == rates["label swapped", 1.0] == 1
    content = yaml.safe_load((specified / "specification.yaml").read_text())
    assert "auto" not in json.dumps(content)
    page = (specified / "report.html").read_text()
    assert "Are the specifications any good?" in page
    assert "http" not in page.replace("http-equiv", "")


def test_an_evaluation_writes_a_page_figures_junit_and_counter_examples(place, specified, capsys):
    out = place / "evaluated"
    net = str(place / "net.safetensors")
    words = ["--data", str(place / "test.npz"), "--n", "200", "--features", f"own:{net}", "--classifier", net]
    words += ["--spec", str(specified / "specification.yaml"), "--score-classifier", "80"]
    assert run(["evaluate", str(place / "ppca12"), *words, "--out", str(out)]) == 0
    assert "specifications are met" in capsys.readouterr().out
    figures = record(out)["figures"]
    rows = {row["name"]: row for row in figures["rows"]}
    assert not figures["comparable_with_published"]
    distance = next(row for name, row in rows.items() if name.startswith("Frechet distance (train-classifier-"))
    assert min(distance["value"], distance["real"]) > 0
    assert rows["label accuracy"]["value"] > 0.5
    assert rows["bits per dimension (exact)"]["value"] > 0
    assert rows["classifier accuracy score"]["value"] > 0.4
    assert rows["nearer than 99 % of test events"]["value"] < 0.05
    page = (out / "report.html").read_text()
    assert "FID" not in page.replace("they are no FID", "")
    assert "with no published value" in page
    (group,) = ElementTree.parse(out / "junit.xml").getroot()
    assert int(group.get("tests")) == 4
    broken = [f for f in figures["specifications"] if f["counterexamples"]]
    if broken:
        row = broken[0]["counterexamples"][0]["row"]
        assert list((out / "counterexamples").glob(f"*/row_{row:06d}.png"))


def test_a_comparison_puts_the_better_prior_first(place, capsys):
    words = [str(place / "ppca2"), str(place / "ppca12"), "--data", str(place / "test.npz"), "--n", "300"]
    assert run(["compare", *words, "--out", str(place / "compared")]) == 0
    figures = record(place / "compared")["figures"]
    first, second = (figures[name]["rows"][0] for name in ("ppca2", "ppca12"))
    assert first["name"] == second["name"]
    assert first["name"].startswith("Frechet distance (pca")
    assert first["value"] > second["value"]
    assert "Compared" in (place / "compared" / "report.html").read_text()


def test_a_calibration_flags_a_noise_level_that_is_wrong_for_digits(place, capsys):
    words = ["--data", str(place / "test.npz"), "--operator", "downsample:2", "--noise", "5%", "--n", "80"]
    assert run(["calibrate", str(place / "ppca12"), *words, "--samples", "19", "--out", str(place / "cal")]) == 0
    figures = record(place / "cal")["figures"]
    assert figures["images"] == 80
    assert figures["method"] == "closed form"
    assert [round(c["level"], 2) for c in figures["coverage"]] == [0.5, 0.8, 0.9]
    assert 0.7 < figures["coverage"][2]["value"] <= 1
    assert figures["scores"]["PSNR of the mean"][0] > figures["scores"]["PSNR of one draw"][0]
    assert figures["scores"]["chi-square of one draw, per measured number"][0] == pytest.approx(1, abs=0.3)
    assert html.escape(figures["verdict"], quote=False) in (place / "cal" / "report.html").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--n", "1"], "--n must be at least 2"),
        (["--features", "incption:x"], "did you mean inception:FILE"),
        (["--features", "inception:nothing.pth"], "nothing.pth"),
        (["--classifier", "nothing.safetensors"], "nothing.safetensors"),
        (["--spec", "nothing.yaml"], "nothing.yaml: No such file"),
        (["--segmenter", "nothing"], "write module:function"),
        (["--segmenter", "no_such_module:f"], "is looked for in this folder"),
    ],
)
def test_mistakes_are_one_line(place, tmp_path, capsys, words, message):
    base = ["evaluate", str(place / "ppca12"), "--data", str(place / "test.npz"), "--out", str(tmp_path / "o")]
    assert run([*base, *words]) == 2
    assert message in complaint(capsys)
    assert not (tmp_path / "o").exists()


def test_data_of_another_size_or_none_are_refused(place, tmp_path, capsys):
    np.save(tmp_path / "big.npy", np.zeros((5, 9, 9), np.uint8))
    base = ["evaluate", str(place / "ppca12"), "--out", str(tmp_path / "o")]
    assert run([*base, "--data", str(tmp_path / "big.npy")]) == 2
    assert "got shape (1, 9, 9), needed (1, 8, 8)" in complaint(capsys)
    assert run(base) == 2
    assert "give real events that it never saw, --data" in complaint(capsys)


def test_too_few_samples_say_how_many_are_needed(place, tmp_path):
    words = ["--data", str(place / "test.npz"), "--n", "20", "--features", "pixels", "--out", str(tmp_path / "o")]
    assert run(["evaluate", str(place / "ppca12"), *words]) == 0
    figures = record(tmp_path / "o")["figures"]
    assert not any(row["name"].startswith("Frechet") for row in figures["rows"])
    assert any("20 events do not span 64 features (65 at the least" in note for note in figures["notes"])
    assert any(row["name"].startswith("kernel distance") for row in figures["rows"])


def test_an_unknown_check_lists_the_near_ones(place, tmp_path, capsys):
    (tmp_path / "s.yaml").write_text("checks: [{check: sharpnes, at_least: 1}]")
    base = ["specify", str(tmp_path / "s.yaml"), "--data", str(place / "test.npz"), "--out", str(tmp_path / "o")]
    assert run(base) == 2
    assert "did you mean sharpness" in complaint(capsys)


def test_runs_that_held_out_different_events_are_not_compared_on_them(place, capsys):
    runs = []
    for seed in ("1", "2"):
        runs.append(str(place / f"seed{seed}"))
        words = ["--data", str(place / "train.npz"), "--value-range", "0", "16", "--tracker", "none", "--seed", seed]
        assert run(["train", "ppca", *words, "--out", runs[-1]]) == 0
    assert run(["compare", *runs, "--out", str(place / "apart")]) == 2
    assert "held different events out" in complaint(capsys)


def test_a_measure_of_ones_own_that_fails_is_named(place, tmp_path, capsys, monkeypatch):
    (tmp_path / "mine.py").write_text("def boom(outputs):\n    return 1 / 0\n")
    (tmp_path / "s.yaml").write_text("checks: [{check: 'mine:boom', at_least: 1}]")
    monkeypatch.chdir(tmp_path)
    base = ["evaluate", str(place / "ppca12"), "--data", str(place / "test.npz"), "--spec", "s.yaml"]
    assert run([*base, "--out", str(tmp_path / "o")]) == 2
    assert "the measure mine:boom fails: ZeroDivisionError" in complaint(capsys)


def test_a_result_json_of_somebody_else_is_not_lost(place, tmp_path, capsys):
    (tmp_path / "result.json").write_text('{"my": 1}')
    words = ["--data", str(place / "train.npz"), "--out", str(tmp_path / "net.safetensors"), "--steps", "2"]
    assert run(["features", "train", *words]) == 2
    assert "is not of oneprior and would be lost" in complaint(capsys)
    assert (tmp_path / "result.json").read_text() == '{"my": 1}'

"""`oneprior optimise` as a person types it: beyond the data, on after kill -9, and a line for each mistake."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
from sklearn.datasets import load_digits

from oneprior.apps.main import run as oneprior
from oneprior.inference.search.surrogate import Trees
from oneprior.tasks.campaign.campaign import Campaign
from oneprior.tasks.campaign.ledger import Ledger
from oneprior.tasks.campaign.settings import Settings
from oneprior.tasks.real import own_data
from oneprior.training import load, train

SCORES = """
import time

def ink(event):
    return float(event.mean())

def slow(event):
    time.sleep(0.2)
    return float(event.mean())

def both(event):
    return {"ink": event.mean(), "edge": abs(event[..., 1:] - event[..., :-1]).mean()}

def text(event):
    return "very happy"
"""
QUICK = ["--budget", "6", "--batch", "3", "--initial", "300", "--trees", "60", "--leaf", "5"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with data, a vqvae of them and scores."""
    folder = tmp_path_factory.mktemp("work")
    np.savez(folder / "digits.npz", x=(load_digits().images * 255 / 16).round().astype(np.uint8))
    (folder / "scores.py").write_text(SCORES)
    tiny = {"codes": 16, "latent": 4, "width": 8, "prior_width": 16, "prior_depth": 1, "prior_heads": 2}
    quiet = {"held_out": 0.0, "preview_every": 0, "tracker": "none"}
    train("vqvae", data=folder / "digits.npz", out=folder / "run", images=4000, batch_size=64, **quiet, **tiny)
    return folder


@pytest.fixture(autouse=True)
def here(place, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setenv("PYTHONPATH", str(place))


def test_it_goes_beyond_the_data_and_leaves_a_page(place, capsys):
    words = ["optimise", "run", "--score", "scores:ink", *QUICK, "--retrain-every", "3", "--rank-k", "0.01"]
    assert oneprior([*words, "--retrain-share", "0.05", "--out", "ink"]) == 0
    told = json.loads((place / "ink/result.json").read_text())["figures"]
    assert told["told"] == 6
    assert told["best"] >= told["best of the data"]
    page = (place / "ink/report.html").read_text()
    assert "Beyond the data" in page
    assert (
        "Searched: the vqvae <code>run</code>, beginning with 1,797 events. Scored by <code>scores:ink</code>." in page
    )
    assert "Below each stands what is nearest to it in the data." in page
    assert page.count("<img") >= 5
    assert len(list((place / "ink/best").glob("*.npy")) or list((place / "ink/best").glob("*.png"))) == 6
    assert (place / "ink/best.png").exists()
    assert "round   1  3 told" in capsys.readouterr().out
    assert oneprior([*words, "--out", "ink"]) == 2  # it is there already
    assert "go on with it (--resume)" in capsys.readouterr().err
    assert oneprior([*words, "--out", "ink", "--resume"]) == 0  # and nothing is left to do
    assert (place / "ink/report.html").read_text().count("What was typed, word for word:") == 1


def test_a_campaign_that_python_began_goes_on(place):
    run = load("run")
    Campaign.begin("python", run, own_data(run)[0], Settings(trees=Trees(most=60, least=5), retrain_every=0))
    words = ["optimise", "run", "--score", "scores:ink", "--initial", "100", "--budget", "2", "--batch", "2"]
    assert oneprior([*words, "--resume", "--out", "python"]) == 0
    assert "Scored by <code>scores:ink</code>." in (place / "python/report.html").read_text()


def test_rules_and_a_group(place):
    x = load_digits().images
    bright = x[x.mean((1, 2)) > 6]
    np.savez(place / "bright.npz", x=(bright * 255 / 16).round().astype(np.uint8))
    rule = "checks:\n  - {name: not too bright, check: mean, at_most: 100}\n"
    (place / "rule.yaml").write_text(rule)
    words = ["optimise", "run", "--score", "scores:ink", *QUICK, "--budget", "10", "--batch", "5", "--retrain-every=0"]
    words += ["--spec", "rule.yaml", "--group", "bright.npz", "--splits", "codebook", "--out", "ruled"]
    assert oneprior(words) == 0
    page = (place / "ruled/report.html").read_text()
    assert "Nearer to the group" in page
    assert "candidates 1 to 3" not in page  # fewer than 8 say nothing
    told = json.loads((place / "ruled/result.json").read_text())["figures"]
    assert told["best"] <= max(100, told["best of the data"])
    before = len(Ledger(place / "ruled").entries(origin="data"))
    assert oneprior([*words, "--resume", "--initial", "900"]) == 0
    assert len(Ledger(place / "ruled").entries(origin="data")) == before


@pytest.mark.parametrize("weights", [("", ""), (":1", ":0.5")], ids=["pareto", "weighed"])
def test_several_objectives(place, weights):
    words = ["optimise", "run", "--score", "scores:both", *QUICK, "--retrain-every", "0"]
    words += [f"--objective=ink=maximise{weights[0]}", f"--objective=edge=minimise{weights[1]}"]
    out = "both" + str(len(weights[0]))
    assert oneprior([*words, "--out", out]) == 0
    told = json.loads((place / out / "result.json").read_text())["figures"]
    found = told["best"] if weights[0] else told["front"][0]
    assert len(found) == 2
    assert told["failed"] == 0
    page = (place / out / "report.html").read_text()
    assert "maximise ink" in page
    assert ("nothing known dominates" in page) == (not weights[0])
    assert oneprior([*words[:-2], "--out", out, "--resume"]) == 0  # the campaign knows its objectives


def test_what_a_campaign_began_with_it_keeps(place, capsys):
    words = ["optimise", "run", "--score", "scores:ink", *QUICK, "--initial", "60", "--retrain-every", "0"]
    assert oneprior([*words, "--budget", "2", "--batch", "2", "--out", "kept"]) == 0
    assert "round   1  2 told" in capsys.readouterr().out
    for changed, said in (
        (["--minimise"], "is to maximise score, and stays so"),
        (["--leaf", "7"], "--leaf 7: the campaign in kept began with 5"),
        (["--seed", "3"], "--seed 3"),
    ):
        assert oneprior([*words, *changed, "--out", "kept", "--resume"]) == 2
        assert said in capsys.readouterr().err
    (stray,) = [place / "kept/best/09-candidate-9.png"]
    stray.write_text("of an earlier ranking")
    assert oneprior([*words, "--budget", "3", "--maximise", "--out", "kept", "--resume"]) == 0
    assert not stray.exists()
    table = (place / "kept/candidates.csv").read_text().splitlines()
    assert table[0] == "candidate,round,state,score,predicted,log-probability,note"
    assert len(table) == 4


def test_a_campaign_without_a_score_may_be_begun_again(place, capsys):
    words = ["optimise", "run", *QUICK, "--initial", "60", "--budget", "2", "--retrain-every=0", "--out", "again"]
    assert oneprior([*words, "--score", "scores:text"]) == 2
    assert "for each of the first 8 events" in capsys.readouterr().err
    assert oneprior([*words, "--score", "scores:ink"]) == 0


def test_the_best_keep_the_rules_and_what_fails_is_told(place):
    (place / "low.yaml").write_text("checks:\n  - {name: dark, check: mean, at_most: 70}\n")
    (place / "halves.py").write_text(
        "def ink(event):\n    if event[0, 0, 4] > 200:\n        raise ValueError('overexposed')\n"
        "    return event.mean()\n"
    )
    words = ["optimise", "run", "--score", "halves:ink", *QUICK, "--retrain-every", "0", "--spec", "low.yaml"]
    assert oneprior([*words, "--out", "low"]) == 1  # this small prior makes nothing so dark: no candidate
    told = json.loads((place / "low/result.json").read_text())["figures"]
    assert told["best"] <= 70
    assert told["best of the data"] <= 70
    assert told["failed of the data"] > 0
    page = (place / "low/report.html").read_text()
    assert "events of the data that keep the rules" in page
    assert "overexposed" in page


def test_a_command_scores_a_picture(place):
    program = "import sys; from PIL import Image; import numpy; print(numpy.asarray(Image.open(sys.argv[1])).mean())"
    (place / "measure.py").write_text(program)
    words = ["optimise", "run", "--score-command", f"{sys.executable} measure.py", *QUICK, "--initial", "20"]
    assert oneprior([*words, "--budget", "2", "--minimise", "--out", "dark"]) == 0
    told = json.loads((place / "dark/result.json").read_text())["figures"]
    assert told["failed"] == 0
    assert told["told"] == 2


def test_a_person_scores_pictures_in_a_folder(place, capsys):
    rows = "".join(f"{k},{image.mean()}\n" for k, image in enumerate(load_digits().images[:300]))
    (place / "known.csv").write_text(f"file,score\n{rows}")
    words = ["optimise", "run", "--by-hand", *QUICK, "--batch", "2", "--budget", "3", "--retrain-every", "0"]
    words += ["--scores", "known.csv", "--out", "person"]
    assert oneprior(words) == 0
    sheet = place / "person/by-hand/round-001/scores.csv"
    assert f"fill in {sheet.relative_to(place)}" in capsys.readouterr().out
    names = [line.split(",")[0] for line in sheet.read_text().split()[1:]]
    assert len(names) == 2
    assert all((sheet.parent / name).exists() for name in names)
    assert oneprior([*words, "--resume"]) == 0  # nothing was filled in
    assert "2 pictures" in capsys.readouterr().out
    sheet.write_text(f"file,score\n{names[0]},9.5\n{names[1]},\n")
    assert oneprior([*words, "--resume"]) == 0
    assert "1 pictures" in capsys.readouterr().out
    sheet.write_text(f"file;score\n{names[0]};7,5\n{names[1]};failed\n")  # corrected, by a German spreadsheet
    assert oneprior([*words, "--resume"]) == 0
    second = place / "person/by-hand/round-002/scores.csv"
    (name,) = [line.split(",")[0] for line in second.read_text().split()[1:]]  # the budget is 3
    second.write_text(f"file,score\n{name},8\n")
    assert oneprior([*words, "--resume"]) == 0
    assert "the budget of 3 is spent" in capsys.readouterr().out
    told = json.loads((place / "person/result.json").read_text())["figures"]
    assert (told["told"], told["failed"], told["best"]) == (3, 1, 8.0)


@pytest.mark.parametrize(
    ("sheet", "said"),
    [
        ("name,score\n1,2\n", "must name the columns file and score"),
        ("file,score\n1,2\nnobody.png,3\n", "line 3: 'nobody.png' is not a name of the data, or a row from 0 to 1796"),
        ("file,score\n1,happy\n", "line 2: 'happy' is no score"),
        ("file,score\n1\n", "line 2: got 1 columns"),
        ("file,score\n1,\n", "gives no score"),
        ("file,score\n1,2\n3,4\n1,5\n", "line 4: '1' stands on line 2 already"),
    ],
    ids=["head", "name", "text", "short", "empty", "twice"],
)
def test_a_sheet_that_makes_no_sense_is_one_line(place, sheet, said, capsys, tmp_path):
    (place / "sheet.csv").write_text(sheet)
    words = ["optimise", "run", "--by-hand", "--scores", "sheet.csv", "--out", str(tmp_path / "out")]
    assert oneprior(words) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_killed_it_goes_on_without_losing_or_repeating_a_score(place):
    words = [sys.executable, "-m", "oneprior", "optimise", "run", "--score", "scores:slow", *QUICK, "--initial", "40"]
    words += ["--retrain-every", "0", "--out", "slow", "--budget", "6"]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    for _ in itertools.repeat(None, 600):
        if process.poll() is not None:
            break
        if (place / "slow/campaign.sqlite").exists() and Ledger(place / "slow").count("scored", "asked") >= 2:
            os.killpg(process.pid, signal.SIGKILL)
            break
        time.sleep(0.1)
    process.wait()
    assert process.returncode == -signal.SIGKILL
    before = {e.id: e.score for e in Ledger(place / "slow").entries(state="scored", origin="asked")}
    assert oneprior(["optimise", "run", "--resume", "--out", "slow"]) == 0  # to the budget that it had
    after = {e.id: e.score for e in Ledger(place / "slow").entries(state="scored", origin="asked")}
    assert len(after) == 6
    assert before.items() <= after.items()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give one of --score module:function"),
        (["--by-hand"], "give --scores FILE.csv"),
        (["--score", "scores:text"], "the score is no number: 'very happy'"),
        (["--score", "scores:nobody"], "no function 'nobody'"),
        (["--score", "scores:ink", "--minimise", "--target", "3"], "exclude each other"),
        (["--score", "scores:both", "--objective", "ink"], "NAME=maximise, NAME=minimise or NAME=NUMBER"),
        (["--score", "scores:both", "--objective", "ink=maximise:1", "--objective", "edge=3"], "weigh all, or none"),
        (["--score", "scores:both", "--objective", "ink=maximise", "--objective", "sky=3"], "the score has no sky"),
        (["--score", "scores:ink", "--budget", "0"], "at least 1"),
        (["--score", "scores:ink", "--initial", "9"], "--initial 9 are too few"),
        (["--score", "scores:ink", "--resume"], "holds no campaign"),
    ],
    ids=[
        "no score",
        "no scores",
        "text",
        "no function",
        "two goals",
        "no goal",
        "some weights",
        "no such score",
        "no budget",
        "few",
        "nothing to resume",
    ],
)
def test_a_mistake_is_one_line(words, said, capsys, tmp_path):
    assert oneprior(["optimise", "run", *QUICK, *words, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--radius -3", "--radius must be at least 1, got -3"),
        ("--centres 0", "--centres must be at least 1, got 0"),
        ("--trees 0", "--trees must be at least 1, got 0"),
        ("--depth -1", "--depth must be at least 1, got -1"),
        ("--leaf 0", "--leaf must be at least 1, got 0"),
        ("--members 0", "--members must be at least 1, got 0"),
        ("--seconds 0", "--seconds must be above 0, got 0"),
        ("--unlikely 2", "--unlikely must be a share between 0 and 1, got 2"),
        ("--apart 99", "apart is 99, and an event has 4 codes"),
        ("--spread 0.5", "give --members of 2 or more"),
        ("--retrain-every -1", "--retrain-every must be 0 or more, got -1"),
        ("--retrain-rate 0", "--retrain-rate must be above 0, got 0"),
        ("--where 2:5", "2:5 is no part of an event of 8 x 8"),
        ("--where 2:9,0:8", "needed FIRST:END, within it, for each axis"),
        ("--where mouth", "needed FIRST:END for each axis"),
        ("--score-time 0", "--score-time must be above 0"),
    ],
)
def test_what_cannot_be_is_refused_by_its_option_before_anything_is_scored(words, said, capsys, tmp_path):
    given = ["--score", "scores:ink", *words.split()]
    kept = QUICK[: QUICK.index("--trees")]
    assert oneprior(["optimise", "run", *kept, *given, "--out", str(tmp_path / "out")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out" / "campaign.sqlite").exists()


def test_a_campaign_goes_on_with_its_own_data_and_score_and_no_other(place, capsys):
    np.savez(place / "some.npz", x=(load_digits().images[:500] * 255 / 16).round().astype(np.uint8))
    own = ["--retrain-every", "0", "--out", "own"]
    assert oneprior(["optimise", "run", "--data", "some.npz", "--score", "scores:ink", *QUICK, *own]) == 0
    assert oneprior(["optimise", "run", "--resume", "--score", "scores:slow", "--budget", "9", *own]) == 2
    assert "is scored by --score scores:ink, and stays so" in capsys.readouterr().err
    assert oneprior(["optimise", "run", "--resume", "--by-hand", "--budget", "9", *own]) == 2
    assert oneprior(["optimise", "run", "--resume", "--budget", "9", *own]) == 0
    assert Ledger(place / "own").count("scored", "asked") == 9


def test_what_is_spent_is_told_and_a_page_is_left_by_ctrl_c(place, capsys, monkeypatch):
    words = ["optimise", "run", "--score", "scores:ink", *QUICK, "--retrain-every", "0", "--out", "spent"]
    assert oneprior(words) == 0
    assert "an event has 4 codes" in capsys.readouterr().out
    assert oneprior(["optimise", "run", "--resume", "--out", "spent"]) == 0
    assert "the budget of 6 is spent: give a larger --budget" in capsys.readouterr().out
    (place / "spent/report.html").unlink()

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("oneprior.tasks.optimise.optimise", interrupted)
    assert oneprior(["optimise", "run", "--resume", "--budget", "9", "--out", "spent"]) == 130
    assert (place / "spent/report.html").exists()
    assert "note" in (place / "spent/candidates.csv").read_text().splitlines()[0]


def test_a_campaign_that_finds_nothing_says_so(place, capsys):
    (place / "impossible.yaml").write_text("checks:\n  - {name: black, check: mean, at_most: 0.1}\n")
    words = ["optimise", "run", "--score", "scores:ink", *QUICK, "--retrain-every", "0", "--spec", "impossible.yaml"]
    assert oneprior([*words, "--out", "nothing"]) == 1
    assert "the rules" in capsys.readouterr().out
    assert "No candidate has a score" in (place / "nothing/report.html").read_text()


def test_processes_that_score_leave_with_their_parent(place):
    words = [sys.executable, "-m", "oneprior", "optimise", "run", "--score", "scores:slow", *QUICK, "--out", "orphans"]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not ((place / "orphans/campaign.sqlite").exists() and Ledger(place / "orphans").count("scored") >= 2):
        assert process.poll() is None
        time.sleep(0.1)
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive


def test_a_prior_without_codes_is_searched_in_its_noise(place, capsys):
    tiny = {"images": 2000, "latent": 4, "width": 8, "held_out": 0.0, "preview_every": 0, "tracker": "none"}
    train("vae", data=place / "digits.npz", out=place / "vae", **tiny)
    assert oneprior(["optimise", "vae", "--score", "scores:ink", *QUICK, "--retrain-every", "0", "--out", "noise"]) == 0
    assert json.loads((place / "noise/result.json").read_text())["figures"]["told"] == 6
    assert oneprior(["optimise", "vae", "--score", "scores:ink", "--radius", "8", "--out", "ball"]) == 2
    assert "searched by a trust region: --radius needs a vqvae" in capsys.readouterr().err

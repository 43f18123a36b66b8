"""The commands from end to end, on a tiny prior: what they write, what they say, how they end."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from oneprior.apps.main import COMMANDS, run


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Eighty digits with their labels in a .npz."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    path = tmp_path_factory.mktemp("data") / "digits.npz"
    np.savez(path, x=bunch.images[:80].astype(np.uint8), labels=bunch.target[:80])
    return path


@pytest.fixture(scope="module")
def trained(digits, tmp_path_factory):
    """A ppca of each class, trained by the command line with a YAML file."""
    folder = tmp_path_factory.mktemp("runs")
    settings = folder / "train.yaml"
    settings.write_text(f"data: {digits}\nvalue_range: [0, 16]\nrank: 3\ntracker: none\nheld_out: 0.0\nseed: 4\n")
    out = folder / "ppca"
    assert run(["train", "ppca", "--config", str(settings), "--out", str(out)]) == 0
    return out


def record(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text())


def complaint(capsys) -> str:
    said = capsys.readouterr().err
    assert said.startswith("oneprior: error: ")
    assert said.count("\n") == 1
    assert "Traceback" not in said
    return said


def test_training_leaves_a_run_and_a_record(trained, digits):
    state = record(trained)
    assert state["command"][:3] == ["oneprior", "train", "ppca"]
    assert state["seed"] == 4
    assert state["settings"]["model"]["rank"] == 3
    assert state["settings"]["source"]["value_range"] == [0.0, 16.0]
    assert state["outputs"] == [str(trained)]
    assert state["seconds"] > 0
    assert state["figures"]["images"] >= 80
    assert json.loads((trained / "config.json").read_text())["family"] == "ppca"


def test_samples_come_in_the_datas_own_type_and_do_not_depend_on_the_batch(trained, tmp_path):
    for name, batch in (("a", "64"), ("b", "3")):
        words = ["--n", "10", "--condition", "label=3,7", "--seed", "5", "--batch-size", batch]
        assert run(["sample", str(trained), *words, "--out", str(tmp_path / name / "x.npz")]) == 0
    words = ["--n", "3", "--first", "4", "--condition", "label=3,7", "--seed", "5"]
    assert run(["sample", str(trained), *words, "--out", str(tmp_path / "c" / "x.npz")]) == 0
    a, b, c = (np.load(tmp_path / name / "x.npz")["x"] for name in "abc")
    assert a.shape == (10, 1, 8, 8)
    assert a.dtype == np.uint8
    assert np.array_equal(a, b)
    assert np.array_equal(a[4:7], c)
    assert record(tmp_path / "a")["figures"]["n"] == 10


def test_a_condition_is_heard(trained, tmp_path, digits):
    means = {}
    file = np.load(digits)
    for label in (0, 1):
        out = tmp_path / f"{label}.npz"
        assert run(["sample", str(trained), "--n", "40", "--condition", f"label={label}", "--out", str(out)]) == 0
        means[label] = np.load(out)["x"].mean((0, 1)).astype(float)
    for label in (0, 1):
        of_class = file["x"][file["labels"] == label].mean(0)
        distances = {other: np.abs(means[other] - of_class).mean() for other in (0, 1)}
        assert distances[label] < distances[1 - label]


@pytest.mark.parametrize(("out", "size"), [("grid.png", (53, 53)), ("folder", (8, 8))])
def test_samples_as_pictures(trained, tmp_path, out, size):
    assert run(["sample", str(trained), "--n", "36", "--out", str(tmp_path / out)]) == 0
    path = tmp_path / out
    files = sorted(path.glob("*.png")) if path.is_dir() else [path]
    assert len(files) == (36 if path.is_dir() else 1)
    assert Image.open(files[0]).size == size
    assert (path if path.is_dir() else tmp_path).joinpath("result.json").exists()


def test_simulate_restore_with_the_truth(trained, digits, tmp_path, capsys):
    y = tmp_path / "y.npz"
    words = [str(digits), "--value-range", "0", "16", "--n", "4", "--operator", "mask:left", "--noise", "5%"]
    assert run(["simulate", *words, "--out", str(y)]) == 0
    assert record(tmp_path)["figures"]["noise_level"] == pytest.approx(0.8)
    assert (tmp_path / "y.preview.png").exists()
    out = tmp_path / "restored"
    assert run(["restore", str(trained), "--input", str(y), "--condition", "label=0,1,2,3", "--out", str(out)]) == 0
    figures = record(out)["figures"]
    assert figures["method"] == "closed form"
    assert figures["exact"] is True
    assert figures["psnr_mean"] > figures["psnr_draw"] > 5
    assert 0.6 < figures["coverage"] <= 1
    arrays = np.load(out / "restoration.npz")
    assert arrays["draws"].shape == (19, 4, 1, 8, 8)
    assert np.asarray(Image.open(out / "mean_0000.png")).shape == (8, 8)
    assert "data:image/png;base64," in (out / "report.html").read_text()
    assert "dB" in capsys.readouterr().out


def test_restore_a_picture_of_ones_own(trained, digits, tmp_path):
    picture = tmp_path / "coarse.png"
    pixels = np.load(digits)["x"][0].reshape(4, 2, 4, 2).mean((1, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(picture)
    out = tmp_path / "out"
    words = ["--input", str(picture), "--operator", "downsample:2", "--noise", "0.5", "--samples", "3"]
    assert run(["restore", str(trained), *words, "--out", str(out)]) == 0
    assert {"mean.png", "std.tif", "sample_00.png", "sample_02.png"} <= {p.name for p in out.iterdir()}
    mean = np.load(out / "restoration.npz")["mean"][0, 0]
    assert np.abs(mean.reshape(4, 2, 4, 2).mean((1, 3)) - pixels).mean() < 1.0


@pytest.mark.parametrize(
    ("words", "needed"),
    [
        (["sampel", "x"], "unknown command 'sampel'; did you mean sample?"),
        (["train"], "train needs a family"),
        (["train", "difusion"], "did you mean diffusion?"),
        (["train", "ppca", "--data", "/none/there", "--out", "OUT"], "/none/there"),
        (["train", "ppca", "--data", "DATA", "--out", "OUT", "--images", "3", "--minutes", "2"], "not in both"),
        (["sample", "/none/there", "--out", "OUT"], "/none/there"),
        (["sample", "RUN", "--out", "OUT", "--n", "0"], "at least 1"),
        (["sample", "RUN", "--out", "OUT", "--condition", "label=12"], "label (class 0 .. 9"),
        (["sample", "RUN", "--out", "OUT", "--condition", "lable=1"], "did you mean label?"),
        (["sample", "RUN", "--out", "OUT", "--condition", "label"], "name=value"),
        (["sample", "RUN", "--out", "OUT", "--steps", "4"], "a ppca has no --steps; it has --decoder-noise"),
        (["sample", "RUN", "--out", "OUT", "--truncation-sheet"], "no truncation"),
        (["sample", "RUN", "--out", "OUT.xyz"], ".xyz is not known"),
        (["sample", "RUN", "--out", "OUT", "--device", "cuda:77"], "--device cuda:77 cannot be used here"),
        (["simulate", "DATA", "--out", "OUT"], "--operator"),
        (["simulate", "DATA", "--operator", "downsmaple:2", "--out", "OUT"], "downsample"),
        (["simulate", "DATA", "--operator", "downsample:2", "--noise", "loud", "--out", "OUT"], "loud"),
        (["restore", "RUN", "--input", "DATA", "--out", "OUT"], "does not say how it was made"),
        (["export", "RUN", "--out", "OUT"], "ppca"),
        (["import", "RUN", "--out", "OUT"], "RUN"),
        (["info", "DATA"], "DATA"),
        (["demo", "--samples", "10"], "19, 39"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(words, needed, trained, digits, tmp_path, capsys):
    places = {
        "RUN": str(trained),
        "DATA": str(digits),
        "OUT": str(tmp_path / "out"),
        "OUT.xyz": str(tmp_path / "o.xyz"),
    }
    assert run([places.get(word, word) for word in words]) == 2
    assert places.get(needed, needed) in complaint(capsys)
    assert not (tmp_path / "out" / "result.json").exists()


def test_a_wrong_key_of_the_file_is_named_with_near_ones(tmp_path, capsys):
    path = tmp_path / "a.yaml"
    path.write_text("bach_size: 3\n")
    assert run(["train", "vae", "--data", "x", "--out", "y", "--config", str(path)]) == 2
    assert "unknown key 'bach_size'; did you mean batch-size" in complaint(capsys)


def test_a_defect_of_ours_keeps_its_traceback(monkeypatch):
    from oneprior.apps.commands import operators

    def broken(self):
        raise RuntimeError("a defect")

    monkeypatch.setattr(operators.Operators, "execute", broken)
    with pytest.raises(RuntimeError, match="a defect"):
        run(["operators"])


def test_ctrl_c_ends_with_130_and_a_word(monkeypatch, capsys):
    from oneprior.apps.commands import operators

    def stopped(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(operators.Operators, "execute", stopped)
    assert run(["operators"]) == 130
    assert capsys.readouterr().err == "oneprior: stopped; what was being made is not saved\n"


def test_a_stopped_training_says_what_is_saved(digits, tmp_path, monkeypatch, capsys):
    import oneprior.training

    out = tmp_path / "run"

    def states(*args, **kwargs):
        (out / "checkpoint").mkdir(parents=True)
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(oneprior.training, "train_iter", states, raising=False)
    assert run(["train", "vae", "--data", str(digits), "--out", str(out)]) == 130
    assert "--resume goes on from it" in capsys.readouterr().err


def test_samples_that_were_stopped_are_kept(trained, tmp_path, monkeypatch, capsys):
    import oneprior.tasks
    from oneprior.tasks.draw import synthesise

    def cut(*args, **kwargs):
        yield next(synthesise(*args, **kwargs))
        raise KeyboardInterrupt

    monkeypatch.setattr(oneprior.tasks, "synthesise", cut, raising=False)
    out = tmp_path / "x.npz"
    assert run(["sample", str(trained), "--n", "20", "--batch-size", "8", "--out", str(out)]) == 130
    assert "8 of 20 samples" in capsys.readouterr().err
    assert len(np.load(out)["x"]) == 8
    assert record(tmp_path)["figures"] == {"n": 8, "stopped": True}
    monkeypatch.undo()
    assert run(["sample", str(trained), "--n", "20", "--out", str(out)]) == 0  # its own file is replaced


def test_info_prints_what_the_run_is(trained, capsys):
    assert run(["info", str(trained)]) == 0
    said = capsys.readouterr().out
    for part in ("ppca", "1 x 8 x 8", "label (class 0 .. 9", "0 .. 16"):
        assert part in said
    assert run(["info", str(trained), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"]["rank"] == 3


def test_operators_prints_the_grammar(capsys):
    assert run(["operators"]) == 0
    said = capsys.readouterr().out
    for part in ("mask:left", "downsample:FACTOR", "5%"):
        assert part in said


@pytest.mark.parametrize("name", [*COMMANDS, "train ppca", "train vae", "train gan", "train vqvae", "train ldm"])
def test_every_command_has_help(name, capsys):
    assert run([*name.split(), "--help"]) == 0
    assert f"usage: oneprior {name}" in capsys.readouterr().out


def test_every_family_gives_its_settings_as_options():
    from dataclasses import fields

    from oneprior.apps.command_line import flags_of
    from oneprior.apps.commands.train import command_of
    from oneprior.models.configs import FAMILIES
    from oneprior.training.config import TrainConfig

    for family, (config, _) in FAMILIES.items():
        flags = set(flags_of(command_of(family)))
        for item in (*fields(config), *fields(TrainConfig)):
            name = item.name.replace("_", "-")
            assert name in flags or name == "pretrained" or any(flag.startswith(f"{name}.") for flag in flags)


def test_after_the_last_step_it_is_said_what_still_takes_time():
    from oneprior.apps.commands.train import words
    from oneprior.training.progress import Progress

    assert words(Progress(9, 1440, 0.9, 1.0, losses={"loss": 0.5})) == "1,440 images  loss 0.5"
    assert words(Progress(10, 1600, 1.0, 1.0)).endswith("its laws are measured on the data")
    assert "measured" not in words(Progress(10, 1600, 1.0, 1.0, finished=True))


def test_nested_settings_of_a_family_reach_it():
    from oneprior.apps.command_line import parse
    from oneprior.apps.commands.train import changed, command_of
    from oneprior.models.configs import LDMConfig

    words = ["--data", "x", "--out", "y", "--vae.width", "8", "--diffusion.blocks", "1", "--batch-size", "16"]
    command = parse(command_of("ldm"), words, "oneprior train ldm")
    asked = changed(command.model)
    assert asked["vae"].width == 8
    assert asked["vae"].spatial == LDMConfig().vae.spatial
    assert asked["diffusion"].blocks == 1
    assert changed(command.training) == {"batch_size": 16}


def test_help_starts_without_torch_and_at_once():
    code = "import sys; from oneprior.apps.main import run; run(['--help']); print('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert said.endswith("False\n")
    assert all(name in said for name in COMMANDS)
    code = (
        "import sys; from oneprior.apps.main import run; run(['train', 'vae', '--help']); print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.endswith(
        "False\n"
    )
    start, bare = [], []
    for _ in range(3):
        for seconds, words in ((start, ["-m", "oneprior", "--help"]), (bare, ["-c", "import json, argparse"])):
            began = time.perf_counter()
            subprocess.run([sys.executable, *words], check=True, capture_output=True)
            seconds.append(time.perf_counter() - began)
    assert min(start) < max(0.5, 8 * min(bare))


def test_version(capsys):
    import oneprior

    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"oneprior {oneprior.__version__}\n"


def test_ctrl_c_in_a_training_leaves_a_checkpoint_and_resume_goes_on(digits, tmp_path):
    out = tmp_path / "run"
    words = ["train", "vae", "--data", str(digits), "--out", str(out), "--tracker", "none", "--batch-size", "8"]
    words += ["--images", "8000", "--width", "8", "--preview-every", "0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "oneprior", *words], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    for _ in range(600):
        time.sleep(0.1)
        if (out / "metrics.jsonl").exists() and (out / "metrics.jsonl").stat().st_size:
            break
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert "--resume goes on from it" in said
    images = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])["images"]
    assert images < 8000
    assert run([*words, "--resume"]) == 0
    assert record(out)["figures"]["images"] == 8000

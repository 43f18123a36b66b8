"""What a folder holds after several commands: every record, no leftovers, no mixtures."""

import json
import warnings

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from oneprior.apps import main
from oneprior.apps.main import run
from oneprior.data import read_arrays


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A ppca, a mixture and a small diffusion of 16-bit digits."""
    folder = tmp_path_factory.mktemp("runs")
    images = (load_digits().images[:64] / 16 * 65535).round().astype(np.uint16)
    np.savez(folder / "x.npz", x=images)
    words = ["--data", str(folder / "x.npz"), "--tracker", "none", "--held-out", "0"]
    assert run(["train", "ppca", *words, "--out", str(folder / "ppca")]) == 0
    assert run(["train", "ppca", *words, "--components", "3", "--rank", "2", "--out", str(folder / "mixture")]) == 0
    small = ["--width", "8", "--blocks", "1", "--images", "64", "--batch-size", "32", "--preview-every", "0"]
    assert run(["train", "diffusion", *words, *small, "--out", str(folder / "diffusion")]) == 0
    return folder


def records(folder):
    state = json.loads((folder / "result.json").read_text())
    return [state["outputs"], *[one["outputs"] for one in state.get("earlier", [])]]


def test_records_of_several_files_stand_beside_each_other(trained, tmp_path):
    for name in ("a.npz", "b.npz", "a.npz"):
        assert run(["sample", str(trained / "ppca"), "--n", "2", "--out", str(tmp_path / name)]) == 0
    assert records(tmp_path) == [[str(tmp_path / "a.npz")], [str(tmp_path / "b.npz")]]


def test_pieces_of_one_long_job_meet_in_one_folder(trained, tmp_path):
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    words = ["sample", str(trained / "ppca"), "--seed", "3"]
    assert run([*words, "--n", "5", "--out", str(whole)]) == 0
    for first, n in ((0, 2), (2, 3)):
        assert run([*words, "--first", str(first), "--n", str(n), "--out", str(pieces)]) == 0
    assert sorted(p.name for p in pieces.glob("*.png")) == [f"{k:06d}.png" for k in range(5)]
    for path in whole.glob("*.png"):
        assert np.array_equal(Image.open(path), Image.open(pieces / path.name))


def test_samples_of_two_seeds_are_not_mixed(trained, tmp_path, capsys):
    words = ["sample", str(trained / "ppca"), "--out", str(tmp_path / "s"), "--n", "2"]
    assert run(words) == 0
    assert run([*words, "--seed", "1"]) == 2
    assert "would be mixed; give another --out" in capsys.readouterr().err


def test_restorations_of_few_and_many_draws(trained, tmp_path):
    y = tmp_path / "y.npz"
    run(["simulate", str(trained / "x.npz"), "--n", "1", "--operator", "mask:left", "--out", str(y), "--noise", "5%"])
    for draws in ("19", "3"):
        out = tmp_path / draws
        words = ["restore", str(trained / "ppca"), "--input", str(y), "--samples", draws, "--out", str(out)]
        assert run(words) == 0
        assert len(list(out.glob("sample_*.png"))) == int(draws)
        assert ("low" in read_arrays(out / "restoration.npz")) == (draws == "19")
        assert len(records(out)) == 1


def test_a_sheet_of_walks_has_the_depth_of_the_data(trained, tmp_path):
    words = ["sample", str(trained / "ppca"), "--n", "3", "--interpolate", "4", "--out", str(tmp_path / "walk.png")]
    assert run(words) == 0
    sheet = np.asarray(Image.open(tmp_path / "walk.png"))
    assert sheet.dtype == np.uint16
    assert sheet.shape == (2 * 9 - 1, 5 * 9 - 1)


def test_an_array_of_several_is_restored(trained, tmp_path):
    np.save(tmp_path / "several.npy", read_arrays(trained / "x.npz")["x"][:3])
    words = ["--input", str(tmp_path / "several.npy"), "--operator", "identity", "--noise", "5%", "--samples", "3"]
    assert run(["restore", str(trained / "ppca"), *words, "--out", str(tmp_path / "out")]) == 0
    mean = read_arrays(tmp_path / "out" / "restoration.npz")["mean"]
    assert mean.shape == (3, 1, 8, 8)
    truth = read_arrays(trained / "x.npz")["x"][:3, None].astype(float)
    assert np.abs(mean - truth).mean() < 0.05 * 65535


def test_a_guide_lends_its_covariance(trained, tmp_path, capsys):
    y = tmp_path / "y.npz"
    run(["simulate", str(trained / "x.npz"), "--n", "2", "--operator", "mask:left", "--out", str(y), "--noise", "5%"])
    words = ["restore", str(trained / "diffusion"), "--input", str(y), "--samples", "3", "--aim", "fast"]
    means = []
    for name, more in (("plain", ()), ("guided", ("--guide", str(trained / "mixture")))):
        assert run([*words, *more, "--out", str(tmp_path / name)]) == 0
        means.append(read_arrays(tmp_path / name / "restoration.npz")["mean"])
    assert not np.allclose(*means)
    capsys.readouterr()
    assert run([*words, "--guide", str(trained / "diffusion"), "--out", str(tmp_path / "no")]) == 2
    assert "is a diffusion; a covariance is lent by a ppca" in capsys.readouterr().err


def test_a_picture_of_another_size_is_told_what_to_do(trained, tmp_path, capsys):
    np.save(tmp_path / "large.npy", np.zeros((6, 16), np.uint16))
    words = ["--input", str(tmp_path / "large.npy"), "--operator", "identity", "--noise", "5%"]
    assert run(["restore", str(trained / "ppca"), *words, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "is 6 x 16 and the run is of 8 x 8" in said
    assert "--fit" in said


def test_bad_files_that_were_skipped_are_counted(tmp_path, capsys):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for k, image in enumerate(load_digits().images[:12]):
        Image.fromarray((image * 15).astype(np.uint8)).save(folder / f"{k}.png")
    (folder / "bad.png").write_bytes(b"no picture")
    words = ["train", "ppca", "--data", str(folder), "--skip-bad", "--tracker", "none", "--rank", "2"]
    assert run([*words, "--out", str(tmp_path / "run")]) == 0
    assert "skipped 1 bad files" in capsys.readouterr().out


def test_info_as_json_has_types(trained, capsys):
    assert run(["info", str(trained / "ppca"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["event"] == [1, 8, 8]
    assert facts["values"] == [0, 65535]
    assert facts["finished"] is True
    assert facts["parameters"] > 0


def test_a_warning_is_one_line_without_its_source(monkeypatch, capsys):
    with warnings.catch_warnings():
        monkeypatch.setattr(main, "run", lambda words: warnings.warn("half of\nthe files", stacklevel=1) or 0)
        warnings.simplefilter("always")
        with pytest.raises(SystemExit):
            main.main([])
    assert capsys.readouterr().err == "oneprior: warning: half of the files\n"


def test_pieces_may_overlap(trained, tmp_path):
    for first in ("0", "2"):
        words = ["sample", str(trained / "ppca"), "--n", "4", "--first", first, "--out", str(tmp_path / "s")]
        assert run(words) == 0
    assert len(list((tmp_path / "s").glob("*.png"))) == 6


def test_simulate_does_not_overwrite_what_it_measures(trained, tmp_path, capsys):
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()
    words = ["--operator", "downsample:2", "--noise", "5%"]
    assert run(["simulate", str(tmp_path / "a.png"), *words, "--out", str(tmp_path / "a.npz")]) == 0
    assert (tmp_path / "a.png").read_bytes() == before
    assert (tmp_path / "a.preview.png").exists()
    np.savez(tmp_path / "b.npz", x=np.zeros((2, 8, 8)))
    assert run(["simulate", str(tmp_path / "b.npz"), *words, "--out", str(tmp_path / "b.npz")]) == 2
    assert "which would be lost" in capsys.readouterr().err


def test_one_picture_in_an_array_is_one_picture(tmp_path, capsys):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).random((16, 16)))
    assert run(["simulate", str(tmp_path / "a.npy"), "--operator", "identity", "--out", str(tmp_path / "y.npz")]) == 0
    assert "measured 1 of 1 x 16 x 16" in capsys.readouterr().out


def test_what_is_encoded_has_the_size_of_the_run_and_any_depth(trained, tmp_path, capsys):
    for name, size in (("small", 8), ("large", 16)):
        for k in range(3):
            (tmp_path / name).mkdir(exist_ok=True)
            pixels = np.random.default_rng(k).integers(0, 255, (size, size), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{k}.png")
    words = ["sample", str(trained / "ppca"), "--batch-size", "2", "--out", str(tmp_path / "z.npz")]
    assert run([*words, "--encode", str(tmp_path / "small")]) == 0
    x = read_arrays(tmp_path / "z.npz")["x"]
    assert x.shape == (3, 1, 8, 8)
    assert x.max() < 400  # in the pictures' own units, not the run's 0 .. 65535
    assert run([*words, "--encode", str(tmp_path / "large")]) == 2
    assert "nothing is resized silently" in capsys.readouterr().err


def test_other_data_cannot_be_resumed_with(trained, tmp_path, capsys):
    x = read_arrays(trained / "x.npz")["x"]
    np.savez(tmp_path / "x.npz", x=x)
    words = ["train", "vae", "--data", str(tmp_path / "x.npz"), "--out", str(tmp_path / "run"), "--tracker", "none"]
    small = ["--width", "8", "--images", "64", "--batch-size", "32", "--preview-every", "0"]
    assert run([*words, *small]) == 0
    np.savez(tmp_path / "x.npz", x=65535 - x)
    assert run([*words, *small, "--resume"]) == 2
    assert "whose events or ranges are others" in capsys.readouterr().err


def test_an_option_that_equals_its_default_was_given_all_the_same(trained, tmp_path, capsys):
    words = ["--data", str(trained / "x.npz"), "--tracker", "none", "--preview-every", "0", "--images", "64"]
    small = [*words, "--batch-size", "32", "--width", "8"]
    assert run(["train", "vae", *small, "--out", str(tmp_path / "small")]) == 0
    from oneprior.models.configs import VAEConfig

    default = str(VAEConfig().width)
    more = ["--from", str(tmp_path / "small"), "--width", default, "--out", str(tmp_path / "more")]
    assert run(["train", "vae", *words, *more]) == 2
    assert "cannot be started from" in capsys.readouterr().err


def test_on_and_off_in_a_settings_file(trained, tmp_path):
    (tmp_path / "s.yaml").write_text("compile: off\nchannels_last: on\nimages: 64\nbatch_size: 32\nwidth: 8\n")
    words = ["--data", str(trained / "x.npz"), "--tracker", "none", "--preview-every", "0"]
    assert run(["train", "vae", *words, "--config", str(tmp_path / "s.yaml"), "--out", str(tmp_path / "r")]) == 0


def test_a_class_is_the_same_in_python_and_on_the_command_line(tmp_path):
    from oneprior import Rows, load
    from oneprior.apps.conditions import read_conditions

    labels = np.array([str(3 * (k % 4)) for k in range(80)])
    np.savez(tmp_path / "x.npz", x=load_digits().images[:80], labels=labels)
    words = ["--data", str(tmp_path / "x.npz"), "--label-key", "labels", "--tracker", "none", "--rank", "1"]
    assert run(["train", "ppca", *words, "--out", str(tmp_path / "run")]) == 0
    trained = load(tmp_path / "run")
    assert trained.conditions[0].names == ("0", "3", "6", "9")
    draws = [
        trained.prior(told).sample(Rows(3))
        for told in ({"label": 3}, {"label": "3"}, read_conditions(["label=3"], trained.conditions))
    ]
    assert np.array_equal(draws[0], draws[1])
    assert np.array_equal(draws[0], draws[2])


def test_a_home_folder_is_understood(trained, tmp_path, monkeypatch):
    import oneprior

    monkeypatch.setenv("HOME", str(tmp_path))
    run_ = oneprior.train("ppca", data=trained / "x.npz", out="~/run", tracker="none")
    assert (tmp_path / "run" / "config.json").exists()
    assert run_.family == "ppca"


def test_nothing_that_is_not_ours_is_overwritten_or_littered(trained, tmp_path, capsys):
    mine = tmp_path / "mine"
    mine.mkdir()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(mine / "000000.png")
    y = tmp_path / "y.npz"
    run(["simulate", str(trained / "x.npz"), "--n", "1", "--operator", "mask:left", "--out", str(y), "--noise", "5%"])
    before = (mine / "000000.png").read_bytes()
    ppca = str(trained / "ppca")
    for words, said in (
        (["sample", ppca, "--n", "2", "--out", str(mine)], "holds other files already (000000.png)"),
        (["sample", ppca, "--n", "2", "--out", str(mine / "000000.png")], "no oneprior command here has written"),
        (["restore", ppca, "--input", str(y), "--out", str(mine)], "holds other files already"),
        (["restore", ppca, "--input", str(y), "--out", ppca], "holds other files already"),
        (["restore", ppca, "--input", str(y), "--out", str(mine / "000000.png")], "no oneprior command"),
        (["simulate", str(mine / "000000.png"), "--operator", "identity", "--out", str(trained / "x.npz")], "no onep"),
    ):
        capsys.readouterr()
        assert run(words) == 2
        assert said in capsys.readouterr().err
    assert (mine / "000000.png").read_bytes() == before
    assert [path.name for path in mine.iterdir()] == ["000000.png"]


def test_a_measurement_of_another_range_is_doubted(trained, tmp_path):
    import oneprior
    from oneprior.tasks import Measurement

    np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).random((3, 8, 8)))
    y = tmp_path / "y.npz"
    run(["simulate", str(tmp_path / "x.npz"), "--operator", "mask:left", "--noise", "5%", "--out", str(y)])
    with pytest.warns(UserWarning, match="hardly touch the range they are read by, 0 .. 65535"):
        oneprior.restore(oneprior.load(trained / "ppca"), y, samples=2)
    run(
        [
            "simulate",
            str(trained / "x.npz"),
            "--operator",
            "mask:left",
            "--noise",
            "5%",
            "--out",
            str(tmp_path / "z.npz"),
        ]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        oneprior.restore(oneprior.load(trained / "ppca"), Measurement.load(tmp_path / "z.npz"), samples=2)


def test_colours_are_not_dropped_silently(trained, tmp_path, capsys):
    pixels = np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "colour.png")
    Image.fromarray(np.repeat(pixels[..., :1], 3, -1)).save(tmp_path / "grey.png")
    how = ["--operator", "identity", "--noise", "5%", "--samples", "2"]
    words = ["restore", str(trained / "ppca"), *how, "--input"]
    assert run([*words, str(tmp_path / "colour.png"), "--out", str(tmp_path / "a")]) == 2
    assert "--channels grey" in capsys.readouterr().err
    assert run([*words, str(tmp_path / "colour.png"), "--channels", "grey", "--out", str(tmp_path / "a")]) == 0
    assert run([*words, str(tmp_path / "grey.png"), "--out", str(tmp_path / "b")]) == 0
    assert run([*words, str(tmp_path), "--out", str(tmp_path / "c")]) == 2
    assert "lies in the folder that is restored" in capsys.readouterr().err


def test_resume_of_nothing_says_so(trained, tmp_path, capsys):
    words = ["train", "ppca", "--data", str(trained / "x.npz"), "--tracker", "none", "--resume"]
    assert run([*words, "--out", str(tmp_path / "typo")]) == 0
    assert "holds no run to resume" in capsys.readouterr().err


def test_one_vector_for_all_rows_is_not_cut_with_the_rows(tmp_path):
    import oneprior

    values = np.random.default_rng(0).random((40, 3))
    np.savez(tmp_path / "x.npz", x=load_digits().images[:40], labels=values)
    words = ["--data", str(tmp_path / "x.npz"), "--label-key", "labels", "--tracker", "none", "--preview-every", "0"]
    small = ["--width", "8", "--images", "64", "--batch-size", "32", "--held-out", "0"]
    assert run(["train", "vae", *words, *small, "--out", str(tmp_path / "run")]) == 0
    prior = oneprior.load(tmp_path / "run")
    import torch

    y = torch.linspace(0, 16, 192).reshape(3, 1, 8, 8)
    told = {"label": [0.1, 0.2, 0.3]}
    how = {"samples": 2, "aim": "fast", "method": "elliptical-slice", "condition": told}
    whole, parts = (oneprior.restore(prior, y, "identity", "20%", batch=b, **how) for b in (None, 1))
    assert torch.allclose(whole.mean, parts.mean, atol=1e-2)

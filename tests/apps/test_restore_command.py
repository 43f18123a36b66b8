"""`oneprior restore` of folders, volumes, k-space and studies: what is left, what is said, what can be gone on with."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from oneprior import training
from oneprior.apps import restore_many, restored_page
from oneprior.apps.main import run
from oneprior.core import DivergedError, Rows
from oneprior.data import phantoms, read_arrays
from oneprior.data.fastmri import write_kspace
from oneprior.operators.fourier import centred_fft
from oneprior.tasks import restore
from oneprior.tasks.kspace import kspace_measurement
from oneprior.training import load

DIGITS = (load_digits().images * 255 / 16).round().astype(np.uint8)
AFFINE = np.array([[-1.5, 0, 0, 30], [0, 1.5, 0, -20], [0, 0, 3, 5], [0, 0, 0, 1]])
WORDS = ["--operator", "mask:left", "--noise", "5%", "--samples", "3"]


def train(folder, name, x, *more):
    np.savez(folder / f"{name}.npz", x=x)
    words = ["train", "ppca", "--data", str(folder / f"{name}.npz"), "--tracker", "none", "--held-out", "0", *more]
    assert run([*words, "--out", str(folder / name)]) == 0
    return folder / name


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A ppca of digits."""
    return train(tmp_path_factory.mktemp("runs"), "digits", DIGITS[:200])


@pytest.fixture(scope="module")
def coded(tmp_path_factory):
    """A vqvae of digits."""
    folder = tmp_path_factory.mktemp("runs")
    np.savez(folder / "x.npz", x=DIGITS[:100])
    words = ["train", "vqvae", "--data", str(folder / "x.npz"), "--tracker", "none", "--held-out", "0"]
    assert run([*words, "--images", "200", "--out", str(folder / "coded")]) == 0
    return folder / "coded"


@pytest.fixture(scope="module")
def of_volumes(tmp_path_factory):
    """A ppca of phantoms in three dimensions."""
    x = phantoms(60, (6, 8, 4), Rows(60, seed=1))
    return train(tmp_path_factory.mktemp("runs"), "volumes", x.numpy(), "--value-range", "-1", "1")


@pytest.fixture
def pictures(tmp_path):
    """Five held-out digits and a file that is no picture."""
    folder = tmp_path / "in"
    folder.mkdir()
    for k in range(5):
        Image.fromarray(DIGITS[1000 + k]).save(folder / f"d{k}.png")
    return folder


def record(folder):
    return json.loads((folder / "result.json").read_text())


def draws(folder):
    return read_arrays(folder / "restoration.npz")["draws"]


def test_one_bad_file_does_not_end_a_folder(trained, pictures, tmp_path, capsys):
    (pictures / "d2.png").write_bytes(b"no picture")
    out = tmp_path / "out"
    assert run(["restore", str(trained), "--input", str(pictures), *WORDS, "--out", str(out)]) == 1
    said = capsys.readouterr()
    assert "d2.png was not restored: " in said.err
    assert "restored 4 by closed form" in said.out
    assert "1 file could not be restored" in said.out
    assert sorted(p.name for p in out.iterdir() if p.is_dir() and p.name[0] != ".") == ["d0", "d1", "d3", "d4"]
    assert {"mean.png", "std.tif", "sample_02.png", "panel.png", "restoration.npz", "figures.json"} <= {
        p.name for p in (out / "d0").iterdir()
    }
    figures = record(out)["figures"]
    assert figures["n"] == 4
    assert "not a picture" in figures["failed"]["d2.png"]
    page = (out / "report.html").read_text()
    assert "<code>d2.png</code>" in page
    assert page.count("data:image/png;base64,") == 4


def test_where_nothing_could_be_restored_the_status_is_2(trained, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        (tmp_path / "in" / f"{name}.png").write_bytes(b"no picture")
    assert run(["restore", str(trained), "--input", str(tmp_path / "in"), *WORDS, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "a.png was not restored" in said
    assert "none of the 2 files could be restored" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["a", "z"])
@pytest.mark.parametrize("kind", ["small", "large", "colour", "unknown"])
def test_a_file_that_does_not_fit_is_left_out_wherever_it_stands(kind, name, coded, pictures, tmp_path, capsys):
    """Codes cannot be laid in tiles. A plain picture among measurements does not know how it was made."""
    bad, how = pictures / f"{name}.png", ["--operator", "identity", "--noise", "5%"]
    shape = {"small": (7, 7), "large": (16, 16), "colour": (8, 8, 3), "unknown": (8, 8)}[kind]
    Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)).save(bad)
    for k in range(1, 5):
        if kind == "unknown" and k < 3:
            words = ["simulate", str(pictures / f"d{k}.png"), *how, "--out", str(pictures / f"d{k}.npz")]
            assert run(words) == 0
        (pictures / f"d{k}.png").unlink()
    if kind == "unknown":
        (pictures / "d0.png").unlink()
        (pictures / "result.json").unlink()
        how = []
    words = ["--input", str(pictures), *how, "--samples", "2", "--aim", "fast", "--method", "lookahead-codes"]
    assert run(["restore", str(coded), *words, "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    assert f"{name}.png was not restored: " in said.err
    assert f"restored {2 if kind == 'unknown' else 1} by" in said.out
    assert list(record(tmp_path / "out")["figures"]["failed"]) == [f"{name}.png"]


def test_draws_of_a_file_depend_on_nothing_beside_it(trained, pictures, tmp_path):
    words = ["restore", str(trained), "--input", str(pictures), *WORDS]
    assert run([*words, "--out", str(tmp_path / "all")]) == 0
    assert run([*words, "--batch-size", "2", "--out", str(tmp_path / "pairs")]) == 0
    for k in (0, 1, 3):
        (pictures / f"d{k}.png").unlink()
    assert run([*words, "--out", str(tmp_path / "few")]) == 0
    for k in (2, 4):
        whole = draws(tmp_path / "all" / f"d{k}")
        assert np.allclose(whole, draws(tmp_path / "few" / f"d{k}"), atol=0.01)
    for k in range(5):
        assert np.allclose(draws(tmp_path / "all" / f"d{k}"), draws(tmp_path / "pairs" / f"d{k}"), atol=0.01)
    noise = [draws(tmp_path / "all" / f"d{k}") - draws(tmp_path / "all" / f"d{k}").mean(0) for k in (0, 1)]
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.4  # of two files they differ


def test_pictures_on_their_side_are_not_taken_for_each_other(trained, tmp_path):
    """Both have 64 known pixels of 128, and the words of their masks are the same."""
    folder, words = tmp_path / "in", ["--operator", "mask:random:0.5", "--noise", "5%", "--samples", "2"]
    folder.mkdir()
    wide = np.concatenate([DIGITS[1000], DIGITS[1001]], 1)
    Image.fromarray(wide).save(folder / "a.png")
    Image.fromarray(np.ascontiguousarray(wide.T)).save(folder / "b.png")
    assert run(["restore", str(trained), "--input", str(folder), *words, "--out", str(tmp_path / "out")]) == 0
    assert draws(tmp_path / "out" / "a").shape == (2, 1, 1, 8, 16)
    assert draws(tmp_path / "out" / "b").shape == (2, 1, 1, 16, 8)


def test_files_of_like_names_have_folders_of_their_own(trained, tmp_path, capsys):
    """Names that differ in what a folder's name cannot hold, and one that is called as an event of another file."""
    folder = tmp_path / "in"
    folder.mkdir()
    np.savez(folder / "x.npz", DIGITS[1000:1002].astype(np.float32))
    for k, name in enumerate(("x_0000", "a b", "a_b", "a+b")):
        Image.fromarray(DIGITS[1002 + k]).save(folder / f"{name}.png")
    assert run(["restore", str(trained), "--input", str(folder), *WORDS, "--out", str(tmp_path / "out")]) == 0
    assert "restored 6 by" in capsys.readouterr().out
    there = {path.parent.name for path in (tmp_path / "out").glob("*/restoration.npz")}
    assert {"x_0000", "x_0001", "x_0000.png"} <= there
    means = [read_arrays(tmp_path / "out" / name / "restoration.npz")["mean"] for name in sorted(there)]
    assert len({mean.tobytes() for mean in means}) == 6


def stopped(*args, **options):
    """Ctrl-C."""
    raise KeyboardInterrupt


def stop_after(monkeypatch, batches):
    """Ctrl-C when so many batches are done."""
    done, before = [], restore_many.restore_iter

    def restore_iter(*args, **options):
        if len(done) == batches:
            raise KeyboardInterrupt
        done.append(1)
        yield from before(*args, **options)

    monkeypatch.setattr(restore_many, "restore_iter", restore_iter)


def test_what_was_stopped_is_gone_on_with(trained, pictures, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    words = ["restore", str(trained), "--input", str(pictures), *WORDS, "--batch-size", "2", "--out", str(out)]
    with monkeypatch.context() as patched:
        stop_after(patched, 1)
        assert run(words) == 130
    assert "2 images are finished" in capsys.readouterr().err
    assert run(words) == 2
    assert "holds a restoration (2 images finished): go on with --resume, or give another" in capsys.readouterr().err
    with monkeypatch.context() as patched:
        patched.setattr(restore_many, "restore_iter", stopped)
        patched.setattr(training, "load", stopped)  # before anything is restored
        assert run([*words, "--resume"]) == 130
    assert "2 images are finished" in capsys.readouterr().err
    assert record(out)["figures"]["n"] == 2
    first = (out / "d0" / "restoration.npz").stat().st_mtime_ns
    (out / "result.json").unlink()  # as kill -9 leaves it, with an image half written
    (out / "d1" / "figures.json").unlink()
    assert run([*words[:-2], "--samples", "5", "--resume", "--out", str(out)]) == 2
    assert "was begun with --samples 3" in capsys.readouterr().err
    assert run([*words, "--resume"]) == 0
    said = capsys.readouterr().out
    assert "restored 4 by closed form in " in said
    assert "images/s), 1 was finished before" in said
    assert record(out)["figures"]["n"] == 5
    assert (out / "d0" / "restoration.npz").stat().st_mtime_ns == first
    whole = tmp_path / "whole"
    assert run([*words[:-1], str(whole)]) == 0
    for k in range(5):
        assert np.allclose(draws(out / f"d{k}"), draws(whole / f"d{k}"), atol=0.01)
    with monkeypatch.context() as patched:
        stop_after(patched, 0)  # nothing is restored again
        assert run([*words, "--resume"]) == 0
    assert "nothing was left to do: all 5 were finished before" in capsys.readouterr().out


def test_events_of_one_file_are_gone_on_with(trained, tmp_path, capsys, monkeypatch):
    np.save(tmp_path / "x.npy", DIGITS[1000:1005])
    out = tmp_path / "out"
    words = ["restore", str(trained), "--input", str(tmp_path / "x.npy"), *WORDS, "--batch-size", "2"]
    with monkeypatch.context() as patched:
        stop_after(patched, 2)
        assert run([*words, "--out", str(out)]) == 130
    assert "4 images are finished" in capsys.readouterr().err
    with monkeypatch.context() as patched:
        stop_after(patched, 1)
        assert run([*words, "--out", str(out), "--resume"]) == 0
        assert ", 4 were finished before" in capsys.readouterr().out
        assert run([*words, "--out", str(out), "--resume"]) == 0
        assert "nothing was left to do: all 5 were finished before" in capsys.readouterr().out
        assert run([*words, "--out", str(out)]) == 2
        assert "holds a restoration (5 images finished)" in capsys.readouterr().err
    assert run([*words, "--out", str(tmp_path / "whole")]) == 0
    assert np.allclose(draws(out), draws(tmp_path / "whole"), atol=0.01)
    assert len(list(out.glob("panel_*.png"))) == 5


def test_a_restoration_is_never_replaced(trained, pictures, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["restore", str(trained), *WORDS, "--out", str(out), "--input"]
    assert run([*words, str(pictures)]) == 0
    before = draws(out / "d0").tobytes()
    for given in (pictures, pictures / "d1.png"):
        assert run([*words, str(given)]) == 2
        assert "(5 images finished): go on with --resume, or give another --out" in capsys.readouterr().err
    assert draws(out / "d0").tobytes() == before
    shutil.rmtree(out / ".restore")
    for more in ([], ["--resume"]):
        assert run([*words, str(pictures), *more]) == 2
        assert "cannot be gone on with, since .restore is gone from it" in capsys.readouterr().err


def test_a_run_in_which_nothing_was_finished_is_begun_again(trained, pictures, tmp_path, capsys, monkeypatch):
    words = ["restore", str(trained), *WORDS, "--out", str(tmp_path / "out"), "--input"]
    with monkeypatch.context() as patched:
        stop_after(patched, 0)
        assert run([*words, str(pictures / "d1.png")]) == 130
    assert "not saved" in capsys.readouterr().err
    assert run([*words, str(pictures)]) == 0


def test_a_batch_that_diverges_is_tried_one_by_one(trained, pictures, tmp_path, capsys, monkeypatch):
    before = restore_many.restore_iter

    def restore_iter(run, measurement, **options):
        if bool((measurement.y.mean(1) == measurement.y.mean(1).max()).any()) and len(measurement) == 5:
            raise DivergedError("step 3 of rows 1: not finite")
        if len(measurement) == 1 and options["rows"].index.tolist() == bad:
            raise DivergedError("step 3: not finite")
        yield from before(run, measurement, **options)

    bad = restore_many.Item(pictures, "d3.png", "d3").index(1)
    monkeypatch.setattr(restore_many, "restore_iter", restore_iter)
    assert run(["restore", str(trained), "--input", str(pictures), *WORDS, "--out", str(tmp_path / "out")]) == 1
    assert "d3.png was not restored: step 3: not finite" in capsys.readouterr().err
    assert record(tmp_path / "out")["figures"]["n"] == 4


def test_a_study_measures_restores_and_scores(trained, pictures, tmp_path, capsys):
    out = tmp_path / "out"
    how = ["--operator", "downsample:2", "--noise", "5%"]
    assert run(["restore", str(trained), "--study", str(pictures), *how, "--out", str(out)]) == 0
    assert "dB" in capsys.readouterr().out
    figures = record(out)["figures"]
    assert figures["psnr_mean"] > figures["psnr_draw"]
    assert 0.75 < figures["coverage"] < 1
    one = json.loads((out / "d0" / "figures.json").read_text())
    assert one["psnr_mean"] == pytest.approx(
        10
        * np.log10(255**2 / np.square(read_arrays(out / "d0" / "restoration.npz")["mean"][0, 0] - DIGITS[1000]).mean()),
        abs=0.01,
    )
    y, alone = tmp_path / "y.npz", tmp_path / "alone"
    assert run(["simulate", str(pictures / "d0.png"), *how, "--out", str(y)]) == 0
    assert run(["restore", str(trained), "--input", str(y), "--out", str(tmp_path / "two")]) == 0
    assert run(["restore", str(trained), "--study", str(pictures / "d0.png"), *how, "--out", str(alone)]) == 0
    assert np.allclose(draws(alone), draws(tmp_path / "two"), atol=0.01)


def test_another_size_is_fitted_only_when_told(trained, tmp_path, capsys):
    Image.fromarray(DIGITS[1000, :7, :7]).save(tmp_path / "small.png")
    words = ["restore", str(trained), "--study", str(tmp_path / "small.png"), *WORDS, "--out", str(tmp_path / "out")]
    assert run(words) == 2
    assert "is 7 x 7 and the run is of 8 x 8: --fit resize" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert run([*words, "--fit", "resize"]) == 0


@pytest.mark.parametrize("kind", ["picture", "coarse", "mask file"])
def test_a_larger_picture_is_covered_by_tiles(trained, tmp_path, kind):
    """The size is read off the measurement, or off the mask."""
    large = np.concatenate([DIGITS[1000], DIGITS[1001]], 1)
    if kind == "coarse":
        large = large.reshape(4, 2, 8, 2).mean((1, 3)).round().astype(np.uint8)
    Image.fromarray(large).save(tmp_path / "large.png")
    Image.fromarray(np.where(np.arange(16) % 3 == 0, 0, 255)[None].repeat(8, 0).astype(np.uint8)).save(
        tmp_path / "m.png"
    )
    words = {"picture": "identity", "coarse": "downsample:2", "mask file": f"mask:{tmp_path / 'm.png'}"}[kind]
    out = ["--noise", "5%", "--samples", "2", "--aim", "fast", "--out", str(tmp_path / "out")]
    asked = ["restore", str(trained), "--input", str(tmp_path / "large.png"), "--operator", words]
    assert run([*asked, *out]) == 0
    assert read_arrays(tmp_path / "out" / "restoration.npz")["mean"].shape == (1, 1, 8, 16)


def test_a_foreign_picture_is_not_shown_in_silence(trained, tmp_path, capsys):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)).save(tmp_path / "noise.png")
    words = ["--operator", "identity", "--noise", "1%", "--samples", "3", "--out", str(tmp_path / "out")]
    assert run(["restore", str(trained), "--input", str(tmp_path / "noise.png"), *words]) == 0
    said = capsys.readouterr().out
    assert "warning: the measurement" in said
    assert "far more likely if it shows another kind of image" in said
    assert "do not trust this picture" in said
    page = (tmp_path / "out" / "report.html").read_text()
    assert 'class="notice"' in page
    assert "Do not trust this picture" in page


def test_a_foreign_picture_is_told_without_noise_and_in_a_folder_too(trained, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for k in range(2):
        foreign = np.random.default_rng(k).integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(foreign).save(tmp_path / "in" / f"{k}.png")
    words = ["restore", str(trained), "--operator", "identity", "--samples", "3"]
    exact = [*words, "--input", str(tmp_path / "in" / "0.png"), "--noise", "0", "--out", str(tmp_path / "exact")]
    assert run(exact) == 0
    said = capsys.readouterr().out
    assert "times as far from the training data as they are" in said
    assert "do not trust this picture" in said
    assert "infinite" not in (tmp_path / "exact" / "report.html").read_text()
    assert run([*words, "--input", str(tmp_path / "in"), "--noise", "5%", "--out", str(tmp_path / "many")]) == 0
    said = capsys.readouterr().out
    assert "do not trust 2 of these 2 pictures: 0: the measurement is far more likely if it shows another" in said
    page = (tmp_path / "many" / "report.html").read_text()
    assert "This looks like ." not in page
    assert "far more likely if it shows another kind of image" in page


def test_chains_that_have_not_come_together_are_not_called_exact(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(restored_page, "MIXED", 0.5)  # no chain is as good as that
    Image.fromarray(DIGITS[1000]).save(tmp_path / "d.png")
    words = ["--operator", "identity", "--noise", "5%", "--method", "hmc", "--aim", "fast", "--samples", "3"]
    assert run(["restore", str(trained), "--input", str(tmp_path / "d.png"), *words, "--out", str(tmp_path / "o")]) == 0
    assert "warning: the chains have not come together: R-hat is" in capsys.readouterr().out
    page = (tmp_path / "o" / "report.html").read_text()
    assert "draws from the posterior itself" not in page
    assert "exact in the limit only; these chains have not come together" in page
    assert "run longer ones" in page
    assert record(tmp_path / "o")["figures"]["exact"]  # the method's own word
    assert not restored_page.unmixed({"r_hat": float("nan")})  # unknown is not bad


def test_volumes_keep_their_place_in_the_scanner(of_volumes, tmp_path):
    """Thick slices are restored on the fine grid: the affine is that of the volume they were averaged from."""
    x = phantoms(3, (6, 8, 4), Rows(3, seed=9))[:, 0].numpy()
    thick = AFFINE.copy()
    thick[:3, 2] *= 2
    thick[:3, 3] += AFFINE[:3, 2] / 2
    (tmp_path / "in").mkdir()
    for k in range(3):
        coarse = x[k].reshape(6, 8, 2, 2).mean(3)
        nib.save(nib.Nifti1Image(coarse.astype(np.float32), thick), tmp_path / "in" / f"s{k}.nii.gz")
    words = ["restore", str(of_volumes), "--input", str(tmp_path / "in"), "--operator", "downsample:1x1x2"]
    assert run([*words, "--noise", "0.02", "--out", str(tmp_path / "out")]) == 0
    for name in ("mean", "std", "low", "high", "sample_18"):
        image = nib.load(tmp_path / "out" / "s1" / f"{name}.nii.gz")
        assert image.shape == (6, 8, 4)
        assert np.allclose(image.affine, AFFINE)
    low, high = (nib.load(tmp_path / "out" / "s1" / f"{n}.nii.gz").get_fdata() for n in ("low", "high"))
    assert 0.6 < ((low <= x[1]) & (x[1] <= high)).mean() <= 1


@pytest.mark.parametrize("how", ["--input", "--study"])
def test_several_volumes_in_one_file_are_named(how, of_volumes, tmp_path, capsys):
    nib.save(nib.Nifti1Image(np.zeros((6, 8, 4, 2), np.float32), AFFINE), tmp_path / "four.nii.gz")
    words = [how, str(tmp_path / "four.nii.gz"), "--operator", "identity", "--noise", "5%"]
    assert run(["restore", str(of_volumes), *words, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "is 4-D: 2 volumes of 6 x 8 x 4, and the prior is of single volumes: save each as a file of its own" in said


def test_dicom_is_restored_where_it_lies(of_volumes, tmp_path):
    from data.test_dicom import write_series

    for name in ("one", "two"):
        write_series(tmp_path / "in" / name, 6)
    for path in (tmp_path / "in").glob("*/*.dcm"):
        header = pydicom.dcmread(path)
        header.Rows, header.Columns = 8, 4
        header.PixelData = np.random.default_rng(0).integers(100, 1900, (8, 4)).astype("<u2").tobytes()
        header.save_as(path)
    words = ["--operator", "identity", "--noise", "5%", "--samples", "3", "--value-range", "-1024", "1024"]
    assert (
        run(["restore", str(of_volumes), "--input", str(tmp_path / "in"), *words, "--out", str(tmp_path / "out")]) == 0
    )
    image = nib.load(tmp_path / "out" / "two" / "mean.nii.gz")
    assert image.shape == (6, 8, 4)
    assert sorted(round(v, 2) for v in image.header.get_zooms()) == [0.5, 0.75, 3.0]


def test_slices_of_a_scan_are_images(tmp_path):
    x = phantoms(40, (16, 16), Rows(40, seed=3))[:, 0]
    run_folder = train(tmp_path, "phantoms", ((x + 1) * 127.5).round().to(torch.uint8).numpy())
    scan = torch.zeros(2, 32, 16, dtype=torch.complex64)
    scan[:, 8:24] = (x[:2] + 1).to(torch.complex64)
    mask = np.zeros(16, bool)
    mask[::2] = mask[5:11] = True
    kspace = centred_fft(scan, (-2, -1)) * torch.from_numpy(mask)
    path = write_kspace(tmp_path / "scan.h5", kspace.numpy(), mask=mask, target=(x[:2] + 1).numpy())
    out = tmp_path / "out"
    words = ["restore", str(run_folder), "--input", str(path), "--noise", "2%", "--samples", "3"]
    assert run([*words, "--out", str(out)]) == 0
    assert {"slice_000", "slice_001"} <= {p.name for p in out.iterdir()}
    assert record(out)["figures"]["psnr_mean"] > 20
    assert run([*words, "--slices", "1", "--out", str(tmp_path / "one")]) == 0
    assert (tmp_path / "one" / "mean.tif").exists()
    path = write_kspace(tmp_path / "whole.h5", centred_fft(scan, (-2, -1)).numpy(), target=(x[:2] + 1).numpy())
    words = ["restore", str(run_folder), "--study", str(path), "--noise", "2%", "--samples", "3", "--slices", "0"]
    assert run([*words, "--operator", "mri:equispaced:2:center=0.4", "--out", str(tmp_path / "study")]) == 0
    assert record(tmp_path / "study")["figures"]["psnr_mean"] > 20


def test_a_scan_comes_back_in_its_own_units(tmp_path):
    """Trained on magnitudes of about 1e-4; bright and dark slices, with noise estimated or told, keep their values."""
    x = (phantoms(123, (16, 16), Rows(123, seed=3))[:, 0] + 1) / 2
    x = 1e-4 * x * (1 + Rows(123, seed=4).uniform(1).float()[:, :, None])
    trained = train(tmp_path, "magnitudes", x[3:].float().numpy())
    noise = 1e-6 * torch.view_as_complex(Rows(3, seed=1).normal(16, 16, 2))
    dark = torch.tensor([1.0, 1.0, 0.2])[:, None, None]  # the last does not fit the range of training by itself
    path = write_kspace(tmp_path / "scan.h5", (centred_fft((dark * x[:3]).cfloat(), (-2, -1)) + noise).numpy())
    words = ["restore", str(trained), "--input", str(path), "--samples", "3"]
    top = float(x[3:].max())
    for name, more in {
        "estimated": [],
        "told": ["--noise", "1e-6"],
        "range": ["--noise", "1e-6", "--value-range", "0", "0.0005"],
    }.items():
        assert run([*words, *more, "--out", str(tmp_path / name)]) == 0
        ranges = record(tmp_path / name)["figures"]["value_range"]
        for k in range(3):
            one = tmp_path / name / f"slice_{k:03d}"
            truth = dark[k] * x[k]
            with np.load(one / "restoration.npz") as found:
                mean = torch.from_numpy(found["mean"])[0, 0]
            assert float((mean * truth).sum() / truth.square().sum()) == pytest.approx(1, abs=0.03)
            said = json.loads((one / "figures.json").read_text())
            assert said["operator"] == "k-space, 16 of 16 lines"
            assert said["misfit"] < 1.2
            if name == "range":
                assert said["value_range"] == pytest.approx([0, 5e-4])
            else:
                peak = float(truth.max())  # where it is far from the range of training, it is white
                white = top if peak > 0.55 * top else peak
                assert said["value_range"] == pytest.approx([0, white], abs=0.05 * white)
        assert (len(ranges) == 2) is (name == "range")  # one for all, or each its own
        page = (tmp_path / name / "report.html").read_text()
        assert "as each file says" not in page
        assert "k-space, 16 of 16 lines" in page
        assert re.search(r"gaussian:\d\.\d{4}", page) is None
    prior = load(trained)
    unlike = kspace_measurement(path, prior.event_shape, slices=2)  # the run does not replace its range
    assert restore(prior, unlike, samples=3).units == unlike.units != prior.units


@pytest.mark.parametrize(
    ("words", "needed"),
    [
        (["--input", "IN", "--study", "IN", *WORDS], "not both"),
        (WORDS, "restore needs --input (a measurement) or --study (a clean image, to be measured)"),
        (["--study", "IN"], "--study needs --operator and --noise"),
        (["--study", "IN", "--noise", "5%"], "--study needs --operator, such as"),
        (
            ["--study", "IN", "--operator", "mask:left"],
            "does not say how it was made: give --noise, such as --noise 5%",
        ),
        (["--input", "IN", "--noise", "5%"], "give --operator, such as --operator mask:left (files"),
        (["--input", "IN"], "give --operator and --noise, such as --operator mask:left --noise 5%"),
        (["--input", "/none/there", *WORDS], "/none/there"),
        (["--input", "IN", "--operator", "mask:left", "--noise", "lud"], "lud"),
        (["--input", "IN", "--operator", "maks:left", "--noise", "5%"], "mask"),
        (["--input", "IN", *WORDS, "--method", "dasp"], "dasp"),
        (["--input", "IN", *WORDS, "--method", "enumeration"], "enumeration"),
        (["--input", "IN", *WORDS, "--samples", "0"], "at least 1"),
        (["--input", "EMPTY", *WORDS], "a folder without a picture"),
        (["--input", "IN", *WORDS, "--value-range", "3", "3"], "empty"),
        (["--input", "IN", *WORDS, "--condition", "label=3"], "without conditions"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(words, needed, trained, pictures, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    places = {"IN": str(pictures), "EMPTY": str(tmp_path / "empty")}
    out = tmp_path / "out"
    assert run(["restore", str(trained), *(places.get(w, w) for w in words), "--out", str(out)]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("oneprior: error: ")
    assert needed in said
    assert not out.exists()


def test_results_are_not_written_among_the_inputs(trained, pictures, capsys):
    assert run(["restore", str(trained), "--input", str(pictures), *WORDS, "--out", str(pictures / "out")]) == 2
    assert "lies in the folder that is restored" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_share_a_folder(trained, pictures, tmp_path):
    words = ["restore", str(trained), "--input", str(pictures), *WORDS, "--device", "cpu"]
    assert run([*words, "--out", str(tmp_path / "one")]) == 0
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = str(s.getsockname()[1])
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    crew = [
        subprocess.Popen(
            [sys.executable, "-m", "oneprior", *words, "--out", str(tmp_path / "two")],
            env={**os.environ, **place, "RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=120)[0].decode() for process in crew]
    assert [process.returncode for process in crew] == [0, 0], said
    assert "restored 5" in said[0]
    assert said[1].strip() == ""
    for k in range(5):
        assert np.allclose(draws(tmp_path / "one" / f"d{k}"), draws(tmp_path / "two" / f"d{k}"), atol=0.01)

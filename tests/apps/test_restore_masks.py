"""Masks of files: volumes and their NIfTI masks, sizes that do not agree, and NaN where nothing was measured."""

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from oneprior.apps.main import run
from oneprior.apps.restore_masks import mask_size
from oneprior.core import Rows
from oneprior.data import phantoms, read_arrays

AFFINE = np.diag([-1.5, 1.5, 3.0, 1.0])
KEEP = np.ones((6, 8, 4), np.uint8)
KEEP[2:4, :, 1:3] = 0


def train(folder, x):
    np.savez(folder / "x.npz", x=x)
    words = ["--tracker", "none", "--held-out", "0", "--value-range", "-1", "1", "--out", str(folder / "run")]
    assert run(["train", "ppca", "--data", str(folder / "x.npz"), *words]) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def of_volumes(tmp_path_factory):
    return train(tmp_path_factory.mktemp("volumes"), phantoms(60, (6, 8, 4), Rows(60, seed=1)).numpy())


@pytest.fixture(scope="module")
def of_pictures(tmp_path_factory):
    return train(tmp_path_factory.mktemp("pictures"), phantoms(60, (8, 8), Rows(60, seed=1)).numpy())


@pytest.fixture
def restored(tmp_path, capsys):
    """Restores a file under a mask; the status, what was said, and the folder."""

    outs = (tmp_path / f"out{k}" for k in range(9))

    def restore(prior, values, mask, name="scan.nii.gz", *, told="--input"):
        path, masked = tmp_path / name, tmp_path / mask[0]
        for where, array in ((path, values), (masked, mask[1])):
            if where.name.endswith(".nii.gz"):
                nib.save(nib.Nifti1Image(array, AFFINE), where)
            elif where.suffix == ".npy":
                np.save(where, array)
            else:
                Image.fromarray(array * 255).save(where)
        words = ["restore", str(prior), told, str(path), "--operator", f"mask:{masked}", "--noise", "5%"]
        out = next(outs)
        status = run([*words, "--samples", "3", "--out", str(out)])
        return status, capsys.readouterr().err, out

    return restore


def volume():
    return phantoms(1, (6, 8, 4), Rows(1, seed=2))[0, 0].numpy()


def test_a_volume_has_a_mask_of_its_own_kind_and_its_page_calls_it_by_name(of_volumes, restored):
    status, said, out = restored(of_volumes, volume(), ("slabmask.nii.gz", KEEP))
    assert status == 0, said
    page = (out / "report.html").read_text()
    assert "mask:slabmask.nii.gz</code>" in page
    assert "bits=" not in page


def test_what_was_not_measured_may_be_nan(of_volumes, restored):
    x = volume()
    gaps = np.where(KEEP > 0, x, np.nan)
    status, said, out = restored(of_volumes, gaps, ("mask.nii.gz", KEEP))
    assert status == 0, said
    mean = read_arrays(out / "restoration.npz")["mean"]
    status, said, out = restored(of_volumes, np.where(KEEP > 0, x, 0), ("mask.nii.gz", KEEP))
    assert status == 0, said
    assert np.isfinite(mean).all()
    np.testing.assert_allclose(mean, read_arrays(out / "restoration.npz")["mean"], atol=1e-6)


def test_what_was_measured_may_not(of_volumes, restored):
    x = volume()
    x[0, 0, :2] = np.nan
    status, said, _ = restored(of_volumes, x, ("mask.nii.gz", KEEP))
    assert status != 0
    assert "2 of 192 values are NaN where mask:mask.nii.gz says that they were measured" in said
    x[0, 0, 0] = np.inf
    status, said, _ = restored(of_volumes, x, ("mask.nii.gz", KEEP))
    assert status != 0
    assert "NaN or infinite" in said
    status, said, _ = restored(of_volumes, np.where(KEEP > 0, volume(), np.nan), ("m.npy", KEEP), told="--study")
    assert status != 0  # a clean volume is whole
    assert "NaN or infinite" in said


@pytest.mark.parametrize("told", ["--input", "--study"])
def test_a_mask_of_another_size_is_named(of_pictures, restored, told):
    x = phantoms(1, (8, 8), Rows(1, seed=2))[0, 0].numpy()
    status, said, _ = restored(of_pictures, x, ("m.png", np.eye(16, dtype=np.uint8)), "x.npy", told=told)
    assert status != 0
    assert "the mask's file is 16 x 16 and" in said
    assert "x.npy is 8 x 8: a mask has the size of what it covers" in said.replace("\n", " ")
    status, said, _ = restored(of_pictures, x, ("m.npy", np.ones((12, 10, 8))), "x.npy", told=told)
    assert status != 0
    assert "is 12 x 10 x 8 and the event is 8 x 8" in said
    status, said, _ = restored(of_pictures, x, ("m.png", np.eye(5, dtype=np.uint8)), "x.npy", told=told)
    assert status != 0
    assert "is 5 x 5 and the event is 8 x 8" in said


def test_only_a_mask_that_comes_first_tells_the_size_of_events(tmp_path):
    np.save(tmp_path / "a mask.npy", np.ones((3, 6, 4)))
    word = f"mask:{tmp_path / 'a mask.npy'}"
    assert mask_size([word, "downsample:2"], (3, 5, 5)) == (6, 4)
    assert mask_size([word], (1, 5, 5)) == ()  # of a volume, and no picture's
    assert mask_size([word], (1, 2, 2, 2)) == (3, 6, 4)
    assert mask_size([word], (3, 9)) == ()
    assert mask_size(["downsample:2", word], (3, 5, 5)) == ()
    assert mask_size(["mask:left"], (3, 5, 5)) == ()
    np.save(tmp_path / "b.npy", np.ones((6, 4)))
    assert mask_size([f"downsample:2 + mask:{tmp_path / 'b.npy'}"], (1, 5, 5)) == (6, 4)

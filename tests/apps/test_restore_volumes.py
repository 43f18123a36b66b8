"""A latent diffusion of volumes, trained and used from the command line: what it restores lies where it was seen."""

import nibabel as nib
import numpy as np
import pytest

from oneprior.apps.main import run
from oneprior.core import Rows
from oneprior.data import phantoms
from oneprior.training import load

SHAPE = (8, 12, 8)
AFFINE = np.array([[0, 0, 2.0, -7], [-1.5, 0, 0, 12], [0, 1.5, 0, -9], [0, 0, 0, 1]])
"""Axes posterior, superior, right, as of a sagittal scan; slices of 2 mm."""
ORIENTATION = ("P", "S", "R")


def save(x, path, affine=AFFINE):
    path.parent.mkdir(exist_ok=True, parents=True)
    nib.save(nib.Nifti1Image(x, affine), path)


@pytest.fixture(scope="module")
def heads():
    x = phantoms(44, SHAPE, Rows(44, seed=2))[:, 0].numpy()
    return ((x + 1) * 100).round().astype(np.uint8)


@pytest.fixture(scope="module")
def prior(heads, tmp_path_factory):
    """A latent diffusion whose latents are a grid of 4 x 6 x 4, trained on NIfTI files by subject."""
    folder = tmp_path_factory.mktemp("volumes")
    for k, x in enumerate(heads[:40]):
        save(x, folder / "data" / f"head{k // 2:02}-{k % 2}.nii.gz")
    small = ["--vae.latent", "3", "--vae.downsample", "2", "--vae.width", "8", "--diffusion.width", "16"]
    words = ["train", "ldm", "--data", str(folder / "data"), "--subject", r"^(\w+)", "--held-out", "0.1", *small]
    words += ["--images", "320", "--batch-size", "8", "--tracker", "none"]
    assert run([*words, "--out", str(folder / "ldm")]) == 0
    return folder / "ldm"


def test_the_latents_are_a_grid_in_three_dimensions(prior):
    found = load(prior)
    assert tuple(found.event_shape) == (1, *SHAPE)
    assert tuple(found.model.latent_shape) == (3, 4, 6, 4)


def test_thick_slices_come_back_on_the_fine_grid(prior, heads, tmp_path):
    """The affine is that of the volume which was averaged, not that of the thick slices."""
    x = heads[41].astype(np.float32)
    thick = AFFINE.copy()
    thick[:3, 2] *= 4
    thick[:3, 3] += 1.5 * AFFINE[:3, 2]
    coarse = x.reshape(8, 12, 2, 4).mean(3)
    save(coarse, tmp_path / "scan.nii.gz", thick)
    words = ["--operator", "downsample:1x1x4", "--noise", "4", "--samples", "3", "--aim", "fast"]
    out = tmp_path / "out"
    assert run(["restore", str(prior), "--input", str(tmp_path / "scan.nii.gz"), *words, "--out", str(out)]) == 0
    for name in ("mean", "std", "sample_0"):
        image = nib.load(next(out.glob(f"{name}*.nii.gz")))
        assert image.shape == SHAPE, name
        assert np.allclose(image.affine, AFFINE), name
        assert nib.aff2axcodes(image.affine) == ORIENTATION
        assert np.allclose(image.header.get_zooms(), (1.5, 1.5, 2))
        assert image.header.get_xyzt_units()[0] == "mm"
    mean = nib.load(out / "mean.nii.gz").get_fdata()
    assert np.abs(mean.reshape(8, 12, 2, 4).mean(3) - coarse).mean() < 4  # the measurement, within its noise
    assert np.abs(mean - x).mean() < np.abs(mean[..., ::-1] - x).mean()  # no axis is turned round


def test_a_lost_slab_is_filled_in_place(prior, heads, tmp_path):
    x = heads[42]
    keep = np.ones(SHAPE, np.uint8)
    keep[:, 4:7] = 0
    save(keep, tmp_path / "slab.nii.gz")
    save(np.where(keep, x, 0).astype(np.uint8), tmp_path / "scan.nii.gz")
    words = ["--operator", f"mask:{tmp_path / 'slab.nii.gz'}", "--noise", "4", "--samples", "3", "--aim", "fast"]
    out = tmp_path / "out"
    assert run(["restore", str(prior), "--input", str(tmp_path / "scan.nii.gz"), *words, "--out", str(out)]) == 0
    image, std = nib.load(out / "mean.nii.gz"), nib.load(out / "std.nii.gz").get_fdata()
    assert image.shape == SHAPE
    assert np.allclose(image.affine, AFFINE)
    assert nib.aff2axcodes(image.affine) == ORIENTATION
    assert std[:, 4:7].mean() > 1.3 * std[:, :4].mean()  # nothing was measured there
    kept = np.abs(image.get_fdata() - x)[keep > 0]
    assert kept.mean() < 6

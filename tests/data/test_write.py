"""What is written is what was read: values to the last bit, type, affine; and never half a file."""

import sys

import nibabel as nib
import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from oneprior.core import AffineMap, Geometry, InputError, replacing
from oneprior.data import open_dataset, phantoms, read_arrays, read_event, tile, write_arrays, write_events
from oneprior.data.ranges import map_for

RNG = np.random.default_rng(3)


def in_model(values, units):
    return units.to_model(torch.from_numpy(values.astype(np.float64))).float()


@pytest.mark.parametrize("path", ["out.npz", "out.npy", "out.png", "out.tif", "out"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_one_picture_comes_back_bit_for_bit(tmp_path, path, channels, dtype):
    values = RNG.integers(0, np.iinfo(dtype).max + 1, (1, channels, 6, 7), dtype=dtype)
    units = AffineMap.from_range(0, float(np.iinfo(dtype).max))
    geometry = Geometry(np.dtype(dtype).name, format="png")
    (written,) = write_events(in_model(values, units), tmp_path / path, units, geometry)
    event, _, back = read_event(written)
    np.testing.assert_array_equal(event.numpy(), values)
    assert back.dtype == np.dtype(dtype).name


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_sixteen_bit_film_goes_through_the_api_and_stays_one(tmp_path, suffix):
    film = RNG.integers(0, 65536, (3, 8, 8), dtype=np.uint16)
    film[0, 0, 0] = 65535
    (tmp_path / "in").mkdir()
    for i, f in enumerate(film):
        if suffix == "png":
            Image.fromarray(f).save(tmp_path / "in" / f"f{i}.png")
        else:
            tifffile.imwrite(tmp_path / "in" / f"f{i}.tif", f)
    dataset = open_dataset(tmp_path / "in")
    x = dataset.batch(torch.arange(3)).x
    paths = write_events(x, tmp_path / "out", dataset.units, dataset.geometry, names=dataset.names)
    assert [p.name for p in paths] == [f"f{i}.{suffix}" for i in range(3)]
    for path, f in zip(paths, film, strict=True):
        back = tifffile.imread(path) if suffix == "tif" else np.asarray(Image.open(path))
        assert back.dtype == np.uint16
        np.testing.assert_array_equal(back, f)


def test_a_volume_keeps_its_affine_type_and_values(tmp_path):
    affine = np.array([[-2, 0.1, 0, 10], [0, 1.5, 0, -20], [0.2, 0, 3, 5], [0, 0, 0, 1.0]])
    volume = RNG.integers(-1000, 3000, (6, 7, 5)).astype(np.int16)
    nib.save(nib.Nifti1Image(volume, affine), tmp_path / "in.nii.gz")
    dataset = open_dataset(tmp_path / "in.nii.gz")
    x = dataset.batch(torch.arange(1)).x
    write_events(x, tmp_path / "out.nii.gz", dataset.units, dataset.geometry)
    (other,) = write_events(x, tmp_path / "folder", dataset.units, dataset.geometry, names=["a/b.nii.gz"])
    assert other.name == "a_b.nii.gz" or other.name == "b.nii.gz"
    for path in (tmp_path / "out.nii.gz", other):
        back = nib.load(path)
        np.testing.assert_allclose(back.affine, affine, atol=1e-6)
        assert back.get_data_dtype() == np.int16
        np.testing.assert_array_equal(np.asarray(back.dataobj), volume)


def test_slices_are_written_with_their_axis(tmp_path):
    nib.save(
        nib.Nifti1Image(RNG.integers(0, 99, (4, 5, 6)).astype(np.int16), np.diag([1, 2, 3, 1])), tmp_path / "v.nii"
    )
    dataset = open_dataset(tmp_path / "v.nii", slices=1)
    write_events(dataset.batch(torch.arange(5)).x, tmp_path / "s.nii.gz", dataset.units, dataset.geometry)
    back = nib.load(tmp_path / "s.nii.gz")
    assert back.shape == (4, 1, 6, 5)
    assert back.header.get_zooms()[:3] == (1, 2, 3)


@settings(max_examples=40, deadline=None)
@given(
    dtype=st.sampled_from(["uint8", "int8", "uint16", "int16", "int32", "float32", "float64"]),
    shape=st.sampled_from([(2, 1, 5), (2, 2, 5, 6), (3, 1, 5, 6, 7)]),
    seed=st.integers(0, 10_000),
)
def test_npz_gives_units_and_type_back(tmp_path_factory, dtype, shape, seed):
    rng, kind = np.random.default_rng(seed), np.dtype(dtype)
    wide = 2**20 if kind.kind == "i" and kind.itemsize == 4 else None
    if kind.kind == "f":
        values = (rng.normal(size=shape) * 10.0 ** rng.integers(-3, 4)).astype(dtype)
    else:
        limits = np.iinfo(dtype)
        values = rng.integers(max(limits.min, -(wide or 2**62)), min(limits.max, wide or 2**62), shape, dtype=dtype)
    units = map_for(kind, float(values.min()), float(values.max()))
    path = tmp_path_factory.mktemp("npz") / "x.npz"
    write_events(in_model(values, units), path, units, Geometry(dtype))
    back = read_arrays(path)["x"]
    assert back.dtype == kind
    if kind.kind == "f":
        np.testing.assert_allclose(back, values, atol=2e-7 * units.scale + 1e-12, rtol=0)
    else:
        np.testing.assert_array_equal(back, values)


def test_values_beyond_the_type_are_kept_in_its_range(tmp_path):
    x = torch.tensor([[[[-3.0, 0.0, 5.0]]]])
    write_events(x, tmp_path / "a.npz", AffineMap.from_range(0, 255), Geometry("uint8"))
    assert read_arrays(tmp_path / "a.npz")["x"].ravel().tolist() == [0, 128, 255]


@pytest.mark.parametrize("channels", [1, 3])
def test_clips(tmp_path, channels):
    values = RNG.integers(0, 256, (2, channels, 4, 8, 6), dtype=np.uint8)
    units, geometry = AffineMap.from_range(0, 255), Geometry("uint8", format="clip")
    x = in_model(values, units)
    write_events(x, tmp_path / "clips", units, geometry)
    back = open_dataset(tmp_path / "clips", clips=True)
    np.testing.assert_array_equal(np.rint(units.to_units(back.batch(torch.arange(2)).x)), values)
    write_events(x[:1], tmp_path / "clip.gif", units, geometry)
    event, _, _ = read_event(tmp_path / "clip.gif")
    assert event.shape == (1, channels, 4, 8, 6)
    if channels == 1:
        np.testing.assert_array_equal(event.numpy(), values[:1])
    write_events(x, tmp_path / "two.gif", units, geometry)
    assert read_event(tmp_path / "two.gif")[0].shape == (1, channels, 4, 8, 13)


def test_sheets(tmp_path):
    sheet = tile(torch.arange(5.0).reshape(5, 1, 1, 1).expand(5, 1, 2, 3), padding=1, value=9)
    assert sheet.shape == (1, 5, 11)
    assert sheet[0, 0].tolist() == [0, 0, 0, 9, 1, 1, 1, 9, 2, 2, 2]
    assert sheet[0, 3, 8:].tolist() == [9, 9, 9]
    write_events(phantoms(9, (8, 8)), tmp_path / "sheet.png")
    assert Image.open(tmp_path / "sheet.png").size == (26, 26)
    write_events(phantoms(4, (8, 8, 8)), tmp_path / "volumes.png")
    assert Image.open(tmp_path / "volumes.png").size == (17, 17)
    write_events(phantoms(2, (8,)), tmp_path / "signals")
    assert np.load(tmp_path / "signals" / "000001.npy").shape == (1, 8)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.npz"
    write_arrays(path, x=np.arange(3), name="three", value=1.5)

    def fail():
        with replacing(path) as temporary:
            temporary.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    back = read_arrays(path)
    assert back["x"].tolist() == [0, 1, 2]
    assert str(back["name"]) == "three"
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


def test_sixteen_bit_colour_png_without_its_codec_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    x, geometry = torch.zeros(1, 3, 4, 4), Geometry("uint16")
    with pytest.raises(InputError, match=r"pip install imagecodecs.*TIFF"):
        write_events(x, tmp_path / "a.png", AffineMap.from_range(0, 65535), geometry)
    assert write_events(x, tmp_path / "a", AffineMap.from_range(0, 65535), geometry)[0].suffix == ".tif"


def test_what_cannot_be_written_says_so(tmp_path):
    x = torch.zeros(2, 2, 4, 4, 4)
    with pytest.raises(InputError, match="2 events of 2 channels"):
        write_events(x, tmp_path / "a.nii.gz")
    with pytest.raises(InputError, match=r"\.xyz is not known"):
        write_events(x, tmp_path / "a.xyz")
    with pytest.raises(InputError, match="signals"):
        write_events(torch.zeros(2, 1, 4), tmp_path / "a.png")
    with pytest.raises(InputError, match="3 names for 2 events"):
        write_events(x, tmp_path / "a", names=["a", "b", "c"])
    assert not list(tmp_path.iterdir())

"""Every format in: values, range, labels, names and geometry against what was written."""

import gzip
import struct
import zipfile

import nibabel as nib
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from oneprior.core import InputError
from oneprior.data import open_dataset, read_event

RNG = np.random.default_rng(0)


def stored(dataset, index=None):
    """The rows in the user's units, rounded where they were integers."""
    index = torch.arange(len(dataset)) if index is None else index
    values = dataset.units.to_units(dataset.batch(index).x.double()).numpy()
    return np.rint(values) if np.dtype(dataset.geometry.dtype).kind in "iu" else values


def pictures(folder, count=4, shape=(6, 5), dtype=np.uint8, suffix="png"):
    folder.mkdir(parents=True, exist_ok=True)
    values = RNG.integers(0, np.iinfo(dtype).max + 1, (count, *shape), dtype=dtype)
    values[0].flat[:2] = 0, np.iinfo(dtype).max
    for i, v in enumerate(values):
        if suffix == "tif":
            tifffile.imwrite(folder / f"p{i}.tif", v, photometric="rgb" if v.ndim == 3 else "minisblack")
        else:
            Image.fromarray(v).save(folder / f"p{i}.{suffix}")
    return values


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize(
    ("shape", "dtype", "suffix"),
    [
        ((6, 5), np.uint8, "png"),
        ((6, 5, 3), np.uint8, "png"),
        ((6, 5), np.uint16, "png"),
        ((6, 5), np.uint8, "tif"),
        ((6, 5, 3), np.uint8, "tif"),
        ((6, 5), np.uint16, "tif"),
        ((6, 5, 3), np.uint16, "tif"),
    ],
)
def test_pictures_keep_every_bit(tmp_path, shape, dtype, suffix, cache):
    values = pictures(tmp_path / "set", 5, shape, dtype, suffix)
    dataset = open_dataset(tmp_path / "set", cache=cache)
    expected = values[:, None] if len(shape) == 2 else values.transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(stored(dataset), expected)
    assert dataset.event_shape == expected.shape[1:]
    assert dataset.units.range == (0, np.iinfo(dtype).max)
    assert dataset.geometry.dtype == np.dtype(dtype).name
    assert list(dataset.names) == [f"p{i}.{suffix}" for i in range(5)]
    batch = dataset.batch(torch.tensor([3, 1, 3]))
    np.testing.assert_array_equal(batch.index, [3, 1, 3])
    assert torch.equal(batch.x[0], batch.x[2])
    assert batch.x.dtype == torch.float32
    assert float(batch.x.abs().max()) <= 1


def test_sixteen_bit_colour_png_is_not_cut_to_eight(tmp_path):
    imagecodecs = pytest.importorskip("imagecodecs")
    values = RNG.integers(0, 65536, (4, 6, 3), dtype=np.uint16)
    (tmp_path / "deep.png").write_bytes(imagecodecs.png_encode(values))
    event, units, geometry = read_event(tmp_path / "deep.png")
    np.testing.assert_array_equal(event[0].numpy(), values.transpose(2, 0, 1))
    assert geometry.dtype == "uint16"
    assert units.range == (0, 65535)


def test_twelve_bits_in_sixteen_use_the_whole_range(tmp_path):
    film = RNG.integers(0, 4096, (3, 4, 4), dtype=np.uint16)
    film.flat[0] = 4000
    np.save(tmp_path / "film.npy", film)
    assert open_dataset(tmp_path / "film.npy", layout="nhw").units.range == (0, 4095)


def test_jpeg_modes_transparency_rotation_and_negatives(tmp_path):
    Image.new("CMYK", (4, 4), (0, 255, 255, 0)).save(tmp_path / "a.jpg")
    assert read_event(tmp_path / "a.jpg")[0].shape == (1, 3, 4, 4)
    Image.new("RGBA", (2, 2), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (read_event(tmp_path / "clear.png")[0] == 255).all()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (6, 4)).save(tmp_path / "turned.jpg", exif=exif)
    assert read_event(tmp_path / "turned.jpg")[0].shape == (1, 1, 6, 4)
    plane = np.arange(12, dtype=np.uint16).reshape(3, 4)
    tifffile.imwrite(tmp_path / "negative.tif", plane, photometric="miniswhite")
    np.testing.assert_array_equal(read_event(tmp_path / "negative.tif")[0][0, 0], 65535.0 - plane)


def test_a_tiff_of_pages_is_a_volume(tmp_path):
    volume = RNG.integers(0, 255, (5, 8, 7), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "stack.tif", volume, photometric="minisblack")
    np.testing.assert_array_equal(read_event(tmp_path / "stack.tif")[0][0, 0], volume)


def test_class_folders_become_labels(tmp_path):
    for name in ("tulip", "rose"):
        pictures(tmp_path / "train" / name, 3)
    dataset = open_dataset(tmp_path)
    (spec,) = dataset.conditions
    assert (spec.name, spec.kind, spec.classes, spec.names) == ("label", "class", 2, ("rose", "tulip"))
    labels = dataset.batch(torch.arange(6)).condition["label"]
    assert [spec.names[k] for k in labels] == [name.split("/")[1] for name in dataset.names]
    assert open_dataset(tmp_path, labels=False).conditions == ()
    assert open_dataset(tmp_path, key="train/rose").conditions == ()


def test_of_train_and_test_folders_train_is_opened(tmp_path):
    for part, count in (("train", 4), ("test", 2)):
        for name in ("a", "b"):
            pictures(tmp_path / part / name, count)
    assert len(open_dataset(tmp_path)) == 8
    assert open_dataset(tmp_path).conditions[0].names == ("a", "b")
    assert len(open_dataset(tmp_path, key="test")) == 4


def test_dataset_json_labels(tmp_path):
    pictures(tmp_path, 4)
    (tmp_path / "dataset.json").write_text('{"labels": [["p0.png", 1], ["p1.png", 0], ["p2.png", 1], ["p3.png", 0]]}')
    dataset = open_dataset(tmp_path)
    assert dataset.batch(torch.arange(4)).condition["label"].tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("cache", [True, False])
def test_zip_of_pictures(tmp_path, method, cache):
    values = pictures(tmp_path / "in", 12)
    with zipfile.ZipFile(tmp_path / "set.zip", "w", method) as archive:
        for path in (tmp_path / "in").iterdir():
            archive.write(path, f"inner/{path.name}")
        archive.writestr("__MACOSX/inner/._p0.png", b"junk")
    dataset = open_dataset(tmp_path / "set.zip", cache=cache)
    np.testing.assert_array_equal(stored(dataset)[:, 0], values)  # natural order: p2 before p10
    assert dataset.names[11] == "inner/p11.png"


def test_npy_is_mapped_and_layouts_are_told_apart(tmp_path):
    cases = {
        (7, 12): (1, 12),
        (7, 9, 8): (1, 9, 8),
        (7, 9, 8, 3): (3, 9, 8),
        (7, 3, 9, 8): (3, 9, 8),
        (7, 1, 4, 4): (1, 4, 4),
        (7, 2, 16): (2, 16),
        (7, 6, 9, 8): (1, 6, 9, 8),
        (7, 2, 6, 9, 8): (2, 6, 9, 8),
    }
    for shape, event in cases.items():
        values = RNG.integers(0, 256, shape, dtype=np.uint8)
        np.save(tmp_path / "x.npy", values)
        dataset = open_dataset(tmp_path / "x.npy")
        assert tuple(dataset.event_shape) == event
        expected = np.moveaxis(values, -1, 1) if event[0] == shape[-1] else values.reshape(7, *event)
        np.testing.assert_array_equal(stored(dataset), expected)
    np.save(tmp_path / "x.npy", np.zeros((7, 9, 4, 4), np.uint8))
    with pytest.raises(InputError, match=r"more than one way.*'ndhw' or 'nchw' or 'nhwc'"):
        open_dataset(tmp_path / "x.npy")
    assert open_dataset(tmp_path / "x.npy", layout="nchw").event_shape == (9, 4, 4)


def test_foreign_byte_order_and_fortran_order(tmp_path):
    values = RNG.normal(size=(5, 6, 7)).astype(">f4")
    np.save(tmp_path / "x.npy", np.asfortranarray(values))
    dataset = open_dataset(tmp_path / "x.npy")
    np.testing.assert_allclose(stored(dataset)[:, 0], values, atol=1e-6)
    low, high = dataset.units.range
    assert (low, high) == pytest.approx((values.min(), values.max()), rel=1e-6)


def test_npz_chooses_by_name_and_unpacks_once(tmp_path):
    x, y = RNG.integers(0, 256, (6, 5, 5), dtype=np.uint8), np.array([0, 1, 0, 1, 1, 0], np.uint8)[:, None]
    np.savez_compressed(tmp_path / "set.npz", train_images=x, train_labels=y, test_images=x[:2])
    dataset = open_dataset(tmp_path / "set.npz")
    np.testing.assert_array_equal(stored(dataset)[:, 0], x)
    assert dataset.batch(torch.arange(6)).condition["label"].tolist() == y[:, 0].tolist()
    files = {p: p.stat().st_mtime_ns for p in (tmp_path / ".oneprior-cache").iterdir()}
    open_dataset(tmp_path / "set.npz")
    assert files == {p: p.stat().st_mtime_ns for p in (tmp_path / ".oneprior-cache").iterdir()}
    assert len(open_dataset(tmp_path / "set.npz", key="test_images")) == 2
    np.savez(tmp_path / "set.npz", x=x[:4], y=np.array([0.5, 1.5, 2.5, 3.5]))
    changed = open_dataset(tmp_path / "set.npz")
    assert len(changed) == 4
    assert (changed.conditions[0].kind, changed.conditions[0].shape) == ("vector", (1,))
    np.savez(tmp_path / "two.npz", one=x, other=x)
    with pytest.raises(InputError, match=r"one \(6, 5, 5\) uint8, other .*key="):
        open_dataset(tmp_path / "two.npz")
    with pytest.raises(InputError, match="has no array 'third'"):
        open_dataset(tmp_path / "two.npz", key="third")


@pytest.mark.parametrize("packed", [False, True])
def test_idx_with_its_labels(tmp_path, packed):
    x, y = RNG.integers(0, 256, (6, 4, 5), dtype=np.uint8), np.array([2, 0, 2, 1, 1, 0], np.uint8)
    opener, suffix = (gzip.open, ".gz") if packed else (open, "")
    for name, kind, values in (("images-idx3", 3, x), ("labels-idx1", 1, y)):
        with opener(tmp_path / f"train-{name}-ubyte{suffix}", "wb") as file:
            file.write(bytes([0, 0, 8, kind]) + struct.pack(f">{kind}I", *values.shape) + values.tobytes())
    for path in (tmp_path, tmp_path / f"train-images-idx3-ubyte{suffix}"):
        dataset = open_dataset(path)
        np.testing.assert_array_equal(stored(dataset)[:, 0], x)
        assert dataset.batch(torch.arange(6)).condition["label"].tolist() == y.tolist()


def test_idx_of_big_endian_shorts(tmp_path):
    values = RNG.integers(-500, 500, (3, 5, 6)).astype(">i2")
    (tmp_path / "a.idx").write_bytes(bytes([0, 0, 11, 3]) + struct.pack(">3I", 3, 5, 6) + values.tobytes())
    np.testing.assert_array_equal(stored(open_dataset(tmp_path / "a.idx"))[:, 0], values)


AFFINE = np.array([[-2, 0, 0, 10], [0, 1.5, 0, -20], [0, 0, 3, 5], [0, 0, 0, 1.0]])


def volumes(folder, count=3, shape=(6, 7, 5), dtype=np.int16, affine=AFFINE, suffix=".nii.gz"):
    folder.mkdir(exist_ok=True)
    values = RNG.integers(-300, 900, (count, *shape)).astype(dtype)
    for i, v in enumerate(values):
        nib.save(nib.Nifti1Image(v, affine), folder / f"subject{i}{suffix}")
    return values


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_nifti_volumes_with_affine(tmp_path, suffix):
    values = volumes(tmp_path / "v", suffix=suffix)
    dataset = open_dataset(tmp_path / "v")
    np.testing.assert_array_equal(stored(dataset)[:, 0], values)
    assert dataset.geometry.spacing == (2, 1.5, 3)
    np.testing.assert_allclose(dataset.geometry.affine, AFFINE)
    assert dataset.geometry.dtype == "int16"
    assert dataset.units.range == (values.min(), values.max())


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("cache", [True, False])
def test_nifti_slices_keep_their_volume(tmp_path, axis, cache):
    values = volumes(tmp_path / "v")
    dataset = open_dataset(tmp_path / "v", slices=axis, cache=cache)
    expected = np.moveaxis(values, 1 + axis, 1).reshape(-1, 1, *np.delete(values.shape[1:], axis))
    np.testing.assert_array_equal(stored(dataset), expected)
    count = values.shape[1 + axis]
    assert dataset.groups.tolist() == np.repeat(np.arange(3), count).tolist()
    assert dataset.names[count] == "subject1.nii.gz"
    assert dataset.geometry.spacing == tuple(np.delete((2, 1.5, 3), axis))
    index = torch.tensor([len(dataset) - 1, 0, count])
    np.testing.assert_array_equal(stored(dataset, index), expected[index])


def test_slices_of_an_array(tmp_path):
    values = RNG.integers(0, 256, (3, 6, 7, 5), dtype=np.uint8)
    np.save(tmp_path / "v.npy", values)
    dataset = open_dataset(tmp_path / "v.npy", slices=1)
    np.testing.assert_array_equal(stored(dataset), np.moveaxis(values, 2, 1).reshape(-1, 1, 6, 5))
    assert dataset.groups.tolist() == np.repeat(range(3), 7).tolist()


def test_nifti_slope_is_applied_and_types_meet_in_float(tmp_path):
    (tmp_path / "v").mkdir()
    scaled = nib.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.eye(4))
    scaled.header.set_slope_inter(0.5, 3)
    nib.save(scaled, tmp_path / "v" / "a.nii")
    nib.save(nib.Nifti1Image(np.full((2, 3, 4), 7, np.uint8), np.eye(4)), tmp_path / "v" / "b.nii")
    dataset = open_dataset(tmp_path / "v")
    on_disk = nib.load(tmp_path / "v" / "a.nii").get_fdata()
    np.testing.assert_allclose(stored(dataset)[0, 0], on_disk, atol=1e-5)
    np.testing.assert_allclose(stored(dataset)[1, 0], 7, atol=1e-5)
    assert dataset.geometry.dtype == "float32"


def test_unlike_orientations_are_refused_then_turned(tmp_path):
    values = volumes(tmp_path / "v", 1, affine=np.eye(4))
    nib.save(nib.Nifti1Image(values[0][::-1], np.diag([-1.0, 1, 1, 1])), tmp_path / "v" / "turned.nii.gz")
    with pytest.raises(InputError, match="RAS.*LAS|LAS.*RAS"):
        open_dataset(tmp_path / "v")
    dataset = open_dataset(tmp_path / "v", orientation="RAS")
    np.testing.assert_array_equal(stored(dataset)[0], stored(dataset)[1])


def test_resized_volumes_stay_in_place(tmp_path):
    """A linear ramp in world coordinates is still that ramp after resizing, cropping and padding."""
    grid = np.stack(np.meshgrid(*map(np.arange, (12, 10, 8)), [1.0], indexing="ij"))[..., 0]
    world = np.einsum("ij,j...->i...", AFFINE, grid)[0]
    nib.save(nib.Nifti1Image(world.astype(np.float32), AFFINE), tmp_path / "a.nii")
    for size, fit in (((6, 5, 4), "resize"), ((8, 6, 8), "crop"), ((12, 14, 8), "pad")):
        event, _, geometry = read_event(tmp_path / "a.nii", size=size, fit=fit)
        at = np.stack(np.meshgrid(*map(np.arange, size), [1.0], indexing="ij"))[..., 0]
        where = np.einsum("ij,j...->i...", np.asarray(geometry.affine), at)[0]
        inside = np.s_[1:-1, 3:-3, 1:-1] if fit == "pad" else np.s_[1:-1, 1:-1, 1:-1]
        np.testing.assert_allclose(event[0, 0].numpy()[inside], where[inside], atol=1e-4)


def test_clips_from_gif_and_from_frames(tmp_path):
    frames = RNG.integers(0, 256, (5, 8, 6), dtype=np.uint8)
    (tmp_path / "gifs").mkdir()
    images = [Image.fromarray(f) for f in frames]
    images[0].save(tmp_path / "gifs" / "a.gif", save_all=True, append_images=images[1:])
    dataset = open_dataset(tmp_path / "gifs")
    assert dataset.event_shape == (1, 5, 8, 6)
    np.testing.assert_array_equal(stored(dataset)[0, 0], frames)
    for clip in "ab":
        (tmp_path / "clips" / clip).mkdir(parents=True)
        for t, frame in enumerate(frames):
            Image.fromarray(frame).save(tmp_path / "clips" / clip / f"frame{8 + t}.png")
    dataset = open_dataset(tmp_path / "clips", clips=True)
    np.testing.assert_array_equal(stored(dataset)[1, 0], frames)
    assert list(dataset.names) == ["a", "b"]
    assert open_dataset(tmp_path / "clips", clips=True, size="4x4").event_shape == (1, 5, 4, 4)
    assert read_event(tmp_path / "clips" / "a")[0].shape == (1, 1, 5, 8, 6)


def test_a_folder_of_npy_events(tmp_path):
    values = RNG.normal(size=(3, 2, 6, 7)).astype(np.float32)
    for i, v in enumerate(values):
        np.save(tmp_path / f"{i}.npy", v)
    np.testing.assert_allclose(stored(open_dataset(tmp_path)), values, atol=1e-6)


def test_value_range_is_obeyed_and_cuts_off(tmp_path):
    np.save(tmp_path / "ct.npy", np.linspace(-1000, 1000, 2 * 64, dtype=np.float32).reshape(2, 8, 8))
    dataset = open_dataset(tmp_path / "ct.npy", value_range=(-200, 200))
    x = dataset.batch(torch.arange(2)).x
    assert float(x.min()) == -1
    assert float(x.max()) == 1
    assert dataset.units.range == (-200, 200)

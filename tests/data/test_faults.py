"""What is broken is named before any work, with the reason and the remedy; `skip_bad` goes on and lists it."""

import gzip
import warnings
import zipfile

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from oneprior.core import InputError, ShapeError
from oneprior.data import array_dataset, check_stride, open_dataset, read_arrays, read_event, write_arrays

RNG = np.random.default_rng(2)


def picture(path, shape=(8, 8), dtype=np.uint8):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 256, shape).astype(dtype)).save(path)


@pytest.mark.parametrize("cache", [True, False])
def test_truncated_empty_and_foreign_pictures(tmp_path, cache):
    for i in range(6):
        picture(tmp_path / f"{i}.png", (16, 16))
    whole = (tmp_path / "1.png").read_bytes()
    (tmp_path / "1.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "3.png").write_bytes(b"")
    (tmp_path / "4.png").write_text("<html>not found</html>")
    with pytest.raises(InputError, match=r"1\.png: .*(truncated|broken)"):
        open_dataset(tmp_path, cache=cache)
    for _ in range(2):  # the second time from the cache
        dataset = open_dataset(tmp_path, skip_bad=True, cache=cache)
        assert len(dataset) == 3
        assert list(dataset.names) == ["0.png", "2.png", "5.png"]
        assert [w.rpartition("/")[2] for w, _ in dataset.skipped] == ["1.png", "3.png", "4.png"]
        assert "not a picture" in dataset.skipped[1][1]
        assert dataset.batch(torch.arange(3)).x.shape == (3, 1, 16, 16)
    with pytest.raises(InputError, match=r"1\.png"):
        open_dataset(tmp_path, cache=cache)


def test_nothing_readable_at_all(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"none of 1 files could be read.*a\.png"):
        open_dataset(tmp_path, skip_bad=True)


def test_missing_empty_and_foreign_places(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        open_dataset(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"holds no data; known are PNG"):
        open_dataset(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(InputError, match=r"notes\.txt: not a file that can be read"):
        open_dataset(tmp_path / "notes.txt")
    picture(tmp_path / "a.png")
    np.save(tmp_path / "b.npy", np.zeros((8, 8)))
    with pytest.raises(InputError, match=r"1 pictures, 1 arrays"):
        open_dataset(tmp_path)
    with pytest.raises(InputError, match="sub-folder 'x'"):
        open_dataset(tmp_path, key="x")


def test_mixed_channels_sizes_and_depths(tmp_path):
    picture(tmp_path / "c" / "a.png")
    picture(tmp_path / "c" / "b.png", (8, 8, 3))
    with pytest.raises(InputError, match=r"a\.png has 1 channels and b\.png has 3.*channels='grey'"):
        open_dataset(tmp_path / "c")
    assert open_dataset(tmp_path / "c", channels="grey").event_shape == (1, 8, 8)
    assert open_dataset(tmp_path / "c", channels="rgb").event_shape == (3, 8, 8)
    picture(tmp_path / "s" / "a.png")
    picture(tmp_path / "s" / "b.png", (8, 9))
    with pytest.raises(InputError, match=r"a\.png is 8x8 and b\.png is 8x9.*give a size"):
        open_dataset(tmp_path / "s")
    assert open_dataset(tmp_path / "s", size="4x6").event_shape == (1, 4, 6)
    with pytest.raises(InputError, match=r"a\.png: crop.*fit='pad'"):
        open_dataset(tmp_path / "s", size="8x9", fit="crop")
    picture(tmp_path / "d" / "a.png")
    picture(tmp_path / "d" / "b.png", dtype=np.uint16)
    with pytest.raises(InputError, match=r"a\.png is uint8 and b\.png is uint16"):
        open_dataset(tmp_path / "d")


def test_nan_voxels_and_rows(tmp_path):
    for i in range(3):
        volume = RNG.normal(size=(5, 5, 5)).astype(np.float32)
        volume[0, 0, :2] = np.nan if i == 1 else 0
        nib.save(nib.Nifti1Image(volume, np.eye(4)), tmp_path / f"v{i}.nii.gz")
    with pytest.raises(InputError, match=r"v1\.nii\.gz: 2 of 125 values are NaN"):
        open_dataset(tmp_path)
    assert len(open_dataset(tmp_path, skip_bad=True)) == 2
    rows = RNG.normal(size=(6, 5, 5))
    rows[4, 0, 0] = np.inf
    np.save(tmp_path / "rows.npy", rows)
    with pytest.raises(InputError, match=r"1 of 6 rows hold NaN.*rows 4.*--skip-bad"):
        open_dataset(tmp_path / "rows.npy")
    dataset = open_dataset(tmp_path / "rows.npy", skip_bad=True)
    assert len(dataset) == 5
    assert dataset.names[4] == "rows.npy[5]"
    assert "row 4" in dataset.skipped[0][0]
    with pytest.raises(InputError, match="row 4"):
        array_dataset(torch.from_numpy(rows)[:, None])


def test_damaged_volumes_and_zips(tmp_path):
    nib.save(nib.Nifti1Image(RNG.normal(size=(9, 9, 9)), np.eye(4)), tmp_path / "a.nii.gz")
    data = (tmp_path / "a.nii.gz").read_bytes()
    (tmp_path / "a.nii.gz").write_bytes(data[:-2000])
    with pytest.raises(InputError, match=r"a\.nii\.gz: "):
        open_dataset(tmp_path / "a.nii.gz")
    for i in range(2):
        picture(tmp_path / f"{i}.png", (32, 32))
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.write(tmp_path / "0.png", "0.png")
        archive.write(tmp_path / "1.png", "1.png")
    data = bytearray((tmp_path / "z.zip").read_bytes())
    data[200] ^= 255
    (tmp_path / "z.zip").write_bytes(data)
    with pytest.raises(InputError, match=r"z\.zip/0\.png: the zip's entry is damaged \(wrong checksum\)"):
        open_dataset(tmp_path / "z.zip")
    assert list(open_dataset(tmp_path / "z.zip", skip_bad=True).names) == ["1.png"]
    (tmp_path / "z.zip").write_bytes(data[:500])
    with pytest.raises(InputError, match=r"z\.zip: the zip cannot be read"):
        open_dataset(tmp_path / "z.zip")


def test_cut_arrays_and_pickles(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((10, 8, 8)))
    data = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(data[:1000])
    with pytest.raises(InputError, match=r"a\.npy: cut short; 1000 bytes"):
        open_dataset(tmp_path / "a.npy")
    (tmp_path / "b-images-idx3-ubyte.gz").write_bytes(gzip.compress(bytes([0, 0, 8, 3]) + b"\0\0\0\x09" * 3)[:-3])
    with pytest.raises(InputError, match=r"b-images-idx3-ubyte\.gz: cannot be unpacked"):
        open_dataset(tmp_path / "b-images-idx3-ubyte.gz")
    (tmp_path / "c.idx").write_bytes(bytes([0, 0, 8, 3]) + b"\0\0\0\x09" * 3)
    with pytest.raises(InputError, match=r"c\.idx: cut short"):
        open_dataset(tmp_path / "c.idx")
    np.save(tmp_path / "o.npy", np.array([{}, []], dtype=object))
    with pytest.raises(InputError, match=r"o\.npy: holds Python objects \(pickle\)"):
        open_dataset(tmp_path / "o.npy")
    np.savez(tmp_path / "o.npz", a=np.array([{}, []], dtype=object))
    with pytest.raises(InputError, match="pickle"):
        read_arrays(tmp_path / "o.npz")
    with pytest.raises(InputError, match="pickle"):
        write_arrays(tmp_path / "p.npz", a={"no": 1})  # type: ignore[arg-type]
    assert not (tmp_path / "p.npz").exists()
    (tmp_path / "n.npz").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"n\.npz: not a \.npz"):
        open_dataset(tmp_path / "n.npz")


def test_a_class_with_one_item(tmp_path):
    for name in ("a/1", "a/2", "b/1"):
        picture(tmp_path / f"{name}.png")
    with pytest.raises(InputError, match=r"1 of 2 classes have one item only \('b'\).*labels=False"):
        open_dataset(tmp_path)
    assert len(open_dataset(tmp_path, labels=False)) == 3


def test_no_range_and_too_small_for_the_net():
    with pytest.raises(InputError, match=r"all values equal 2.*value_range"):
        array_dataset(np.full((3, 1, 4, 4), 2.0))
    with pytest.raises(ShapeError, match=r"\(6, 16\).*a multiple of 8.*size=8x16"):
        check_stride((1, 6, 16), 8)
    check_stride((1, 8, 16), 8)
    check_stride((1, 9, 17), 8, divisible=False)


def test_clear_words_about_arrays_in_memory():
    with pytest.raises(InputError, match="'nhw'"):
        array_dataset(np.zeros((5, 28, 28)))
    with pytest.raises(InputError, match="'nhwc'"):
        array_dataset(np.zeros((5, 28, 28, 3)))
    with pytest.raises(InputError, match=r"rows 0 \.\. 9 were asked of a set of 3"):
        array_dataset(np.arange(12.0).reshape(3, 1, 4)).batch(torch.tensor([0, 9]))


def test_one_event_where_there_are_many(tmp_path):
    for i in range(2):
        nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4)), tmp_path / f"{i}.nii")
    with pytest.raises(InputError, match="read as one event"):
        read_event(tmp_path)
    np.save(tmp_path / "many.npy", np.zeros((9, 8, 8, 3)))
    with pytest.raises(InputError, match="holds 9 events.*row="):
        read_event(tmp_path / "many.npy")
    assert read_event(tmp_path / "many.npy", row=4)[0].shape == (1, 3, 8, 8)


def test_outliers_that_stretch_the_range_are_told(tmp_path):
    for i in range(5):
        scale = 1e5 if i == 3 else 1.0
        nib.save(nib.Nifti1Image(scale * RNG.random((4, 4, 4)).astype(np.float32), np.eye(4)), tmp_path / f"{i}.nii")
    for _ in range(2):  # the second time from the cache
        with pytest.warns(UserWarning, match=r"3\.nii stretches.*value_range"):
            open_dataset(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_dataset(tmp_path, value_range=(0, 1))

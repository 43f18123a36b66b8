"""What is not taken for data is told, and what is read is read whole: bands, turns, numbers of classes, links."""

import os
import warnings

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from oneprior.core import InputError
from oneprior.data import digits, open_dataset, read_event, read_events


def picture(path, value=100):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((6, 6), value, np.uint8)).save(path)


def test_bands_of_a_tiff_are_kept_and_opacity_is_laid_over_white(tmp_path):
    bands = np.random.default_rng(0).integers(0, 65536, (6, 7, 4), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "bands.tif", bands, photometric="rgb", extrasamples=["UNSPECIFIED"])
    assert np.array_equal(read_event(tmp_path / "bands.tif")[0][0], np.moveaxis(bands, -1, 0))
    colours, opacity = bands[..., :3].astype(float), bands[..., 3:] / 65535
    tifffile.imwrite(tmp_path / "un.tif", bands, photometric="rgb", extrasamples=["UNASSALPHA"])
    expected = np.moveaxis(colours * opacity + 65535 * (1 - opacity), -1, 0)
    assert np.abs(read_event(tmp_path / "un.tif")[0][0].numpy() - expected).max() <= 0.51
    multiplied = np.concatenate([colours * opacity, bands[..., 3:]], -1).round().astype(np.uint16)
    tifffile.imwrite(tmp_path / "as.tif", multiplied, photometric="rgb", extrasamples=["ASSOCALPHA"])
    assert np.abs(read_event(tmp_path / "as.tif")[0][0].numpy() - expected).max() <= 1.01


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_turned_tiff_is_upright_as_a_turned_jpeg(tmp_path, turn):
    plane = np.arange(12, dtype=np.uint8).reshape(3, 4)
    tifffile.imwrite(tmp_path / "t.tif", plane, extratags=[(274, "H", 1, turn, True)])
    tag = Image.Exif()
    tag[274] = turn
    Image.fromarray(plane).save(tmp_path / "t.png", exif=tag)
    with Image.open(tmp_path / "t.png") as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(read_event(tmp_path / "t.tif")[0][0, 0], expected)


def test_numbered_classes_are_in_the_order_of_their_numbers(tmp_path):
    for k in range(12):
        for n in range(2):
            picture(tmp_path / str(k) / f"{n}.png", 20 * k)
    data = open_dataset(tmp_path, cache=False)
    assert data.conditions[0].names == tuple(map(str, range(12)))
    batch = data.batch(np.arange(24))
    assert np.array_equal(batch.condition["label"], ((batch.x[:, 0, 0, 0] + 1) * 127.5 / 20).round().long())


def test_files_of_other_kinds_are_told(tmp_path):
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png")
    (tmp_path / "notes.txt").write_text("notes are no data")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(open_dataset(tmp_path, cache=False)) == 2
    (tmp_path / "c.jp2").write_bytes(b"a picture of another kind")
    with pytest.warns(UserWarning, match=r"left out: 1 of \.jp2"):
        assert len(open_dataset(tmp_path, cache=False)) == 2


def test_links_in_a_circle_are_an_error_of_the_user(tmp_path):
    picture(tmp_path / "a.png")
    os.symlink(tmp_path, tmp_path / "loop")
    with pytest.raises(InputError, match="read already"):
        open_dataset(tmp_path, cache=False)
    (tmp_path / "loop").unlink()
    os.symlink("self", tmp_path / "self")
    with pytest.raises(InputError, match="self"):
        open_dataset(tmp_path, cache=False)


def test_options_that_would_do_nothing_are_refused():
    with pytest.raises(InputError, match="takes no size"):
        open_dataset(digits(), size=4)
    with pytest.raises(InputError, match="takes no slices"):
        open_dataset(np.zeros((3, 1, 8, 8, 8), np.float32), slices=0)


@pytest.mark.parametrize(
    ("shape", "dims", "wanted", "found"),
    [
        ((8, 8), 2, 1, (1, 1, 8, 8)),
        ((5, 8, 8), 2, 1, (5, 1, 8, 8)),
        ((3, 8, 8), 2, 1, (3, 1, 8, 8)),
        ((3, 8, 8), 2, 3, (1, 3, 8, 8)),
        ((8, 8, 3), 2, None, (1, 3, 8, 8)),
        ((5, 8, 8, 3), 2, None, (5, 3, 8, 8)),
        ((3, 64), 1, 1, (3, 1, 64)),
        ((64,), 1, 1, (1, 1, 64)),
        ((3, 9, 8, 8), 3, 1, (3, 1, 9, 8, 8)),
        ((9, 8, 8), 3, None, (1, 1, 9, 8, 8)),
        ((8, 4, 4), 2, 1, (8, 1, 4, 4)),
        ((4, 9), 2, 1, (1, 1, 4, 9)),
        ((4, 9, 8), 3, 1, (1, 1, 4, 9, 8)),
    ],
    ids=str,
)
def test_the_events_of_an_array(tmp_path, shape, dims, wanted, found):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random(shape, dtype=np.float32))
    assert tuple(read_events(tmp_path / "x.npy", dims, wanted=wanted)[0].shape) == found

"""k-space files: a round trip, slices, masks, the size of the picture, and files that are none."""

import h5py
import numpy as np
import pytest

from oneprior.core import InputError
from oneprior.data import BadFileError
from oneprior.data.fastmri import count_slices, read_kspace, write_kspace


def _values(*shape):
    generator = np.random.default_rng(0)
    return (generator.normal(size=shape) + 1j * generator.normal(size=shape)).astype(np.complex64)


@pytest.mark.parametrize("coils", [0, 3])
def test_a_round_trip(tmp_path, coils):
    kspace = _values(4, *([coils] if coils else []), 10, 8)
    target = np.abs(_values(4, 5, 6))
    path = write_kspace(tmp_path / "a.h5", kspace, target=target, attributes={"max": 2.5, "acquisition": "AXT2"})
    assert count_slices(path) == 4
    scan = read_kspace(path)
    assert np.array_equal(scan.kspace, kspace if coils else kspace[:, None])
    assert scan.multicoil == bool(coils)
    assert scan.full
    assert scan.recon == (5, 6)
    assert np.array_equal(scan.target, target)
    assert scan.attributes == {"max": 2.5, "acquisition": "AXT2"}
    assert (scan.name, scan.slices) == ("a.h5", (0, 1, 2, 3))
    some = read_kspace(path, [2, -1])
    assert some.slices == (2, 3)
    assert np.array_equal(some.kspace[1], scan.kspace[3])
    assert np.array_equal(some.target[0], target[2])
    assert read_kspace(path, 1).slices == (1,)


def test_columns_that_hold_nothing_were_not_measured(tmp_path):
    kspace = _values(2, 3, 10, 8)
    kspace[..., [0, 3]] = 0
    scan = read_kspace(write_kspace(tmp_path / "a.h5", kspace))
    assert scan.mask.nonzero()[0].tolist() == [1, 2, 4, 5, 6, 7]
    assert not scan.full
    assert scan.recon is None
    mask = np.array([0, 1, 1, 0, 1, 1, 0, 1])
    scan = read_kspace(write_kspace(tmp_path / "b.h5", kspace, mask=mask))
    assert scan.mask.tolist() == (mask > 0).tolist()
    assert not scan.kspace[..., 6].any()


def test_the_header_says_the_size_of_the_picture(tmp_path):
    path = write_kspace(tmp_path / "a.h5", _values(1, 3, 640, 32))
    matrix = "<matrixSize><x>{}</x><y>{}</y><z>1</z></matrixSize>"
    header = (
        f"<ismrmrdHeader><encoding><encodedSpace>{matrix.format(640, 372)}</encodedSpace>"
        f"<reconSpace>{matrix.format(320, 30)}</reconSpace></encoding></ismrmrdHeader>"
    )
    with h5py.File(path, "a") as file:
        file["ismrmrd_header"] = header
    assert read_kspace(path).recon == (320, 30)


def test_files_that_cannot_be_used_say_why(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_kspace(tmp_path / "gone.h5")
    (tmp_path / "text.h5").write_text("k-space")
    with pytest.raises(BadFileError, match="not an HDF5 file"):
        read_kspace(tmp_path / "text.h5")
    path = write_kspace(tmp_path / "a.h5", _values(2, 10, 8))
    whole = path.read_bytes()
    for share in (0.1, 0.5, 0.9):
        (tmp_path / "cut.h5").write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(BadFileError, match="truncated or damaged"):
            read_kspace(tmp_path / "cut.h5")
    with pytest.raises(InputError, match="slices 0 to 1; asked for 2"):
        read_kspace(path, 2)
    with pytest.raises(InputError, match="asked for none"):
        read_kspace(path, [])
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["picture"] = np.zeros(3)
    with pytest.raises(BadFileError, match="no 'kspace'; it holds picture"):
        read_kspace(tmp_path / "other.h5")
    for values in (np.zeros((2, 4, 4)), _values(4, 4), np.zeros((0, 4, 4), np.complex64)):
        with h5py.File(tmp_path / "kind.h5", "w") as file:
            file["kspace"] = values
        with pytest.raises(BadFileError, match="is needed"):
            read_kspace(tmp_path / "kind.h5")
    bad = _values(2, 10, 8)
    bad[1, 2, 3] = np.nan
    with pytest.raises(BadFileError, match="NaN"):
        read_kspace(write_kspace(tmp_path / "nan.h5", bad))
    with pytest.raises(BadFileError, match="zero everywhere"):
        read_kspace(write_kspace(tmp_path / "zero.h5", 0 * bad[:1]))
    with pytest.raises(BadFileError, match="mask has shape"):
        read_kspace(write_kspace(tmp_path / "mask.h5", _values(2, 10, 8), mask=np.ones(5)))
    with pytest.raises(BadFileError, match="has 3 slices and kspace 2"):
        read_kspace(write_kspace(tmp_path / "target.h5", _values(2, 10, 8), target=np.ones((3, 8, 8))))
    with pytest.raises(InputError, match="k-space is complex"):
        write_kspace(tmp_path / "real.h5", np.zeros((2, 4, 4)))

"""DICOM series: slope and intercept, order by position, place in the world, missing slices."""

import numpy as np
import pydicom
import pytest
import torch
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from oneprior.core import InputError
from oneprior.data import open_dataset, read_event

RNG = np.random.default_rng(1)


def write_slice(path, pixels, z, series, *, tilt=0.0, **extra):
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.file_meta.MediaStorageSOPClassUID = CTImageStorage
    header.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    header.SOPClassUID, header.SOPInstanceUID = CTImageStorage, header.file_meta.MediaStorageSOPInstanceUID
    header.SeriesInstanceUID, header.Modality = series, "CT"
    header.Rows, header.Columns = pixels.shape
    header.PixelSpacing = [0.5, 0.75]
    header.SliceThickness = 2.0
    header.ImagePositionPatient = [10.0, -5.0, z]
    header.ImageOrientationPatient = [np.cos(tilt), np.sin(tilt), 0, -np.sin(tilt), np.cos(tilt), 0]
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 12, 11, 0
    header.RescaleSlope, header.RescaleIntercept = 1, -1024
    for name, value in extra.items():
        setattr(header, name, value)
    header.PixelData = pixels.astype("<u2").tobytes()
    pydicom.dcmwrite(path, header, enforce_file_format=True)


def write_series(folder, count=4, names=None, skip=(), **extra):
    folder.mkdir(parents=True, exist_ok=True)
    pixels = RNG.integers(0, 4096, (count, 6, 5))
    series = generate_uid()
    for k in range(count):
        if k not in skip:
            # written in an order that has nothing to do with the position
            write_slice(folder / (names or "s{}.dcm").format((k * 3) % 7), pixels[k], 3.0 * k, series, **extra)
    return pixels


def test_a_series_in_hounsfield_units_sorted_by_position(tmp_path):
    pixels = write_series(tmp_path / "s")
    dataset = open_dataset(tmp_path / "s")
    assert dataset.event_shape == (1, 4, 6, 5)
    x = dataset.units.to_units(dataset.batch(torch.arange(1)).x.double())
    np.testing.assert_array_equal(np.rint(x[0, 0].numpy()), pixels - 1024)
    assert dataset.units.range == (-1024, 3071)  # 12 bits stored
    assert dataset.units.unit == "Hounsfield unit"
    assert dataset.geometry.spacing == (3.0, 0.5, 0.75)
    assert dataset.geometry.dtype == "int16"


def test_the_affine_takes_slice_row_column_to_ras_millimetres(tmp_path):
    tilt = 0.3
    write_series(tmp_path / "s", tilt=tilt)
    _, _, geometry = read_event(tmp_path / "s")
    voxel = np.array([2, 3, 4, 1.0])
    row, column = np.array([np.cos(tilt), np.sin(tilt), 0]), np.array([-np.sin(tilt), np.cos(tilt), 0])
    lps = np.array([10, -5, 0]) + [0, 0, 6.0] + row * 0.75 * 4 + column * 0.5 * 3  # PS3.3 equation C.7.6.2.1-1
    np.testing.assert_allclose((np.asarray(geometry.affine) @ voxel)[:3], lps * [-1, -1, 1], atol=1e-9)


def test_several_series_and_files_without_suffix(tmp_path):
    for k in range(3):
        write_series(tmp_path / f"patient{k}", names="IM{}")
    dataset = open_dataset(tmp_path)
    assert len(dataset) == 3
    assert list(dataset.names) == ["patient0", "patient1", "patient2"]
    assert open_dataset(tmp_path, slices=0).event_shape == (1, 6, 5)
    assert len(open_dataset(tmp_path, slices=0)) == 12


def test_single_radiographs_are_pictures_and_negatives_are_turned(tmp_path):
    pixels = RNG.integers(0, 4096, (6, 5))
    plain = {"RescaleSlope": 1, "RescaleIntercept": 0, "Modality": "DX"}
    write_slice(tmp_path / "a.dcm", pixels, 0.0, generate_uid(), PhotometricInterpretation="MONOCHROME1", **plain)
    write_slice(tmp_path / "b.dcm", pixels, 0.0, generate_uid(), **plain)
    dataset = open_dataset(tmp_path)
    assert dataset.event_shape == (1, 6, 5)
    x = dataset.batch(torch.arange(2)).x
    torch.testing.assert_close(x[0], -x[1])


def test_a_missing_slice_and_a_broken_one_are_named(tmp_path):
    write_series(tmp_path / "gap", 5, skip=(2,))
    with pytest.raises(InputError, match=r"gap.*slices are missing or unevenly spaced"):
        open_dataset(tmp_path / "gap")
    write_series(tmp_path / "bad")
    (tmp_path / "bad" / "s9.dcm").write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match=r"s9\.dcm: not a DICOM file"):
        open_dataset(tmp_path / "bad")
    dataset = open_dataset(tmp_path / "bad", skip_bad=True)
    assert len(dataset) == 1
    assert [where.rpartition("/")[2] for where, _ in dataset.skipped] == ["s9.dcm"]

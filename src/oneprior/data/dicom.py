"""DICOM: a folder of slices to volumes, one for each series.

Values are v = slope * stored + intercept (PS3.3 C.11.1), so a CT comes in Hounsfield units. Slices are sorted by the
projection of their position on the normal of the image plane, never by file name; where positions are missing, by
instance number. The event is (1, slice, row, column), and the affine takes (slice, row, column) to RAS+ millimetres
(DICOM's own world is LPS+, PS3.3 C.7.6.2). A series of one image is a picture (1, row, column).
"""

from __future__ import annotations

import hashlib
import io
from collections import defaultdict

import numpy as np

from oneprior.core import Geometry, InputError
from oneprior.data.decoded import BadFileError, Decoded, Reader
from oneprior.data.files import Files
from oneprior.data.volumes import as_tuples


def is_dicom(data: bytes) -> bool:
    """Whether the bytes begin as a DICOM file does."""
    return data[128:132] == b"DICM"


class SeriesReader(Reader):
    """The series found among files, in natural order of their first file.

    Args:
        files: DICOM files of any number of series.
        skip_bad: leave out files whose header cannot be read, and list them.
    """

    converts = True

    def __init__(self, files: Files, skip_bad: bool = False) -> None:
        import pydicom

        self._files = files
        series: dict[tuple[str, ...], list[tuple[float, int]]] = defaultdict(list)
        skipped = []
        for i in range(len(files)):
            try:
                header = pydicom.dcmread(io.BytesIO(files.read(i)), stop_before_pixels=True)
                rank = _position(header)
            except Exception as error:
                bad = error if isinstance(error, BadFileError) else BadFileError(files.where(i), _short(error))
                if not skip_bad:
                    raise bad from error
                skipped.append((bad.where, bad.reason))
                continue
            key = (str(header.get("SeriesInstanceUID", "")), files.names[i].rpartition("/")[0])
            series[key].append((rank, i))
        self._members = [np.asarray([i for _, i in sorted(found)]) for found in series.values()]
        self.skipped = tuple(skipped)
        self.names = [self._name(members) for members in self._members]

    def _name(self, members: np.ndarray) -> str:
        first = self._files.names[int(members[0])]
        return first if len(members) == 1 else first.rpartition("/")[0] or self._files.root.name

    def digest(self) -> str:
        return hashlib.blake2b(f"dicom/{self._files.digest()}".encode(), digest_size=12).hexdigest()

    def where(self, i: int) -> str:
        return f"{self._files.root}/{self.names[i]}"

    def decode(self, i: int) -> Decoded:
        import pydicom

        members = self._members[i]
        slices, headers = [], []
        for k in members:
            where = self._files.where(int(k))
            try:
                header = pydicom.dcmread(io.BytesIO(self._files.read(int(k))))
                slices.append(_values(header, where))
            except InputError:
                raise
            except Exception as error:
                raise BadFileError(where, _short(error)) from error
            del header.PixelData
            headers.append(header)
        shapes = {s.shape for s in slices}
        if len(shapes) > 1:
            raise BadFileError(self._files.where(int(members[0])), f"the slices of its series differ: {sorted(shapes)}")
        event = slices[0] if len(slices) == 1 else np.stack(slices, axis=1)
        affine, spacing = _affine(headers, self._files.where(int(members[0])))
        space = event.shape[1:]
        event, declared = _narrow(event, headers)
        geometry = Geometry(event.dtype.name, spacing[-len(space) :], affine, "dicom")
        if len(space) == 2 and affine is not None:
            geometry = Geometry(event.dtype.name, spacing[-2:], affine, "dicom", axis=0)
        unit = str(headers[0].get("RescaleType", "") or ("HU" if headers[0].get("Modality") == "CT" else ""))
        return Decoded(event, geometry, declared, {"HU": "Hounsfield unit"}.get(unit, unit))


def _position(header) -> float:
    normal = _normal(header)
    if normal is not None:
        return float(normal @ np.asarray(header.ImagePositionPatient, dtype=float))
    return float(header.get("InstanceNumber", 0) or 0)


def _normal(header) -> np.ndarray | None:
    if "ImagePositionPatient" not in header or "ImageOrientationPatient" not in header:
        return None
    row, column = np.asarray(header.ImageOrientationPatient, dtype=float).reshape(2, 3)
    return np.cross(row, column)


def _values(header, where: str) -> np.ndarray:
    """(channels, [frame,] row, column) float64, after slope and intercept; MONOCHROME1 is turned so that 0 is black."""
    stored = header.pixel_array
    photometric = str(header.get("PhotometricInterpretation", "MONOCHROME2"))
    if int(header.get("SamplesPerPixel", 1)) == 3:
        if photometric.startswith("YBR"):
            from pydicom.pixels import convert_color_space

            stored = convert_color_space(stored, photometric, "RGB")
        return np.moveaxis(stored, -1, 0).astype(np.float64)
    if photometric == "PALETTE COLOR":
        raise BadFileError(where, "palette colours are not supported; convert it to RGB")
    values = stored.astype(np.float64)
    if photometric == "MONOCHROME1":
        low, high = _stored_range(header)
        values = low + high - values
    return (values * float(header.get("RescaleSlope", 1) or 1) + float(header.get("RescaleIntercept", 0) or 0))[None]


def _stored_range(header) -> tuple[float, float]:
    bits = int(header.BitsStored)
    return (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if header.get("PixelRepresentation", 0) else (0, 2.0**bits - 1)


def _narrow(event: np.ndarray, headers: list) -> tuple[np.ndarray, tuple[float, float] | None]:
    """The smallest type that holds the values, and the declared range where fewer than 16 bits are stored."""
    ranges = []
    for header in headers:
        slope, intercept = float(header.get("RescaleSlope", 1) or 1), float(header.get("RescaleIntercept", 0) or 0)
        ranges.append(sorted(slope * v + intercept for v in _stored_range(header)))
    low, high = min(r[0] for r in ranges), max(r[1] for r in ranges)
    declared = (low, high) if int(headers[0].BitsStored) < 16 else None
    low, high = min(low, float(event.min())), max(high, float(event.max()))
    if np.array_equal(event, np.rint(event)):
        for kind in (np.uint8, np.uint16, np.int16, np.int32):
            if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
                return event.astype(kind), declared
    return event.astype(np.float32), declared


def _affine(headers: list, where: str) -> tuple[tuple[tuple[float, ...], ...] | None, tuple[float, ...]]:
    """(slice, row, column) -> RAS+ millimetres, and the spacing; None where the files do not say."""
    first = headers[0]
    pixel = tuple(float(v) for v in first.get("PixelSpacing", first.get("ImagerPixelSpacing", None)) or ())
    thickness = float(first.get("SpacingBetweenSlices", first.get("SliceThickness", 1)) or 1)
    if len(pixel) != 2:
        return None, ()
    normal = _normal(first)
    if normal is None:
        return None, (thickness, *pixel)
    row, column = np.asarray(first.ImageOrientationPatient, dtype=float).reshape(2, 3)
    origin = np.asarray(first.ImagePositionPatient, dtype=float)
    step = normal * thickness
    if len(headers) > 1:
        places = np.asarray([h.ImagePositionPatient for h in headers], dtype=float)
        gaps = (np.diff(places, axis=0) * normal).sum(1)
        if gaps.min() < 1e-4 or gaps.max() - gaps.min() > 0.1 * np.median(gaps):
            what = "two slices lie at one position" if gaps.min() < 1e-4 else "slices are missing or unevenly spaced"
            raise BadFileError(where, f"{what} in its series (gaps {gaps.min():.3g} to {gaps.max():.3g} mm)")
        step = (places[-1] - places[0]) / (len(headers) - 1)
    affine = np.eye(4)
    affine[:3, :] = np.stack([step, column * pixel[0], row * pixel[1], origin], axis=1)
    affine[:2] *= -1  # LPS+ to RAS+
    return as_tuples(affine), (float(np.linalg.norm(step)), *pixel)


def _short(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return "not a DICOM file" if "missing DICOM File Meta" in text or "DICM" in text else text[:300]

"""One event from a file, in the user's units: the picture to restore, the volume to condition on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from oneprior.core import AffineMap, Geometry, InputError
from oneprior.data.clips import FramesReader
from oneprior.data.decoded import Decoded, Reader, guarded
from oneprior.data.dicom import SeriesReader, is_dicom
from oneprior.data.files import Files, FolderFiles
from oneprior.data.fit import Fit, Size, parse_size
from oneprior.data.layouts import event_layout
from oneprior.data.molecules import is_molecules
from oneprior.data.npz import is_npz, read_arrays
from oneprior.data.plan import Channels, Plan
from oneprior.data.ranges import map_for
from oneprior.data.readers import FileReader, kind_of


def read_event(
    path: Path | str,
    *,
    size: Size | str | None = None,
    fit: Fit = "resize",
    channels: Channels | None = None,
    key: str | None = None,
    row: int | None = None,
    value_range: tuple[float, float] | None = None,
    orientation: str | None = None,
    gaps: bool = False,
) -> tuple[Tensor, AffineMap, Geometry]:
    """Read one picture, volume, clip or array.

    Args:
        path: a picture, .nii, .gif, .npy, .npz, one DICOM file, a folder of one DICOM series, or a folder of frames.
        size, fit, channels, value_range, orientation: as in `open_dataset`.
        key: the array of a .npz.
        row: where the array has rows (n, ...), which one.
        gaps: whether some values may be NaN, and are left so; refused by default.

    Returns:
        The event in the file's units, (1, channels, *space) float32 (float64 for 64-bit values); the map to
        [-1, 1] that this file alone suggests (a run's own map goes before it); the geometry.

    Raises:
        InputError: names the file and the reason.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise InputError(f"{path}: there is no such file or folder")
    plan = _plan(size, fit, channels, orientation)
    return _planned(_decode(path, key, row, gaps), plan, value_range)


def read_events(
    path: Path | str,
    dims: int,
    *,
    wanted: int | None = None,
    key: str | None = None,
    most: int | None = None,
    gaps: bool = False,
    tokens: Sequence[str] = (),
    **options: Any,
) -> tuple[Tensor, AffineMap, Geometry]:
    """Read every event of a file: the rows of an array, or the one of anything else.

    An array of `dims` axes is one event, and of two axes more several with channels. With one axis more it is one
    event if an outer axis is as long as the channels that are wanted (more than one) or if it is a picture whose last
    axis is 3 or 4 long; else it is several.

    Args:
        path: see `read_event`.
        dims: spatial axes of an event.
        wanted: channels of an event, where they are known.
        key: the array of a .npz.
        most: of the rows of an array, no more than these.
        gaps: whether some values may be NaN, as of `read_event`.
        tokens: of sequences (music, molecules), those that a model knows; `size` is the length that it knows.
        options: `size`, `fit`, `channels`, `value_range` of `read_event`.

    Returns:
        (n, channels, *space), the map and the geometry, as of `read_event`.

    Raises:
        InputError: names the file and the reason.
    """
    path = Path(path).expanduser()
    if path.is_file() and (kind_of(path.name) == "music" or is_molecules(path, key)):
        from oneprior.data.open import open_dataset

        data = open_dataset(path, key=key, tokens=tokens, size=options.get("size"), cache=False)
        x = data.batch(torch.arange(min(len(data), most or len(data)))).x
        return data.units.to_units(x), data.units, data.geometry
    if not (path.is_file() and (path.suffix.lower() == ".npy" or is_npz(path))):
        return read_event(path, key=key, gaps=gaps, **options)
    values = guarded(str(path), lambda: Decoded(_values(path, key), Geometry()), gaps).event
    colours = dims == 2 and values.ndim == 3 and values.shape[-1] in (3, 4) and min(values.shape[:-1]) > 4
    channels = values.ndim == dims + 1 and wanted != 1 and wanted in (values.shape[0], values.shape[-1])
    several = values.ndim > dims and not colours and not channels
    if values.ndim == dims + several:  # no channels: few pixels along an axis are not to be taken for them
        values, several = values[:, None] if several else values[None, None], True
    rows = range(min(len(values), most or len(values))) if several else (None,)
    value_range, plan = options.pop("value_range", None), _plan(**options)
    read = [_planned(_row(path, values, row), plan, value_range) for row in rows]
    if not read:
        raise InputError(f"{path}: an array of no events, of shape {values.shape}")
    events, units, geometry = torch.cat([event for event, _, _ in read]), read[0][1], read[0][2]
    low, high = _ends(events.numpy())
    if len(read) > 1 and high > low:  # of several, the range is a set's
        units = map_for(np.dtype(geometry.dtype), low, high, given=value_range, unit=units.unit)
    return events, units, geometry


def _plan(
    size: Size | str | None = None,
    fit: Fit = "resize",
    channels: Channels | None = None,
    orientation: str | None = None,
) -> Plan:
    return Plan(parse_size(size), fit, channels, None, orientation)


def _planned(
    decoded: Decoded, plan: Plan, value_range: tuple[float, float] | None = None
) -> tuple[Tensor, AffineMap, Geometry]:
    events, geometry = plan.apply(decoded)
    low, high = _ends(decoded.event)
    if decoded.event.dtype.kind == "u":  # one picture does not show how many bits its kind has: the type's range
        high = float(np.iinfo(decoded.event.dtype).max)
    units = map_for(
        decoded.event.dtype,
        low,
        high if high > low else low + 1,  # one constant picture says nothing of its range
        declared=decoded.declared,
        given=value_range,
        unit=decoded.unit,
    )
    wide = np.float64 if events.dtype.itemsize > 4 else np.float32
    return torch.from_numpy(np.ascontiguousarray(events, dtype=wide)), units, geometry


def _ends(values: np.ndarray) -> tuple[float, float]:
    """The least and the greatest value, gaps left out; 0 where there is nothing else."""
    some = values[~np.isnan(values)] if values.dtype.kind == "f" and np.isnan(values).any() else values
    return (float(some.min()), float(some.max())) if some.size else (0.0, 0.0)


def _decode(path: Path, key: str | None, row: int | None, gaps: bool = False) -> Decoded:
    if path.is_file() and (path.suffix.lower() == ".npy" or is_npz(path)):
        return guarded(str(path), lambda: _row(path, _values(path, key), row), gaps)
    if path.is_dir():
        reader = _folder(FolderFiles.scan(path), path)
    else:
        files = FolderFiles.single(path)
        kind = kind_of(path.name)
        if kind == "music":
            raise InputError(f"{path}: a piece of music is several events; this takes one picture, volume or array")
        if kind is None and not is_dicom(files.read(0)):
            raise InputError(f"{path}: not a picture, volume, clip or array that can be read")
        reader = SeriesReader(files) if kind is None else FileReader(files, kind)
    if len(reader) != 1:
        raise InputError(f"{path}: holds {len(reader)} events ({', '.join(reader.names[:3])}, ...); give one of them")
    return reader.read(0, gaps)


def _folder(files: Files, path: Path) -> Reader:
    if not len(files):
        raise InputError(f"{path}: an empty folder")
    kinds = {kind_of(name) for name in files.names}
    if kinds == {"pictures"}:
        return FramesReader(files)
    if None in kinds and is_dicom(files.read(0)):
        return SeriesReader(files)
    raise InputError(f"{path}: a folder is read as one event if it holds one DICOM series or the frames of one clip")


def _values(path: Path, key: str | None) -> np.ndarray:
    if path.suffix.lower() == ".npy":
        return np.load(path, allow_pickle=False)
    return _member(path, read_arrays(path), key)


def _row(path: Path, values: np.ndarray, row: int | None) -> Decoded:
    if row is not None:
        if not -len(values) <= row < len(values):
            raise InputError(f"{path}: row {row} was asked of {len(values)}")
        values = values[row]
    elif values.ndim in (4, 5) and len(values) == 1:
        values = values[0]
    if row is None and values.ndim == 4 and len(values) > 4 and min(values.shape[1], values.shape[-1]) <= 4:
        raise InputError(
            f"{path}: holds {len(values)} events {values.shape[1:]}; say which with row=..., or save that one to a "
            "file of its own"
        )
    layout = event_layout(values.shape, str(path))
    event = np.moveaxis(values, layout.index("c"), 0) if "c" in layout else values[None]
    event = np.ascontiguousarray(event).astype(event.dtype.newbyteorder("="), copy=False)
    return Decoded(event, Geometry(event.dtype.name, format="npy"))


def _member(path: Path, arrays: Mapping[str, np.ndarray], key: str | None) -> np.ndarray:
    if key is None:
        big = [k for k, v in arrays.items() if v.ndim >= 2 and v.dtype.kind in "biuf"]
        named = [k for k in big if k in ("x", "y", "image", "data")]
        key = big[0] if len(big) == 1 else named[0] if len(named) == 1 else None
    if key is None or key not in arrays:
        shown = ", ".join(f"{k} {v.shape}" for k, v in arrays.items())
        raise InputError(f"{path}: which array is the event? key= one of {shown}")
    return arrays[key]

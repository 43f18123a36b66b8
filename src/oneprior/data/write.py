"""Events to files, in the user's own units, type and geometry: what came as a 16-bit film leaves as one.

| path | written |
|---|---|
| .npz, .npy | all events, (n, channels, *space), in units and stored type; key "x" |
| .png .jpg .tif | one picture, or a sheet of them; slices of volumes through the middle |
| .nii .nii.gz | one volume, or several along the fourth axis |
| .smi, .smiles | molecules, one to a line |
| .mid | music, one event after the other |
| .gif | clips side by side, or pictures one after the other; 8 bits, to look at |
| a folder (no suffix) | one file each |

In a folder, pictures are PNG (8 and 16 bits) or TIFF (other types, or where they came from TIFF), volumes .nii.gz,
clips folders of frames, molecules .smi, music .mid, signals .npy.

Everything is written under another name and renamed when it is whole.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from oneprior.core import AffineMap, Geometry, InputError, ShapeError, replacing
from oneprior.data.clips import encode_gif
from oneprior.data.midi import FORMAT as MIDI
from oneprior.data.midi import SUFFIXES as MUSIC
from oneprior.data.midi import encode_midi
from oneprior.data.molecules import FORMAT as SELFIES
from oneprior.data.molecules import as_smiles
from oneprior.data.npz import write_arrays
from oneprior.data.pictures import encode_picture
from oneprior.data.volumes import VOLUMES, encode_nifti

MOLECULES = (".smi", ".smiles")
_SHEETS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")


def write_events(
    x: Tensor,
    path: Path | str,
    units: AffineMap = AffineMap(),
    geometry: Geometry = Geometry(),
    *,
    names: Sequence[str] | None = None,
    columns: int | None = None,
) -> list[Path]:
    """Write events by the suffix of the path; see the table above.

    Args:
        x: (n, channels, *space), in [-1, 1].
        path: a file, or a folder.
        units: from [-1, 1] to the user's units.
        geometry: type, spacing and affine of what is written. Integers are rounded and kept in the type's range.
        names: of the files in a folder (a suffix is replaced); numbers by default.
        columns: of a sheet of pictures; about as many as its rows by default.

    Returns:
        The files that were written.

    Raises:
        InputError: for a suffix that is not known, or cannot hold such events.
    """
    path = Path(path).expanduser()
    name, x = path.name.lower(), x.detach().cpu()
    if x.dim() < 3 or not len(x):
        raise ShapeError("events to write", x.shape, "(n, channels, *space)")
    space = x.dim() - 2
    if not path.suffix or path.is_dir():
        return _write_folder(x, path, units, geometry, names)
    if name.endswith((".npz", ".npy")):
        values = in_units(x, units, geometry)
        if name.endswith(".npz"):
            write_arrays(path, x=values)
        else:
            with replacing(path) as temporary, open(temporary, "wb") as file:
                np.save(file, values, allow_pickle=False)
    elif name.endswith(VOLUMES):
        if space == 1:
            raise InputError(f"{path}: signals are not volumes; write .npz")
        with replacing(path) as temporary:
            encode_nifti(in_units(x, units, geometry), temporary, geometry)
    elif name.endswith(MOLECULES):
        _write_molecules(x, path, geometry)
    elif name.endswith(MUSIC):
        _write_music(x, path, geometry)
    elif name.endswith(".gif"):
        with replacing(path) as temporary:
            encode_gif(_moving(x), temporary)
    elif name.endswith(_SHEETS):
        with replacing(path) as temporary:
            encode_picture(_sheet(x, units, geometry, path.suffix.lower(), columns), temporary)
    else:
        raise InputError(
            f"{path}: {path.suffix} is not known; write .npz, .npy, .png, .tif, .nii.gz, .gif, .smi, .mid or a folder"
        )
    return [path]


def in_units(x: Tensor, units: AffineMap, geometry: Geometry) -> np.ndarray:
    """x in [-1, 1] -> values in the user's units and the type that they were stored in."""
    dtype = np.dtype(geometry.dtype or "float32")
    values = units.to_units(x.detach().cpu().double()).numpy()
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return np.clip(np.rint(np.nan_to_num(values)), limits.min, limits.max).astype(dtype)
    return values > 0.5 if dtype.kind == "b" else values.astype(dtype)


def tile(x: Tensor, columns: int | None = None, padding: int = 1, value: float = 1.0) -> Tensor:
    """Pictures side by side on one sheet.

    Args:
        x: (n, channels, height, width).
        columns: in a row; about as many as rows by default.
        padding: samples between them.
        value: of the padding.

    Returns:
        (channels, rows * (height + padding) - padding, columns * (width + padding) - padding); x itself for n = 1.
    """
    n, c, h, w = x.shape
    columns = min(n, columns or math.ceil(math.sqrt(n)))
    lines = math.ceil(n / columns)
    sheet = x.new_full((lines * columns, c, h + padding, w + padding), value)
    sheet[:n, :, :h, :w] = x
    sheet = sheet.reshape(lines, columns, c, h + padding, w + padding).permute(2, 0, 3, 1, 4)
    sheet = sheet.reshape(c, lines * (h + padding), columns * (w + padding))
    return sheet[:, : sheet.shape[1] - padding, : sheet.shape[2] - padding]


def _sheet(x: Tensor, units: AffineMap, geometry: Geometry, suffix: str, columns: int | None = None) -> np.ndarray:
    """One picture in units, or a sheet of many; of a volume or a clip, its middle slice or frame."""
    if x.dim() == 5:
        x = x[:, :, x.shape[2] // 2]
    if x.dim() == 3:
        own = {SELFIES: ("molecules", ".smi"), MIDI: ("music", ".mid")}.get(geometry.format)
        what, remedy = own or ("signals", ".npz")
        raise InputError(f"{what} cannot be written as pictures; write {remedy} or a folder")
    dtype, deep = geometry.dtype, suffix in (".tif", ".tiff")
    if x.shape[1] not in (1, 3):
        n, channels, *space = x.shape
        x = x.reshape(n * channels, 1, *space)
        columns = columns and columns * channels
    sheet = tile(x, columns)
    fits = deep or dtype in ("uint8", "bool") or (dtype == "uint16" and suffix == ".png")
    return in_units(sheet, units, geometry) if fits else _grey_levels(sheet)


def _grey_levels(x: Tensor) -> np.ndarray:
    """[-1, 1] -> 0 .. 255, to look at."""
    return ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).numpy()


def _moving(x: Tensor) -> np.ndarray:
    """(n, c, time, h, w), clips side by side, or (n, c, h, w), one picture after the other -> (1 | 3, time, h, w)."""
    if x.dim() not in (4, 5) or x.shape[1] not in (1, 3):
        raise InputError(f"events of shape {tuple(x.shape[1:])} are no clips of one channel or three; write .npz")
    if x.dim() == 4:
        return _grey_levels(x.transpose(0, 1))
    n, c, t, h, w = x.shape
    frames = tile(x.permute(0, 2, 1, 3, 4).reshape(n, t * c, h, w))
    return _grey_levels(frames.reshape(t, c, *frames.shape[1:]).transpose(0, 1))


def _write_folder(
    x: Tensor, folder: Path, units: AffineMap, geometry: Geometry, names: Sequence[str] | None
) -> list[Path]:
    if names is not None and len(names) != len(x):
        raise InputError(f"{folder}: {len(names)} names for {len(x)} events")
    stems = [f"{i:06d}" for i in range(len(x))] if names is None else [_stem(name) for name in names]
    if len(set(stems)) < len(stems):
        stems = [f"{i:06d}_{stem}" for i, stem in enumerate(stems)]
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    if geometry.format in _SEQUENCES:
        suffix, write = _SEQUENCES[geometry.format]
        return [write(event[None], folder / f"{stem}{suffix}", geometry) for event, stem in zip(x, stems, strict=True)]
    for event, stem in zip(x, stems, strict=True):
        written += _write_one(in_units(event, units, geometry), folder / stem, geometry)
    return written


def _write_molecules(x: Tensor, path: Path, geometry: Geometry) -> Path:
    """SMILES, one to a line."""
    if geometry.format != SELFIES:
        raise InputError(f"{path}: these events are no molecules; write .npz")
    with replacing(path) as temporary:
        temporary.write_text("\n".join(as_smiles(x, geometry.tokens)) + "\n", encoding="utf-8")
    return path


def _write_music(x: Tensor, path: Path, geometry: Geometry) -> Path:
    """One piece, an event after the other."""
    if geometry.format != MIDI:
        raise InputError(f"{path}: these events are no music; write .npz")
    with replacing(path) as temporary:
        encode_midi(x, temporary, geometry)
    return path


_SEQUENCES = {SELFIES: (".smi", _write_molecules), MIDI: (".mid", _write_music)}


def _write_one(event: np.ndarray, stem: Path, geometry: Geometry) -> list[Path]:
    """One event, (channels, *space) in units, to the kind of file that holds it best."""
    if event.ndim == 4 and geometry.format == "clip":
        frames = range(event.shape[1])
        still = replace(geometry, format="")
        return [p for t in frames for p in _write_one(event[:, t], stem / f"frame_{t:04d}", still)]
    if event.ndim == 4:
        path = stem.with_name(f"{stem.name}.nii.gz")
        with replacing(path) as temporary:
            encode_nifti(event[None], temporary, geometry)
    elif event.ndim == 3 and len(event) in (1, 3):
        simple = event.dtype in (np.uint8, np.bool_) or (event.dtype == np.uint16 and len(event) == 1)
        path = stem.with_name(f"{stem.name}.{'png' if simple and geometry.format != 'tiff' else 'tif'}")
        with replacing(path) as temporary:
            encode_picture(event, temporary)
    else:
        path = stem.with_name(f"{stem.name}.npy")
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.save(file, event, allow_pickle=False)
    return [path]


def _stem(name: str) -> str:
    """A file name from a data set's, which may hold folders and a suffix."""
    base = re.sub(r"\.(nii\.gz|[A-Za-z0-9]{1,5})$", "", name.rstrip("/"))
    return re.sub(r"[^\w.\-]+", "_", base).strip("._") or "event"

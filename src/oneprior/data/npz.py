"""Named arrays in a .npz: read and written whole, without pickle, the heads without the values."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np
from torch import Tensor

from oneprior.core import InputError, replacing


def write_arrays(path: Path | str, /, **arrays: np.ndarray | Tensor | float | int | str) -> Path:
    """Named arrays, numbers and strings to a .npz, compressed, whole or not at all; nothing is pickled."""
    path = Path(path).expanduser()
    plain = {k: np.asarray(v.detach().cpu() if isinstance(v, Tensor) else v) for k, v in arrays.items()}
    for key, value in plain.items():
        if value.dtype.hasobject:
            raise InputError(f"{path}: {key!r} is {type(arrays[key]).__name__}, which would need pickle; give an array")
    with (
        replacing(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=4) as archive,
    ):
        for key, value in plain.items():
            with archive.open(f"{key}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, value, allow_pickle=False)
    return path


def read_arrays(path: Path | str) -> dict[str, np.ndarray]:
    """All arrays of a .npz; refuses pickled ones.

    Raises:
        InputError: for a file that is missing, damaged, or holds Python objects.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise InputError(f"{path}: there is no such file")
    objects = [name for name, (_, dtype) in npz_members(path).items() if dtype.hasobject]
    if objects:
        raise InputError(f"{path}: {', '.join(objects)} hold Python objects (pickle), which are never loaded")
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path}: not a .npz that can be read ({error})") from error


def npz_members(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Shape and type of each array of a .npz, from the heads of its members."""
    out = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if info.filename.endswith(".npy"):
                    with archive.open(info) as member:
                        shape, _, dtype = read_npy_header(member)
                    out[info.filename[:-4]] = (shape, dtype)
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, OSError) as error:
        raise InputError(f"{path}: not a .npz that can be read ({error}); it may be cut short") from error
    return out


def is_npz(path: Path) -> bool:
    """Whether a file is a zip of .npy members and nothing else."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return path.suffix.lower() == ".npz"
    return path.suffix.lower() == ".npz" or (bool(names) and all(n.endswith(".npy") and "/" not in n for n in names))


def read_npy_header(file) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, Fortran order and type from the head of a .npy stream; leaves it at the first value."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    return np.lib.format.read_array_header_2_0(file)

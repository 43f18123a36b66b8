"""k-space files in the layout of fastMRI (Zbontar et al. 2018; Knoll et al. 2020): one HDF5 file a scan.

    kspace                                  (slices, [coils,] rows, columns) complex: readout along rows, phase
                                            encoding along columns, zero frequency at entry n // 2
    mask                                    (columns,), which were measured; test files have it
    reconstruction_rss, reconstruction_esc  (slices, rows, columns), the scanner's picture; files for training have it
    attributes acquisition, max, norm; ismrmrd_header, an XML text, from which the size of the picture is taken

Transforms are orthonormal, as in `operators.fourier`, and the picture is the middle of what they give. Columns that
were not measured hold zeros, which tells them where there is no mask.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from oneprior.core import InputError
from oneprior.data.decoded import BadFileError

_TARGETS = ("reconstruction_rss", "reconstruction_esc")
_SIGNATURE = b"\x89HDF\r\n\x1a\n"


@dataclass(frozen=True)
class KSpace:
    """Some slices of a scan.

    Args:
        kspace: (slices, coils, rows, columns) complex64; not measured columns are zero.
        mask: bool, (columns,): which columns were measured.
        target: the scanner's picture, (slices, rows, columns), or None.
        recon: (rows, columns) of the scanner's picture, or None where the file does not say.
        slices: the numbers of the slices in the file.
        name: of the file.
        multicoil: whether the file has an axis of coils.
        attributes: of the file: acquisition, max, norm, patient_id.
    """

    kspace: np.ndarray
    mask: np.ndarray
    target: np.ndarray | None = None
    recon: tuple[int, int] | None = None
    slices: tuple[int, ...] = ()
    name: str = ""
    multicoil: bool = False
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def full(self) -> bool:
        """Whether every column was measured."""
        return bool(self.mask.all())


def is_hdf5(data: bytes) -> bool:
    """Whether the bytes begin as an HDF5 file does."""
    return data.startswith(_SIGNATURE)


def count_slices(path: str | Path) -> int:
    """How many slices a k-space file has.

    Raises:
        BadFileError: as `read_kspace`.
    """
    with _Opened(path) as file:
        return file.shape[0]


def read_kspace(path: str | Path, slices: int | Sequence[int] | None = None) -> KSpace:
    """Read some slices of a k-space file.

    Args:
        path: of an HDF5 file in the layout of fastMRI.
        slices: their numbers from 0; negative ones count from the end; all by default.

    Raises:
        InputError: for slices that are not there.
        BadFileError: where the file is missing, damaged, or something else.
    """
    with _Opened(path) as file:
        n = file.shape[0]
        asked = range(n) if slices is None else [int(slices)] if isinstance(slices, int | np.integer) else list(slices)
        beyond = [i for i in asked if not -n <= i < n]
        if beyond or not len(asked):
            raise InputError(f"{path} has the slices 0 to {n - 1}; asked for {beyond[0] if beyond else 'none'}")
        numbers = tuple(i % n for i in asked)
        values = file.take("kspace", numbers)
        multicoil = values.ndim == 4
        values = values if multicoil else values[:, None]
        if not np.isfinite(values).all():
            raise BadFileError(str(path), "its k-space holds NaN or infinite values")
        mask = file.mask(values)
        target = next((file.take(name, numbers) for name in _TARGETS if name in file), None)
        recon = tuple(target.shape[-2:]) if target is not None else file.recon()
        return KSpace(
            np.where(mask, values, 0).astype(np.complex64),
            mask,
            None if target is None else target.astype(np.float32),
            recon,  # type: ignore[arg-type]
            numbers,
            Path(path).name,
            multicoil,
            file.attributes(),
        )


def write_kspace(
    path: str | Path,
    kspace: np.ndarray,
    *,
    mask: np.ndarray | None = None,
    target: np.ndarray | None = None,
    attributes: dict[str, Any] | None = None,
) -> Path:
    """Write a file in the layout that `read_kspace` reads: phantoms, and data of other scanners.

    Args:
        path: of the file.
        kspace: (slices, [coils,] rows, columns) complex, zero frequency at entry n // 2.
        mask: (columns,), which were measured.
        target: the picture, (slices, rows, columns).
        attributes: acquisition, max, norm ...
    """
    import h5py

    from oneprior.core import replacing

    path, kspace = Path(path), np.asarray(kspace)
    if kspace.ndim not in (3, 4) or not np.iscomplexobj(kspace):
        raise InputError(f"k-space is complex, (slices, [coils,] rows, columns); got {kspace.dtype} {kspace.shape}")
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        file["kspace"] = kspace.astype(np.complex64)
        if mask is not None:
            file["mask"] = np.asarray(mask).astype(np.float32)
        if target is not None:
            file[_TARGETS[0] if kspace.ndim == 4 else _TARGETS[1]] = np.asarray(target, dtype=np.float32)
        file.attrs.update(attributes or {})
    return path


class _Opened:
    """A k-space file, open; every way of being damaged is told as a `BadFileError`."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()

    def __enter__(self) -> _Opened:
        import h5py

        if not self.path.is_file():
            raise InputError(f"k-space file {str(self.path)!r} does not exist")
        try:
            self._file = h5py.File(self.path, "r")
        except OSError as error:
            with self.path.open("rb") as file:
                whole = is_hdf5(file.read(8))
            what = (
                f"truncated or damaged ({_short(error)})" if whole else "not an HDF5 file (k-space of fastMRI is one)"
            )
            raise BadFileError(str(self.path), what) from None
        try:
            found = self._file.get("kspace")
            if not isinstance(found, h5py.Dataset):
                names = ", ".join(self._file) or "nothing"
                raise BadFileError(str(self.path), f"it has no 'kspace'; it holds {names}")
            self.shape = found.shape
            if found.ndim not in (3, 4) or found.dtype.kind != "c" or not all(found.shape):
                raise BadFileError(
                    str(self.path),
                    f"its kspace is {found.dtype} {found.shape}; complex (slices, [coils,] rows, columns) is needed",
                )
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __contains__(self, name: str) -> bool:
        return name in self._file

    def take(self, name: str, numbers: Sequence[int]) -> np.ndarray:
        """Some slices of a data set."""
        try:
            data: Any = self._file[name]
            if data.shape[0] != self.shape[0]:
                raise BadFileError(str(self.path), f"{name} has {data.shape[0]} slices and kspace {self.shape[0]}")
            return np.stack([data[i] for i in numbers])
        except (OSError, KeyError, ValueError) as error:
            if isinstance(error, BadFileError):
                raise
            raise BadFileError(str(self.path), f"{name} cannot be read: {_short(error)}") from None

    def mask(self, values: np.ndarray) -> np.ndarray:
        """Which columns were measured: the file's mask, and those that hold something."""
        there = np.abs(values).max(axis=(0, 1, 2)) > 0
        if "mask" in self._file:
            try:
                given = np.asarray(self._file["mask"]).squeeze()
            except OSError as error:
                raise BadFileError(str(self.path), f"mask cannot be read: {_short(error)}") from None
            if given.shape != there.shape:
                raise BadFileError(str(self.path), f"its mask has shape {given.shape} for {len(there)} columns")
            there = there & (given != 0)
        if not there.any():
            raise BadFileError(str(self.path), "its k-space is zero everywhere")
        return there

    def recon(self) -> tuple[int, int] | None:
        """The size of the picture that the header speaks of, (rows, columns): readout first."""
        try:
            header: Any = self._file["ismrmrd_header"]
            text = header[()]
        except (KeyError, OSError, ValueError, TypeError):
            return None
        text = text.decode(errors="replace") if isinstance(text, bytes) else str(text)
        space = re.search(r"<reconSpace>.*?<matrixSize>.*?<x>(\d+)</x>.*?<y>(\d+)</y>", text, re.DOTALL)
        return (int(space[1]), int(space[2])) if space else None

    def attributes(self) -> dict[str, Any]:
        """What the file says of itself, as plain numbers and texts."""
        plain = {}
        for name, value in self._file.attrs.items():
            value = value.item() if isinstance(value, np.generic) else value
            plain[name] = value.decode(errors="replace") if isinstance(value, bytes) else value
        return plain


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__

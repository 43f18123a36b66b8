"""Many files as one compact table: a folder or a zip, listed once and read by number.

A set of 200,000 pictures must not cost 200,000 Python objects. Names lie in one block of bytes with an array of ends,
sizes and times in arrays; a zip's directory becomes three arrays, and its members are read with `os.pread`, so that
threads share one file without a lock.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import struct
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Self

import numpy as np

from oneprior.core import InputError
from oneprior.data.decoded import BadFileError


class Names(Sequence[str]):
    """Strings in one block of UTF-8 bytes; a string is made when it is asked for."""

    def __init__(self, blob: bytes, ends: np.ndarray) -> None:
        self.blob, self.ends = blob, ends

    @classmethod
    def of(cls, names: Iterable[str]) -> Self:
        coded = [name.encode("utf-8", "surrogateescape") for name in names]
        return cls(b"".join(coded), np.cumsum([len(c) for c in coded], dtype=np.int64))

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, i):
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        i = range(len(self))[i]
        start = int(self.ends[i - 1]) if i else 0
        return self.blob[start : int(self.ends[i])].decode("utf-8", "surrogateescape")


class Numbered(Sequence[str]):
    """'file[0]', 'file[1]', ...: the names of the rows of one array."""

    def __init__(self, prefix: str, length: int) -> None:
        self.prefix, self.length = prefix, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i):
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(self.length))]
        return f"{self.prefix}[{range(self.length)[i]}]"


class Taken(Sequence[str]):
    """Some of a sequence of names, by number, in that order, without copying them."""

    def __init__(self, names: Sequence[str], order: np.ndarray) -> None:
        self.names, self.order = names, order

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, i):
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        return self.names[int(self.order[i])]


class Files(ABC):
    """Files below one root, in natural order ("slice2" before "slice10").

    Attributes:
        root: the folder or the zip.
        names: paths relative to the root, with forward slashes.
        sizes: bytes of each.
        stamps: a number that changes when the file changes (time of change, or checksum).
    """

    root: Path
    names: Sequence[str]
    sizes: np.ndarray
    stamps: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    def where(self, i: int) -> str:
        """File i as an error message should name it."""
        return f"{self.root}/{self.names[i]}"

    @abstractmethod
    def read(self, i: int) -> bytes:
        """The content of file i; raises `BadFileError`."""

    @abstractmethod
    def take(self, index: np.ndarray) -> Files:
        """Some of the files."""

    def filter(self, keep: Callable[[str], bool]) -> Files:
        """The files whose name passes."""
        return self.take(np.asarray([i for i, name in enumerate(self.names) if keep(name)], dtype=np.int64))

    def digest(self) -> str:
        """A hash of names, sizes and stamps."""
        state = hashlib.blake2b(digest_size=12)
        for name in self.names:
            state.update(name.encode("utf-8", "surrogateescape") + b"\0")
        state.update(np.ascontiguousarray(self.sizes).tobytes())
        state.update(np.ascontiguousarray(self.stamps).tobytes())
        return state.hexdigest()


class FolderFiles(Files):
    """The files in a folder and its sub-folders; hidden ones are left out."""

    def __init__(self, root: Path, names: Sequence[str], sizes: np.ndarray, stamps: np.ndarray) -> None:
        self.root, self.names, self.sizes, self.stamps = root, names, sizes, stamps

    @classmethod
    def scan(cls, root: Path) -> Self:
        found: list[tuple[str, int, int]] = []
        folders, visited = [""], {(root.stat().st_dev, root.stat().st_ino)}
        while folders:
            prefix = folders.pop()
            try:
                entries = list(os.scandir(root / prefix))
            except OSError as error:
                raise InputError(f"{root / prefix}: cannot be listed ({error.strerror})") from error
            for entry in entries:
                if entry.name.startswith(".") or entry.name == "__MACOSX":
                    continue
                name = f"{prefix}{entry.name}"
                try:
                    status = entry.stat()
                except OSError as error:  # a link that leads nowhere, or in a circle
                    raise InputError(f"{root / name}: {error.strerror}") from error
                if stat.S_ISDIR(status.st_mode):
                    if (place := (status.st_dev, status.st_ino)) in visited:
                        raise InputError(f"{root / name}: a link to a folder that is read already; remove it")
                    visited.add(place)
                    folders.append(f"{name}/")
                elif stat.S_ISREG(status.st_mode):
                    found.append((name, status.st_size, status.st_mtime_ns))
        found.sort(key=lambda entry: natural(entry[0]))
        return cls(
            root,
            Names.of(name for name, _, _ in found),
            np.asarray([size for _, size, _ in found], dtype=np.int64),
            np.asarray([stamp for _, _, stamp in found], dtype=np.int64),
        )

    @classmethod
    def single(cls, path: Path) -> Self:
        """A table of one file."""
        status = path.stat()
        return cls(path.parent, [path.name], np.asarray([status.st_size]), np.asarray([status.st_mtime_ns]))

    def read(self, i: int) -> bytes:
        try:
            return (self.root / self.names[i]).read_bytes()
        except OSError as error:
            raise BadFileError(self.where(i), error.strerror or str(error)) from error

    def take(self, index: np.ndarray) -> FolderFiles:
        names = Names.of(self.names[int(i)] for i in index)
        return FolderFiles(self.root, names, self.sizes[index], self.stamps[index])


class ZipFiles(Files):
    """The members of a zip, stored or deflated."""

    def __init__(self, root: Path, names: Sequence[str], table: np.ndarray, descriptor: _Descriptor) -> None:
        self.root, self.names, self._table, self._descriptor = root, names, table, descriptor
        self.sizes, self.stamps = table[:, 2], table[:, 4]

    @classmethod
    def scan(cls, root: Path) -> Self:
        try:
            with zipfile.ZipFile(root) as archive:
                infos = [info for info in archive.infolist() if not info.is_dir() and not _hidden(info.filename)]
        except (zipfile.BadZipFile, OSError) as error:
            raise InputError(f"{root}: the zip cannot be read ({error}); it may be cut short") from error
        if any(info.flag_bits & 1 for info in infos):
            raise InputError(f"{root}: the zip is encrypted; unpack it first")
        infos.sort(key=lambda info: natural(info.filename))
        table = np.asarray(
            [(i.header_offset, i.compress_size, i.file_size, i.compress_type, i.CRC) for i in infos], dtype=np.int64
        ).reshape(-1, 5)
        return cls(root, Names.of(info.filename for info in infos), table, _Descriptor(root))

    def read(self, i: int) -> bytes:
        offset, packed, size, method, crc = (int(v) for v in self._table[i])
        handle = self._descriptor.number
        header = os.pread(handle, 30, offset)
        if len(header) < 30 or header[:4] != b"PK\x03\x04":
            raise BadFileError(self.where(i), "the zip's entry is damaged")
        name, extra = struct.unpack("<HH", header[26:30])
        data = os.pread(handle, packed, offset + 30 + name + extra)
        if method == zipfile.ZIP_DEFLATED:
            try:
                data = zlib.decompress(data, -15, bufsize=max(size, 1))
            except zlib.error as error:
                raise BadFileError(self.where(i), f"the zip's entry is damaged ({error})") from error
        elif method != zipfile.ZIP_STORED:
            raise BadFileError(self.where(i), "packed by a method other than deflate; unpack the zip first")
        if len(data) != size or zlib.crc32(data) != crc:
            raise BadFileError(self.where(i), "the zip's entry is damaged (wrong checksum)")
        return data

    def take(self, index: np.ndarray) -> ZipFiles:
        return ZipFiles(self.root, Names.of(self.names[int(i)] for i in index), self._table[index], self._descriptor)


class _Descriptor:
    """An open file, closed with its last owner."""

    def __init__(self, path: Path) -> None:
        self.number = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        os.close(self.number)


def natural(name: str) -> str:
    """The sort key by which "frame2" comes before "frame10": numbers are padded with zeros."""
    return re.sub(r"[0-9]+", lambda number: number[0].zfill(12), name)


def _hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))

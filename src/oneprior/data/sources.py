"""Where rows come from: an array, mapped or in memory, or files that are decoded when they are asked for.

Mapped pages that were read count as resident memory of the process until the kernel wants them back, so a pass over a
large set looks like a leak, and a container with a memory limit treats it as one. `MappedArray` therefore counts what
it has touched and gives the pages back (`MADV_DONTNEED`; they stay in the kernel's own cache), which keeps the
resident size flat however large the set is, at no measurable cost.
"""

from __future__ import annotations

import mmap
import os
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import numpy as np

from oneprior.core import InputError
from oneprior.data.decoded import Reader
from oneprior.data.npz import read_npy_header
from oneprior.data.plan import Plan

_RESIDENT = 64 << 20  # bytes of mapped pages that are kept
_FAULT = 64 << 10  # bytes that Linux maps around one fault
WORKERS = max(1, min(8, os.cpu_count() or 1))


class Source(ABC):
    """Rows by number, in the user's units.

    Attributes:
        event_shape: (channels, *space) of one row.
        dtype: of the values.
    """

    event_shape: tuple[int, ...]
    dtype: np.dtype

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def fetch(self, index: np.ndarray) -> np.ndarray:
        """Rows (n,) -> (n, channels, *space), a copy or a view, never to be written to."""


class MappedArray:
    """An array in a file, read through a memory map whose resident part stays bounded.

    Args:
        path: the file.
        dtype, shape: of the array; may be in foreign byte order.
        offset: bytes before the first value.
        fortran: whether the first axis runs fastest.
    """

    def __init__(
        self, path: Path, dtype: np.dtype, shape: tuple[int, ...], offset: int = 0, fortran: bool = False
    ) -> None:
        needed = offset + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        size = path.stat().st_size
        if size < needed:
            raise InputError(f"{path}: cut short; {size} bytes, needed are {needed} for {shape} {dtype}")
        self.path = path
        with open(path, "rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else None
        flat = np.frombuffer(self._map or b"", dtype, count=int(np.prod(shape, dtype=np.int64)), offset=offset)
        self.array = flat.reshape(shape, order="F" if fortran else "C")
        self._touched = 0
        self._lock = threading.Lock()

    @classmethod
    def npy(cls, path: Path) -> Self:
        """Map a .npy file."""
        try:
            with open(path, "rb") as file:
                shape, fortran, dtype = read_npy_header(file)
                offset = file.tell()
        except (ValueError, OSError) as error:
            raise InputError(f"{path}: not a .npy file that can be read ({error})") from error
        if dtype.hasobject:
            raise InputError(f"{path}: holds Python objects (pickle), which are never loaded; save it as plain numbers")
        return cls(path, dtype, shape, offset, fortran)

    def release(self, rows: int, row_bytes: int) -> None:
        """Note that `rows` rows were read, and give the pages back when they are many."""
        with self._lock:
            self._touched += rows * max(row_bytes, _FAULT)
            if self._touched < _RESIDENT:
                return
            self._touched = 0
        if sys.platform == "linux" and self._map is not None:
            self._map.madvise(mmap.MADV_DONTNEED)


class ArraySource(Source):
    """Rows along the first axis of an array, or slices of its volumes.

    Args:
        array: in memory or mapped.
        layout: one letter an axis: "n" rows (first), "c" channels, the others space, such as "nhwc" or "ndhw".
        slices: cut volumes along this spatial axis; row r is slice r mod k of volume r // k, where k is the length of
            the axis.
    """

    def __init__(self, array: np.ndarray | MappedArray, layout: str, slices: int | None = None) -> None:
        self._mapped = array if isinstance(array, MappedArray) else None
        self._array = array.array if isinstance(array, MappedArray) else array
        self._channel = layout.index("c") if "c" in layout else None
        space = [k for k in range(1, len(layout)) if k != self._channel]
        self._cut, self.slices = None, 1
        if slices is not None:
            if len(space) != 3 or not -3 <= slices < 3:
                raise InputError(f"slices={slices} needs volumes with three axes; these events have {len(space)}")
            self._cut = space.pop(slices % 3)
            self.slices = self._array.shape[self._cut]
        channels = 1 if self._channel is None else self._array.shape[self._channel]
        self.event_shape = (channels, *(self._array.shape[k] for k in space))
        self.dtype = self._array.dtype.newbyteorder("=")

    def __len__(self) -> int:
        return self._array.shape[0] * self.slices

    def fetch(self, index: np.ndarray) -> np.ndarray:
        where: list = [slice(None)] * self._array.ndim
        where[0] = index
        channel = self._channel
        if self._cut is not None:
            where[0], where[self._cut] = np.divmod(index, self.slices)
            if channel is not None and channel > self._cut:
                channel -= 1
        block = self._array[tuple(where)]
        if self._mapped is not None:
            self._mapped.release(len(index), block.nbytes // max(len(index), 1))
        return block[:, None] if channel is None else np.moveaxis(block, channel, 1)


class DecodedSource(Source):
    """Rows decoded from their files at every fetch, by a few threads: for sets too large to keep decoded.

    Args:
        reader: what decodes them.
        plan: how each comes to its size.
        items: which of the reader's things are in the set.
        rows: rows of each item (1, or the number of its slices).
        event_shape: (channels, *space) after the plan.
        dtype: of the values.
    """

    def __init__(
        self,
        reader: Reader,
        plan: Plan,
        items: np.ndarray,
        rows: np.ndarray,
        event_shape: tuple[int, ...],
        dtype: np.dtype,
    ) -> None:
        self._reader, self._plan, self._items = reader, plan, items
        self._ends = np.cumsum(rows)
        self.event_shape, self.dtype = event_shape, dtype
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="oneprior-decode")

    def __len__(self) -> int:
        return int(self._ends[-1])

    def fetch(self, index: np.ndarray) -> np.ndarray:
        item = np.searchsorted(self._ends, index, side="right")
        within = index - np.where(item > 0, self._ends[item - 1], 0)
        needed, place = np.unique(item, return_inverse=True)
        out = np.empty((len(index), *self.event_shape), self.dtype)

        def load(k: int) -> None:
            events, _ = self._plan.apply(self._reader.read(int(self._items[needed[k]])))
            rows = place == k
            out[rows] = events[within[rows]]

        for _ in self._pool.map(load, range(len(needed))):
            pass
        return out


def blocks(source: Source, size: int = 16 << 20) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """One pass in order: (row numbers, rows), about `size` bytes at a time."""
    step = max(1, size // max(1, int(np.prod(source.event_shape)) * source.dtype.itemsize))
    for start in range(0, len(source), step):
        index = np.arange(start, min(start + step, len(source)))
        yield index, source.fetch(index)

"""One pass over the files of a set before it is used: find what is broken, record the range, keep what was decoded.

The pass is the price of errors at the border (a file that cannot be read is found now, not at step 40,000) and of the
value range of the whole set. It is paid once: the decoded events go, in their stored type, into one mapped file in
the cache, from which training reads at the speed of memory; the result of the pass lies beside it. Sets that would
need more than `LIMIT` bytes decoded keep only the result, and their files are decoded again at every fetch.
"""

from __future__ import annotations

import json
import shutil
from array import array
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from oneprior.core import Geometry, InputError, ShapeError, replacing
from oneprior.data.decoded import BadFileError, Decoded, Reader
from oneprior.data.npz import read_arrays, write_arrays
from oneprior.data.plan import Plan
from oneprior.data.sources import WORKERS

LIMIT = 16 << 30
_CHUNK = 8  # small files decoded by one task of the pool
_SMALL = 1 << 20  # bytes of a decoded event; larger ones are decoded one by one, no more at once than there are threads


@dataclass(frozen=True)
class Survey:
    """What one pass found.

    Args:
        event_shape: (channels, *space) of every row.
        dtype: NumPy name of the values.
        low, high: smallest and largest value.
        typical: the median over files of largest less smallest value.
        widest: the file where it is largest.
        declared: the range that the files declare, or None.
        unit: the name of the unit.
        geometry: of the first row.
        items: numbers of the things that could be read, (m,).
        rows: rows of each of them, (m,).
        skipped: (file, reason) of the others.
    """

    event_shape: tuple[int, ...]
    dtype: str
    low: float
    high: float
    typical: float
    widest: str
    declared: tuple[float, float] | None
    unit: str
    geometry: Geometry
    items: np.ndarray
    rows: np.ndarray
    skipped: tuple[tuple[str, str], ...]

    def save(self, path: Path) -> None:
        """Write to a .npz without pickle."""
        arrays = {"items": self.items, "rows": self.rows}
        meta = {k: v for k, v in asdict(self).items() if k not in arrays}
        write_arrays(path, **arrays, meta=np.frombuffer(json.dumps(meta).encode(), np.uint8))

    @classmethod
    def load(cls, path: Path) -> Survey:
        """Read what `save` wrote."""
        arrays = read_arrays(path)
        meta = json.loads(arrays["meta"].tobytes())
        declared = meta["declared"]
        return cls(
            **{
                **meta,
                "event_shape": tuple(meta["event_shape"]),
                "declared": declared and (declared[0], declared[1]),
                "geometry": Geometry.from_dict(meta["geometry"]),
                "skipped": tuple((where, reason) for where, reason in meta["skipped"]),
            },
            items=arrays["items"],
            rows=arrays["rows"],
        )


class _MixedTypes(Exception):
    """Volumes of unlike types: the pass is made again in float32."""


@dataclass(frozen=True)
class _Rows:
    """One thing after the plan."""

    name: str
    events: np.ndarray
    geometry: Geometry
    decoded: Decoded


def survey(reader: Reader, plan: Plan, skip_bad: bool = False, data: Path | None = None) -> Survey:
    """Decode everything once.

    Args:
        reader: the things.
        plan: what is done to each.
        skip_bad: go on past files that cannot be read, and list them.
        data: where to keep the decoded rows, (rows, *event_shape) raw; not written where it would pass `LIMIT` bytes
            or half of the free disk.

    Raises:
        BadFileError: names the first file that cannot be read, and why.
        InputError: for mixed channels, sizes or bit depths, or where nothing could be read.
    """
    try:
        return _survey(reader, plan, skip_bad, data, None)
    except _MixedTypes:
        return _survey(reader, plan, skip_bad, data, np.dtype(np.float32))


def _survey(reader: Reader, plan: Plan, skip_bad: bool, data: Path | None, cast: np.dtype | None) -> Survey:
    first: _Rows | None = None
    items, rows, lows, highs = array("q"), array("q"), array("d"), array("d")
    skipped = list(reader.skipped)
    declared: set[tuple[float, float] | None] = set()
    with ExitStack() as stack:
        file: BinaryIO | None = None
        for i, here in _decoded(reader, plan, stack):
            if isinstance(here, BadFileError):
                if not skip_bad:
                    raise here
                skipped.append((here.where, here.reason))
                continue
            if first is None:
                first = here
                if data is not None and _fits(data, here.events.nbytes * len(reader)):
                    file = stack.enter_context(open(stack.enter_context(replacing(data)), "wb"))
            else:
                _check_alike(first, here)
                if cast is None and here.events.dtype != first.events.dtype:
                    if reader.converts:
                        raise _MixedTypes
                    raise InputError(
                        f"{first.name} is {first.events.dtype} and {here.name} is {here.events.dtype}: their grey "
                        "levels mean different things; bring them to one bit depth"
                    )
            events = here.events.astype(cast, copy=False) if cast else here.events
            if file is not None:
                file.write(np.ascontiguousarray(events).data)
            items.append(i)
            rows.append(len(events))
            lows.append(float(events.min()))
            highs.append(float(events.max()))
            declared.add(here.decoded.declared)
    if first is None:
        reasons = "; ".join(f"{where}: {reason}" for where, reason in skipped[:3])
        raise InputError(f"none of {len(skipped)} files could be read. {reasons}")
    widths = np.asarray(highs) - np.asarray(lows)
    known = [d for d in declared if d is not None]
    dtype = cast or first.events.dtype
    return Survey(
        event_shape=first.events.shape[1:],
        dtype=dtype.name,
        low=min(lows),
        high=max(highs),
        typical=float(np.median(widths)),
        widest=reader.names[items[int(widths.argmax())]],
        declared=(min(d[0] for d in known), max(d[1] for d in known)) if None not in declared else None,
        unit=first.decoded.unit,
        geometry=replace(first.geometry, dtype=dtype.name) if cast else first.geometry,
        items=np.asarray(items, dtype=np.int64),
        rows=np.asarray(rows, dtype=np.int64),
        skipped=tuple(skipped),
    )


def _decoded(reader: Reader, plan: Plan, stack: ExitStack) -> Iterator[tuple[int, _Rows | BadFileError]]:
    """(number, rows or the error) in order, decoded by threads a little ahead of the consumer."""

    def work(start: int, many: int) -> list[tuple[int, _Rows | BadFileError]]:
        out: list[tuple[int, _Rows | BadFileError]] = []
        for i in range(start, min(start + many, len(reader))):
            try:
                decoded = reader.read(i)
                out.append((i, _Rows(reader.names[i], *plan.apply(decoded), decoded)))
            except BadFileError as error:
                out.append((i, error))
            except ShapeError as error:
                raise InputError(f"{reader.where(i)}: {error}") from error
        return out

    first = work(0, 1)
    yield from first
    large = any(isinstance(read, _Rows) and read.decoded.event.nbytes > _SMALL for _, read in first)
    first.clear()
    chunk, most = (1, WORKERS) if large else (_CHUNK, 2 * WORKERS)
    pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="oneprior-survey")
    stack.callback(pool.shutdown, wait=True, cancel_futures=True)
    ahead: deque = deque()
    for start in range(1, len(reader), chunk):
        ahead.append(pool.submit(work, start, chunk))
        if len(ahead) > most:
            yield from ahead.popleft().result()
    while ahead:
        yield from ahead.popleft().result()


def _check_alike(a: _Rows, b: _Rows) -> None:
    (_, c0, *space0), (_, c1, *space1) = a.events.shape, b.events.shape
    if len(space0) != len(space1):
        raise InputError(f"{a.name} has {len(space0)} spatial axes and {b.name} has {len(space1)}: keep one kind")
    if c0 != c1:
        raise InputError(
            f"{a.name} has {c0} channels and {b.name} has {c1}: give channels='grey' or channels='rgb' "
            "(--channels grey|rgb)"
        )
    if space0 != space1:
        here, there = ("x".join(map(str, s)) for s in (space0, space1))
        raise InputError(
            f"{a.name} is {here} and {b.name} is {there}: give a size and a fit (--size {here} --fit crop)"
        )
    if a.decoded.orientation != b.decoded.orientation and not _oriented(a, b):
        raise InputError(
            f"the axes of {a.name} point {a.decoded.orientation} and those of {b.name} {b.decoded.orientation}: "
            "give orientation='RAS' to turn them alike"
        )


def _oriented(a: _Rows, b: _Rows) -> bool:
    """Whether the plan has turned both alike, whatever they were in their files."""
    if a.geometry.affine is None or b.geometry.affine is None:
        return True
    signs = [np.asarray(r.geometry.affine)[:3, :3] for r in (a, b)]
    axes = [np.abs(s).argmax(0) for s in signs]
    same = np.array_equal(axes[0], axes[1])
    return same and all(signs[0][axes[0][k], k] * signs[1][axes[0][k], k] > 0 for k in range(3))


def _fits(data: Path, needed: int) -> bool:
    data.parent.mkdir(parents=True, exist_ok=True)
    return needed <= min(LIMIT, shutil.disk_usage(data.parent).free // 2)

"""A data set from an array in a file: .npy, .npz, IDX."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from oneprior.core import Geometry, InputError
from oneprior.data import labels as labelling
from oneprior.data.arrays import Found, is_idx, open_idx, open_npz
from oneprior.data.batch import Dataset
from oneprior.data.files import Numbered, Taken
from oneprior.data.layouts import check_layout, infer_layout
from oneprior.data.npz import is_npz
from oneprior.data.plan import Request
from oneprior.data.ranges import map_for, needs_survey
from oneprior.data.sources import ArraySource, MappedArray, Source, blocks
from oneprior.data.stored import StoredDataset, Subset


def open_array(place: Path, request: Request) -> Dataset | None:
    """The rows of an array in a file, mapped; None where `place` is not such a file."""
    if place.is_dir():
        return None
    kind = "npy"
    if place.suffix.lower() == ".npy":
        found = Found(MappedArray.npy(place))
    elif is_npz(place):
        found = open_npz(place, request.key, request.label_key, request.labels, request.cache)
    elif is_idx(place):
        kind, label_path = "idx", None
        if request.label_key is not None:
            label_path = place.parent / request.label_key
            if not label_path.exists():
                raise InputError(f"{label_path}: there is no such label file")
        found = open_idx(place, label_path, request.labels, request.cache)
    else:
        return None
    return _dataset(place, found, kind, request)


def _dataset(path: Path, found: Found, kind: str, request: Request) -> Dataset:
    shape, dtype = found.array.array.shape, found.array.array.dtype
    what = f"{path}[{found.key}]" if found.key else str(path)
    if len(shape) < 2 or not shape[0] or dtype.kind not in "biuf":
        raise InputError(f"{what}: shape {shape} of {dtype} is no set of events; needed is (n, ...) of real numbers")
    layout = request.layout
    if kind == "idx" and layout is None and len(shape) == 3:
        layout = "nhw"  # the format's own convention: no channels
    layout = infer_layout(shape, what) if layout is None else check_layout(layout, shape, what)
    cut = request.plan.slices
    source = ArraySource(found.array, layout, cut)
    low, high, bad = value_extent(source) if needs_survey(source.dtype) else (0.0, 0.0, np.empty(0, np.int64))
    if bad.size and not request.skip_bad:
        shown = ", ".join(str(int(b)) for b in bad[:5]) + (", ..." if bad.size > 5 else "")
        raise InputError(
            f"{what}: {bad.size} of {len(source)} rows hold NaN or infinite values (rows {shown}); mend them, or give "
            "skip_bad (--skip-bad) to leave them out"
        )
    if bad.size == len(source):
        raise InputError(f"{what}: every row holds NaN or infinite values")
    told = None
    if found.labels is not None:
        spec, values = labelling.from_values(found.labels, f"{path}[{found.label_key}]")
        told = {spec: np.repeat(values, source.slices, axis=0)}
    names = Numbered(f"{path.name}[{found.key}]" if found.key else path.name, shape[0])
    item = np.repeat(np.arange(shape[0]), source.slices)
    dataset = StoredDataset(
        source,
        map_for(source.dtype, low, high, given=request.value_range, what=what),
        Geometry(source.dtype.name, format=kind, axis=None if cut is None else cut % 3),
        conditions=told,
        names=names if source.slices == 1 else Taken(names, item),
        groups=None if source.slices == 1 else torch.from_numpy(item),
        plan=request.plan,
        clip=request.value_range is not None,
    )
    if not bad.size:
        return dataset
    good = np.setdiff1d(np.arange(len(source)), bad, assume_unique=True)
    return Subset(dataset, torch.from_numpy(good), [(f"{what} row {b}", "NaN or infinite values") for b in bad])


def value_extent(source: Source) -> tuple[float, float, np.ndarray]:
    """Smallest and largest value of a source, and the rows with values that are no numbers, in one pass.

    Such rows do not count towards the extent.
    """
    low, high, bad = np.inf, -np.inf, []
    for index, rows in blocks(source):
        if rows.dtype.kind == "f":
            good = np.isfinite(rows.reshape(len(rows), -1)).all(1)
            if not good.all():
                bad.append(index[~good])
                rows = rows[good]
        if rows.size:
            low, high = min(low, float(rows.min())), max(high, float(rows.max()))
    return low, high, np.concatenate(bad) if bad else np.empty(0, np.int64)

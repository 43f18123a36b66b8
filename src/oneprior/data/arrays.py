"""Arrays in files: .npy, .npz and IDX, always read through a memory map.

A .npy is mapped where it lies. A member of a .npz is packed, so it is unpacked once, as the stream of bytes that it is,
into the cache; likewise a gzipped IDX file (the format of MNIST: two zero bytes, a type, the number of axes, their
lengths and the values, all big-endian). Nothing pickled is ever loaded.
"""

from __future__ import annotations

import gzip
import re
import shutil
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from oneprior.core import InputError, replacing
from oneprior.data.cache import cache_path, file_stamp
from oneprior.data.npz import npz_members
from oneprior.data.sources import MappedArray

_IDX_TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
_DATA = ("x", "data", "images", "image", "img", "imgs", "samples", "arr_0")
_LABELS = ("y", "labels", "label", "targets", "target", "classes")


@dataclass(frozen=True)
class Found:
    """An array and its labels.

    Args:
        array: the rows.
        labels: one per row, or None.
        key: the name of the array in its file, or empty.
        label_key: the name of the labels.
    """

    array: MappedArray
    labels: np.ndarray | None = None
    key: str = ""
    label_key: str = ""


def open_npz(
    path: Path, key: str | None, label_key: str | None, labels: bool = True, cache: Path | None = None
) -> Found:
    """One array of a .npz, unpacked once into a mapped file, and its labels.

    Without a key: the only array with at least two axes and two rows; else the only one whose name begins with
    "train"; else the only one called x, data, images, image, img, samples or arr_0.
    Without a label key: the array of as many rows called y or labels, or like the data with "labels" for "images".

    Raises:
        InputError: where the choice is not clear, or the key is not there; lists what is.
    """
    members = npz_members(path)
    shown = ", ".join(f"{k} {shape} {dtype}" for k, (shape, dtype) in members.items())
    if key is None:
        key = _choose(members)
        if key is None:
            raise InputError(f"{path}: holds {shown or 'no arrays'}; say which is the data with key=...")
    for name in (key, label_key):
        if name is not None and name not in members:
            raise InputError(f"{path}: has no array {name!r}; it holds {shown}")
    array = MappedArray.npy(_unpack_member(path, key, cache))
    if not labels:
        return Found(array, None, key)
    label_key = label_key or _label_key(members, key)
    if label_key is None:
        return Found(array, None, key)
    return Found(array, np.array(MappedArray.npy(_unpack_member(path, label_key, cache)).array), key, label_key)


def open_idx(path: Path, label_path: Path | None = None, labels: bool = True, cache: Path | None = None) -> Found:
    """An IDX file, gzipped or not, and the labels that lie beside it.

    The labels of "train-images-idx3-ubyte.gz" are "train-labels-idx1-ubyte", with or without ".gz".
    """
    array = _map_idx(path, cache)
    label_path = label_path or (_idx_labels(path) if labels else None)
    if label_path is None or not labels:
        return Found(array)
    values = np.array(_map_idx(label_path, cache).array)
    if len(values) != len(array.array):
        raise InputError(f"{label_path}: {len(values)} labels for {len(array.array)} rows of {path.name}")
    return Found(array, values, label_key=label_path.name)


def is_idx(path: Path) -> bool:
    """Whether a file begins as an IDX file does, perhaps gzipped."""
    if re.search(r"\.(nii|npy|npz|csv|tsv|txt|json|tar|tgz)(\.gz)?$", path.name.lower()):
        return False
    try:
        with open(path, "rb") as file:
            head = file.read(4)
        if head[:2] == b"\x1f\x8b":
            with gzip.open(path) as file:
                head = file.read(4)
    except (OSError, EOFError, zlib.error):
        return False
    return len(head) == 4 and head[:2] == b"\0\0" and head[2] in _IDX_TYPES and 1 <= head[3] <= 5


def _map_idx(path: Path, cache: Path | None) -> MappedArray:
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    plain = path
    if packed:
        plain = cache_path(path, "gunzip", file_stamp(path), ".idx", cache)
        if not plain.exists():
            try:
                with replacing(plain) as temporary, gzip.open(path) as source, open(temporary, "wb") as target:
                    shutil.copyfileobj(source, target, 1 << 20)
            except (OSError, EOFError, zlib.error) as error:
                raise InputError(f"{path}: cannot be unpacked ({error}); it may be cut short") from error
    with open(plain, "rb") as file:
        head = file.read(4)
        axes = head[3] if len(head) == 4 else 0
        lengths = file.read(4 * axes)
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in _IDX_TYPES or len(lengths) < 4 * axes:
        raise InputError(f"{path}: not an IDX file (it begins {head.hex()})")
    try:
        return MappedArray(plain, np.dtype(_IDX_TYPES[head[2]]), struct.unpack(f">{axes}I", lengths), 4 + 4 * axes)
    except InputError as error:
        raise InputError(str(error).replace(str(plain), str(path))) from error


def _idx_labels(path: Path) -> Path | None:
    base = re.sub(r"\.gz$", "", path.name)
    other = re.sub(r"idx\d", "idx1", base.replace("images", "labels"))
    if other == base:
        return None
    return next((p for p in (path.with_name(other), path.with_name(f"{other}.gz")) if p.exists()), None)


def _unpack_member(path: Path, key: str, cache: Path | None) -> Path:
    target = cache_path(path, f"npz/{key}", file_stamp(path), ".npy", cache)
    if not target.exists():
        try:
            with (
                zipfile.ZipFile(path) as archive,
                archive.open(f"{key}.npy") as source,
                replacing(target) as temporary,
                open(temporary, "wb") as file,
            ):
                shutil.copyfileobj(source, file, 1 << 20)
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise InputError(f"{path}: array {key!r} is damaged ({error})") from error
    return target


def _choose(members: dict[str, tuple[tuple[int, ...], np.dtype]]) -> str | None:
    good = [k for k, (shape, dtype) in members.items() if len(shape) >= 2 and shape[0] > 1 and dtype.kind in "biuf"]
    pictures = [k for k in good if len(members[k][0]) >= 3] or good
    train = [k for k in pictures if k.lower().startswith("train")]
    named = [k for k in pictures if k.lower() in _DATA]
    return next((c[0] for c in (pictures, train, named) if len(c) == 1), None)


def _label_key(members: dict[str, tuple[tuple[int, ...], np.dtype]], key: str) -> str | None:
    count = members[key][0][0]
    likely = [re.sub("images?|imgs?|data", word, key) for word in ("labels", "label")] + list(_LABELS)
    for name in likely:
        if name != key and name in members:
            shape, dtype = members[name]
            if len(shape) in (1, 2) and shape[0] == count and dtype.kind in "biufSU":
                return name
    return None

"""Labels: from class folders, from an array beside the data, from a `dataset.json`."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from oneprior.core import ConditionSpec, InputError
from oneprior.data.files import Files, natural

Labels = tuple[ConditionSpec, np.ndarray]
NAME = "label"


def from_values(values: np.ndarray, what: str, names: Sequence[str] = ()) -> Labels:
    """One label per row as a condition.

    Whole numbers, strings and booleans, (n,) or (n, 1), are classes: the sorted distinct values become 0 .. K-1 and
    their text the names of the classes (0 .. K-1 themselves stay as they are). Floats, and (n, k), are a vector.

    Args:
        values: the labels.
        what: named in errors.
        names: names of the classes, where the values are 0 .. len(names)-1.
    """
    values = np.asarray(values)
    if values.ndim == 2 and values.shape[1] == 1 and values.dtype.kind in "biuSU":
        values = values[:, 0]
    if values.ndim == 1 and values.dtype.kind in "biuSU":
        distinct, code = _sorted(values)
        if names and values.dtype.kind in "iu" and distinct.min() >= 0 and distinct.max() < len(names):
            return _classes(values.astype(np.int64), tuple(names), what)
        shown = tuple(v.decode(errors="replace") if isinstance(v, bytes) else str(v) for v in distinct)
        return _classes(code.reshape(-1).astype(np.int64), shown, what)
    if values.ndim in (1, 2) and values.dtype.kind in "biuf":
        vector = np.ascontiguousarray(values.reshape(len(values), -1), dtype=np.float32)
        if not np.isfinite(vector).all():
            raise InputError(f"{what}: some labels are NaN or infinite; mend them, or give labels=False")
        return ConditionSpec(NAME, "vector", (vector.shape[1],)), vector
    raise InputError(f"{what}: labels of shape {values.shape} and type {values.dtype} are not understood")


def _sorted(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct values in natural order ("2" before "10"), and which one each value is."""
    distinct, code = np.unique(values, return_inverse=True)
    if distinct.dtype.kind != "U":
        return distinct, code.reshape(-1)
    order = sorted(range(len(distinct)), key=lambda k: natural(str(distinct[k])))
    return distinct[order], np.argsort(order)[code.reshape(-1)]


def from_names(names: Sequence[str], rows: np.ndarray, what: str) -> Labels | None:
    """Classes from the folders that the files lie in; None where all lie in one, or some lie in none.

    Args:
        names: of the files.
        rows: rows of each file.
        what: named in errors.
    """
    parents = [name.rpartition("/")[0] for name in names]
    if not all(parents) or len(set(parents)) < 2:
        return None
    classes, code = _sorted(np.asarray(parents))
    common = _common(list(classes))
    shown = tuple(str(c)[len(common) :] or str(c) for c in classes)
    code = code.reshape(-1).astype(np.int64)
    _check_counts(np.bincount(code), shown, what)
    return ConditionSpec(NAME, "class", classes=len(shown), names=shown), np.repeat(code, rows)


def from_json(files: Files, items: Sequence[str], rows: np.ndarray) -> Labels | None:
    """Labels from a `dataset.json`, {"labels": [["folder/name.png", 3], ...]}, as the StyleGAN data sets have it."""
    place = next((i for i, name in enumerate(files.names) if name == "dataset.json"), None)
    if place is None:
        return None
    try:
        pairs = json.loads(files.read(place))["labels"]
        table = {str(name): value for name, value in pairs} if pairs else {}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{files.where(place)}: not {{'labels': [[name, label], ...]}} ({error})") from error
    if not table:
        return None
    missing = [name for name in items if name not in table]
    if missing:
        raise InputError(f"{files.where(place)}: {len(missing)} pictures have no label, such as {missing[0]}")
    return from_values(np.repeat(np.asarray([table[name] for name in items]), rows, axis=0), files.where(place))


def _classes(code: np.ndarray, names: tuple[str, ...], what: str) -> Labels:
    _check_counts(np.bincount(code, minlength=len(names)), names, what)
    return ConditionSpec(NAME, "class", classes=len(names), names=names), code


def _check_counts(counts: np.ndarray, names: Sequence[str], what: str) -> None:
    """A class of one item can be copied, not learned, and no part of it can be held out."""
    lonely = np.flatnonzero(counts == 1)
    if lonely.size:
        shown = ", ".join(repr(names[k]) for k in lonely[:5]) + (" and others" if lonely.size > 5 else "")
        raise InputError(
            f"{what}: {lonely.size} of {len(names)} classes have one item only ({shown}); add items, merge classes, "
            "or give labels=False to learn without labels"
        )


def _common(names: list[str]) -> str:
    """The leading folders that all names share, with their last slash."""
    split = [name.split("/") for name in names]
    depth = 0
    while all(len(s) > depth + 1 for s in split) and len({s[depth] for s in split}) == 1:
        depth += 1
    return "".join(f"{part}/" for part in split[0][:depth])

"""Splits: some rows for training, others held out, and never one subject on both sides.

Every group (a file, a subject, or a single row of an array) gets a pseudo-random number from the hash of its name and
the seed, and the groups with the smallest numbers are held out. So a split depends on nothing but names and seed, and
when a set grows, files that were held out stay held out or nearly so.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch

from oneprior.core import InputError
from oneprior.data.batch import Dataset
from oneprior.data.stored import Subset


def split(
    dataset: Dataset,
    held_out: float | int,
    by: Literal["file", "subject"] = "file",
    seed: int = 0,
    subject: str | Callable[[str], str] | None = None,
) -> tuple[Subset, Subset]:
    """Two parts of a data set, the second to be held out; the same on every machine.

    Args:
        dataset: the whole.
        held_out: how much to hold out: a fraction in (0, 1), or a number of rows >= 1. Whole groups are taken until it
            is reached, so groups of many rows may pass it.
        by: "file": the rows of one file (the slices of a volume) stay together. "subject": also the files of one
            subject; without `subject`, each file is one.
        seed: another seed, another split.
        subject: the subject in a file's name: a regular expression (its first group, or all that matches), or a
            function of the name.

    Returns:
        (training, held out), rows in their old order.

    Raises:
        InputError: where a name does not match, or too few groups are there to part.
    """
    n = len(dataset)
    groups, keys = _groups(dataset, subject if by == "subject" else None)
    if subject is not None and by != "subject":
        raise InputError("a rule for subjects was given with by='file'; give by='subject'")
    if len(keys) < 2:
        what = "subject" if by == "subject" else "file"
        raise InputError(f"all {n} rows belong to one {what}; at least two are needed to hold one out")
    wanted = float(held_out) * n if isinstance(held_out, float) else held_out
    if not (0 < wanted < n) or (isinstance(held_out, float) and not 0 < held_out < 1):
        raise InputError(f"held_out={held_out} of {n} rows: give a fraction between 0 and 1, or 1 to {n - 1} rows")
    order = np.argsort(_hashes(keys, seed), kind="stable")
    counts = np.bincount(groups, minlength=len(keys))[order]
    taken = int(np.searchsorted(np.cumsum(counts), wanted - 1e-9)) + 1
    out = np.zeros(len(keys), dtype=bool)
    out[order[: min(taken, len(keys) - 1)]] = True
    mask = torch.from_numpy(out[groups])
    return Subset(dataset, (~mask).nonzero()[:, 0]), Subset(dataset, mask.nonzero()[:, 0])


def subjects(dataset: Dataset, rule: str | Callable[[str], str]) -> torch.Tensor:
    """The number of the subject of each row, (n,) int64, by a rule on the names of the files.

    Raises:
        InputError: where a name does not match.
    """
    return torch.from_numpy(np.asarray(_groups(dataset, rule)[0], dtype=np.int64))


def _groups(dataset: Dataset, subject: str | Callable[[str], str] | None) -> tuple[np.ndarray, list[str]]:
    """The group of each row, (n,), and the key of each group."""
    n, names = len(dataset), dataset.names
    rows = np.arange(n) if dataset.groups is None else dataset.groups.numpy()
    _, first, code = np.unique(rows, return_index=True, return_inverse=True)
    if not len(names):
        if subject is not None:
            raise InputError("this data set has no file names, so subjects cannot be told; give by='file'")
        return code, [str(int(rows[i])) for i in first]
    keys = [names[int(i)] for i in first]
    if subject is None:
        return code, [f"{key}\0{int(rows[i])}" for key, i in zip(keys, first, strict=True)] if _repeated(keys) else keys
    subjects, of_file = np.unique([_subject(key, subject) for key in keys], return_inverse=True)
    return of_file[code], [str(s) for s in subjects]


def _repeated(keys: list[str]) -> bool:
    return len(set(keys)) < len(keys)


def _subject(name: str, rule: str | Callable[[str], str]) -> str:
    if callable(rule):
        return str(rule(name))
    try:
        match = re.search(rule, name)
    except re.error as error:
        raise InputError(f"subject={rule!r} is not a regular expression ({error})") from error
    if match is None:
        raise InputError(f"subject={rule!r} does not match the file name {name!r}; every name must have a subject")
    return match.group(1) if match.re.groups else match.group(0)


def _hashes(keys: list[str], seed: int) -> np.ndarray:
    start = hashlib.blake2b(f"split/{seed}/".encode(), digest_size=8)

    def number(key: str) -> int:
        state = start.copy()
        state.update(key.encode("utf-8", "surrogateescape"))
        return int.from_bytes(state.digest(), "little")

    return np.fromiter((number(key) for key in keys), dtype=np.uint64, count=len(keys))

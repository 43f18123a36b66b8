"""Scores in sheets: those that the data have already, and those that a person gives to pictures in a folder.

A sheet is a CSV file with the columns `file` and `score`: of the data, the names or the rows of events; of a round, the
pictures that were written beside it. A score that is left empty is not given yet; `failed` says that there is none.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from oneprior.core import InputError, replacing
from oneprior.data import Dataset
from oneprior.tasks.campaign.campaign import Campaign
from oneprior.tasks.campaign.ledger import Entry

SHEET = "scores.csv"
_COLUMNS = ("file", "score")
FAILED = "failed"


def data_scores(path: Path, data: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """The scores that a sheet gives to events of the data; rows (n,) int64 and scores (n,), NaN for the failed.

    Args:
        path: of the sheet.
        data: whose names, or rows from 0, stand in its first column.

    Raises:
        InputError: for a sheet that cannot be read, a name that the data do not have, a score that is no number; names
            the file and the line.
    """
    rows = {Path(name).name: k for k, name in enumerate(data.names)} | {str(k): k for k in range(len(data))}
    found = []
    for number, name, text in _lines(path):
        if name not in rows and Path(name).name not in rows:
            last = len(data) - 1
            raise InputError(f"{path}, line {number}: {name!r} is not a name of the data, or a row from 0 to {last}")
        score = _score(path, number, text)
        if score is not None:
            found.append((rows.get(name, rows.get(Path(name).name, 0)), score))
    if not found:
        raise InputError(f"{path} gives no score")
    return np.array([row for row, _ in found], dtype=np.int64), np.array([score for _, score in found])


def write_round(campaign: Campaign, write: Callable[[np.ndarray, Path, str], Path], folder: Path) -> Path:
    """The open candidates as pictures in a folder, with an empty sheet to fill in; the sheet.

    Args:
        campaign: whose candidates.
        write: writes an event, (*event_shape) in [-1, 1], into a folder under a name.
        folder: that is made.
    """
    lines: list[tuple[str, ...]] = [_COLUMNS]
    for entry in campaign.open():
        if entry.event is not None:
            lines.append((write(entry.event, folder, _name(entry)).name, ""))
    with replacing(folder / SHEET) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(lines)
    return folder / SHEET


def tell_round(campaign: Campaign, folder: Path) -> int:
    """Tell the campaign what a sheet says of its open candidates; how many are still without a score.

    Raises:
        InputError: for a sheet that is gone or cannot be read.
    """
    waiting = {_name(entry): entry for entry in campaign.open()}
    for number, name, text in _lines(folder / SHEET):
        entry = waiting.get(Path(name).stem)
        score = _score(folder / SHEET, number, text)
        if entry is not None and score is not None:
            campaign.tell(entry.id, score, "" if math.isfinite(score) else "rated as failed")
            del waiting[Path(name).stem]
    return len(waiting)


def _name(entry: Entry) -> str:
    return f"candidate-{entry.id}"


def _lines(path: Path) -> list[tuple[int, str, str]]:
    """Number, first and second column of each line below the head."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as a sheet of scores: {error}") from error
    head = [word.strip().lower() for word in lines[0]] if lines else []
    if not set(_COLUMNS) <= set(head):
        raise InputError(f"{path}: the first line must name the columns {' and '.join(_COLUMNS)}; it has {head}")
    name, score = (head.index(word) for word in _COLUMNS)
    short = next((k for k, line in enumerate(lines, 1) if line and len(line) <= max(name, score)), None)
    if short is not None:
        raise InputError(f"{path}, line {short}: got {len(lines[short - 1])} columns, needed {max(name, score) + 1}")
    return [(k, line[name].strip(), line[score].strip()) for k, line in enumerate(lines[1:], 2) if line]


def _score(path: Path, number: int, text: str) -> float | None:
    """None where it is empty, NaN where it failed."""
    if not text:
        return None
    if text.lower() == FAILED:
        return math.nan
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{path}, line {number}: {text!r} is no score; give a number, {FAILED!r}, or nothing yet")
    return value

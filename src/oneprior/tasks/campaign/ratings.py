"""Scores in sheets: those that the data have already, and those that a person gives to pictures in a folder.

A sheet is a CSV file with the columns `file` and `score`, or one of each objective by its name: of the data, the names
or the rows of events; of a round, the pictures that were written beside it. Where a score is left empty it is not given
yet; `failed` says that there is none.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from oneprior.core import InputError, replacing
from oneprior.data import Dataset
from oneprior.tasks.campaign.campaign import Campaign
from oneprior.tasks.campaign.ledger import Entry

SHEET = "scores.csv"
_FILE = "file"
FAILED = "failed"


def data_scores(path: Path, data: Dataset, names: Sequence[str] = ("score",)) -> tuple[np.ndarray, np.ndarray]:
    """The scores that a sheet gives to events of the data; rows (n,) int64 and scores (n, objectives), NaN for the
    failed.

    Args:
        path: of the sheet.
        data: whose names, or rows from 0, stand in the column `file`.
        names: of the objectives.

    Raises:
        InputError: for a sheet that cannot be read, a name that the data do not have, a score that is no number; names
            the file and the line.
    """
    rows = {Path(name).name: k for k, name in enumerate(data.names)} | {str(k): k for k in range(len(data))}
    found, seen = [], dict[int, int]()
    for number, name, texts in _lines(path, names):
        if name not in rows and Path(name).name not in rows:
            last = len(data) - 1
            raise InputError(f"{path}, line {number}: {name!r} is not a name of the data, or a row from 0 to {last}")
        row, scores = rows.get(name, rows.get(Path(name).name, 0)), _scores(path, number, texts)
        if row in seen:
            raise InputError(f"{path}, line {number}: {name!r} stands on line {seen[row]} already: keep one of them")
        seen[row] = number
        if scores is not None:
            found.append((row, scores))
    if not found:
        raise InputError(f"{path} gives no score")
    return np.array([row for row, _ in found], dtype=np.int64), np.array([scores for _, scores in found])


def write_round(campaign: Campaign, write: Callable[[np.ndarray, Path, str], Path], folder: Path) -> Path:
    """The open candidates as pictures in a folder, with an empty sheet to fill in; the sheet.

    Args:
        campaign: whose candidates.
        write: writes an event, (*event_shape) in [-1, 1], into a folder under a name.
        folder: that is made.
    """
    names = campaign.objectives.names
    lines: list[tuple[str, ...]] = [(_FILE, *names)]
    for entry in campaign.open():
        if entry.event is not None:
            lines.append((write(entry.event, folder, _name(entry)).name, *[""] * len(names)))
    with replacing(folder / SHEET) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(lines)
    return folder / SHEET


def tell_round(campaign: Campaign, folder: Path) -> int:
    """Tell the campaign what a sheet says of the candidates of its last round, and what was corrected there; how many
    are still without a score.

    Raises:
        InputError: for a sheet that is gone or cannot be read.
    """
    last = campaign.rounds
    known = {_name(entry): entry for entry in campaign.ledger.entries(origin="asked") if entry.round == last}
    for number, name, texts in _lines(folder / SHEET, campaign.objectives.names):
        entry = known.get(Path(name).stem)
        scores = _scores(folder / SHEET, number, texts)
        if entry is not None and scores is not None:
            failed = not all(map(math.isfinite, scores))
            if entry.state == "open" or (None if failed else tuple(scores)) != entry.scores:
                campaign.tell(entry.id, scores, "rated as failed" if failed else "")
    return len(campaign.open())


def _name(entry: Entry) -> str:
    return f"candidate-{entry.id}"


def _lines(path: Path, names: Sequence[str]) -> list[tuple[int, str, list[str]]]:
    """Number, file and scores of each line below the head."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            file.seek(0)
            semicolons = ";" in first and "," not in first  # as where a comma parts the decimals
            lines = list(csv.reader(file, delimiter=";" if semicolons else ","))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as a sheet of scores: {error}") from error
    head = [word.strip().lower() for word in lines[0]] if lines else []
    wanted = [_FILE, *(name.lower() for name in names)]
    if not set(wanted) <= set(head):
        raise InputError(f"{path}: the first line must name the columns {' and '.join(wanted)}; it has {head}")
    name, *scores = (head.index(word) for word in wanted)
    needed = max(name, *scores) + 1
    short = next((k for k, line in enumerate(lines, 1) if line and len(line) < needed), None)
    if short is not None:
        raise InputError(f"{path}, line {short}: got {len(lines[short - 1])} columns, needed {needed}")
    found = [(k, line[name].strip(), [line[c].strip() for c in scores]) for k, line in enumerate(lines[1:], 2) if line]
    return [(k, own, [text.replace(",", ".") for text in texts]) for k, own, texts in found] if semicolons else found


def _scores(path: Path, number: int, texts: Sequence[str]) -> list[float] | None:
    """None where one is empty, NaN where it failed."""
    if not all(texts):
        return None
    if any(text.lower() == FAILED for text in texts):
        return [math.nan] * len(texts)
    return [_score(path, number, text) for text in texts]


def _score(path: Path, number: int, text: str) -> float:
    value = parse_score(text)
    if value is None:
        raise InputError(f"{path}, line {number}: {text!r} is no score; give a number, {FAILED!r}, or nothing yet")
    return value


def parse_score(text: str) -> float | None:
    """A finite number; None for anything else."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None

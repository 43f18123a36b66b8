"""What a campaign has asked and been told, in one SQLite file: written before it is believed, read when it goes on.

One process writes; any number may read. A candidate is written when it is asked for, its score when it is told, each
in a transaction of its own that is on the disk before the call returns. A campaign that is killed finds every score
that it was told, and every candidate that it asked for and heard nothing of.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from oneprior.core import BadRunError, InputError, replacing

NAME = "campaign.sqlite"
VERSION = 2
State = Literal["open", "scored", "failed"]
Origin = Literal["data", "asked", "told", "refused"]
_TABLES = """
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE events (
    id INTEGER PRIMARY KEY,
    origin TEXT NOT NULL,
    round INTEGER NOT NULL,
    state TEXT NOT NULL,
    row INTEGER,
    point BLOB,
    event BLOB,
    about TEXT NOT NULL DEFAULT '{}',
    scores TEXT,
    note TEXT NOT NULL DEFAULT '',
    asked REAL NOT NULL,
    told REAL
);
CREATE INDEX by_state ON events (state);
CREATE TABLE rounds (number INTEGER PRIMARY KEY, about TEXT NOT NULL);
"""


@dataclass(frozen=True, eq=False)
class Entry:
    """One event of the ledger.

    Args:
        id: its number, from 1, in the order of asking.
        origin: from the data, asked for, told without being asked for, or refused by a rule before it was asked for.
        round: in which it came.
        state: open (asked for, no score yet), scored, or failed.
        row: of the data set, for what comes from there.
        point: what the search saw, (columns,); None where it did not come from a search.
        event: x, (*event_shape) float32 in [-1, 1]; None for the data.
        about: prediction, bound and the like, at the time of asking.
        scores: of each objective, in its own units; None unless scored.
        note: why it failed.
    """

    id: int
    origin: Origin
    round: int
    state: State
    row: int | None
    point: np.ndarray | None
    event: np.ndarray | None
    about: Mapping[str, Any]
    scores: tuple[float, ...] | None
    note: str

    @property
    def score(self) -> float | None:
        """Of the first objective, which is the only one of most campaigns."""
        return None if self.scores is None else self.scores[0]


class Ledger:
    """The file of a campaign.

    Args:
        folder: of the campaign; the file is `NAME` in it.
        new: whether it is to be made.

    Raises:
        InputError: where a new one is asked for and one is there.
        BadRunError: where there is none, or it is none of ours.
    """

    def __init__(self, folder: Path, *, new: bool = False) -> None:
        self.path = folder / NAME
        if new:
            if self.path.exists():
                raise InputError(f"{folder} holds a campaign already: go on with it, or take another folder")
            folder.mkdir(parents=True, exist_ok=True)
            _make(self.path)
        elif not self.path.exists():
            raise BadRunError(f"{folder} holds no campaign (no {NAME})")
        self._file = sqlite3.connect(self.path, isolation_level=None, timeout=30)
        try:
            self._file.execute("PRAGMA journal_mode = WAL")
            self._file.execute("PRAGMA synchronous = FULL")
            if self.recall("version") != VERSION:
                raise BadRunError(f"{self.path} is of another version of OnePrior")
        except sqlite3.DatabaseError as error:
            raise BadRunError(f"{self.path} cannot be read as a campaign: {error}") from error

    def close(self) -> None:
        """No more is written."""
        self._file.close()

    def discard(self) -> None:
        """Close and remove the file, of a campaign that came to nothing."""
        self.close()
        for path in self.path.parent.glob(f"{NAME}*"):
            path.unlink()

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        self._file.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._file.execute("ROLLBACK")
            raise
        self._file.execute("COMMIT")

    def remember(self, **values: Any) -> None:
        """Keep settings, as JSON."""
        with self._all_or_nothing():
            for name, value in values.items():
                self._file.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, json.dumps(value)))

    def recall(self, name: str, default: Any = None) -> Any:
        """A setting."""
        found = self._file.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
        return default if found is None else json.loads(found[0])

    def add_data(self, rows: Sequence[int], scores: Sequence[Sequence[float]], notes: Sequence[str] = ()) -> None:
        """Scores of rows of the data set, one of each objective; with one that is not finite it counts as failed, for
        the reason in its note."""
        now, notes = time.time(), notes or [""] * len(rows)
        with self._all_or_nothing():
            self._file.executemany(
                "INSERT INTO events (origin, round, state, row, scores, note, asked, told) "
                "VALUES ('data', 0, ?, ?, ?, ?, ?, ?)",
                [
                    (_state(own), int(row), _numbers(own), note, now, now)
                    for row, own, note in zip(rows, scores, notes, strict=True)
                ],
            )

    def add(
        self,
        origin: Origin,
        number: int,
        events: np.ndarray,
        points: np.ndarray | None = None,
        about: Sequence[Mapping[str, Any]] = (),
    ) -> list[int]:
        """Open entries for events (n, *event_shape); their numbers."""
        now, found = time.time(), []
        with self._all_or_nothing():
            for k, event in enumerate(events):
                point = None if points is None else _pack(points[k].astype(np.float64))
                told = json.dumps(dict(about[k])) if about else "{}"
                cursor = self._file.execute(
                    "INSERT INTO events (origin, round, state, point, event, about, asked) "
                    "VALUES (?, ?, 'open', ?, ?, ?, ?)",
                    (origin, number, point, _pack(event.astype(np.float32)), told, now),
                )
                assert cursor.lastrowid is not None
                found.append(cursor.lastrowid)
        return found

    def score(self, number: int, scores: Sequence[float], note: str = "") -> None:
        """The scores of an entry; NaN says that it failed.

        Raises:
            InputError: for a number that was never given out.
        """
        with self._all_or_nothing():
            done = self._file.execute(
                "UPDATE events SET state = ?, scores = ?, note = ?, told = ? WHERE id = ?",
                (_state(scores), _numbers(scores), note, time.time(), number),
            )
            if not done.rowcount:
                raise InputError(f"no candidate has the number {number}: candidates are told by the numbers of `ask`")

    def add_round(self, number: int, about: Mapping[str, Any]) -> None:
        """What is worth telling of a round, such as what its surrogate explained."""
        with self._all_or_nothing():
            self._file.execute("INSERT OR REPLACE INTO rounds VALUES (?, ?)", (number, json.dumps(dict(about))))

    def rounds(self) -> list[dict[str, Any]]:
        """All rounds, in order."""
        rows = self._file.execute("SELECT number, about FROM rounds ORDER BY number")
        return [{"round": number, **json.loads(about)} for number, about in rows]

    def entries(self, *, state: State | None = None, origin: Origin | None = None) -> list[Entry]:
        """Entries in order of their numbers."""
        asked = {"state": state, "origin": origin}
        told = {name: value for name, value in asked.items() if value is not None}
        where = " AND ".join(f"{name} = ?" for name in told)
        rows = self._file.execute(
            "SELECT id, origin, round, state, row, point, event, about, scores, note FROM events "
            + (f"WHERE {where} " if told else "")
            + "ORDER BY id",
            tuple(told.values()),
        )
        return [
            Entry(
                i, o, n, s, row, _unpack(p), _unpack(e), json.loads(about), scores and tuple(json.loads(scores)), note
            )
            for i, o, n, s, row, p, e, about, scores, note in rows
        ]

    def data_scores(self, objectives: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the data set and their scores, those that did not fail; (n,) int64 and (n, objectives)."""
        found = self._file.execute(
            "SELECT row, scores FROM events WHERE origin = 'data' AND state = 'scored' ORDER BY id"
        ).fetchall()
        scores = [json.loads(scores) for _, scores in found]
        rows = np.array([row for row, _ in found], dtype=np.int64)
        return rows, np.array(scores, dtype=np.float64).reshape(len(found), objectives)

    def count(self, state: State, origin: Origin | None = None) -> int:
        """How many entries are in a state."""
        more = "" if origin is None else " AND origin = ?"
        told = (state,) if origin is None else (state, origin)
        return int(self._file.execute(f"SELECT COUNT(*) FROM events WHERE state = ?{more}", told).fetchone()[0])


def _make(path: Path) -> None:
    """An empty ledger, there as a whole or not at all: others may look for it while it is made."""
    with replacing(path) as partial:
        file = sqlite3.connect(partial)
        file.executescript(f"BEGIN; {_TABLES} INSERT INTO settings VALUES ('version', '{VERSION}'); COMMIT;")
        file.close()


def _state(scores: Sequence[float]) -> State:
    return "scored" if np.isfinite(scores).all() else "failed"


def _numbers(scores: Sequence[float]) -> str | None:
    return json.dumps([float(score) for score in scores]) if np.isfinite(scores).all() else None


def _pack(array: np.ndarray) -> bytes:
    """An array as bytes: its type and shape, a line end, its numbers."""
    head = json.dumps([array.dtype.str, array.shape]).encode()
    return head + b"\n" + np.ascontiguousarray(array).tobytes()


def _unpack(packed: bytes | None) -> np.ndarray | None:
    if packed is None:
        return None
    head, _, numbers = packed.partition(b"\n")
    dtype, shape = json.loads(head)
    return np.frombuffer(numbers, dtype=dtype).reshape(shape).copy()

"""What a long benchmark has measured so far: one small file a cell in benchmarks/results/cells, committed as it grows.

A benchmark of many hours is broken off, and goes on on another machine; what it has is then there, and each cell says
by itself at which commit, when and on what it was measured. The record of a benchmark is gathered from its cells.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.harness import Options, commit, machine
from oneprior.core import replacing

ORIGIN = "measured"
"""Where a cell says how it came about."""
_DIGITS = 6
_COMMIT = commit()
"""As it was when the program was read, which is what measures."""


def folder(benchmark: str, options: Options) -> Path:
    """Where the cells of a benchmark are."""
    return (options.runs / "quick" if options.quick else options.results) / "cells" / benchmark


def missing(benchmark: str, contenders: Iterable[str], seeds: int, options: Options) -> Iterator[tuple[str, int, Path]]:
    """Contender, seed and file of each cell that is asked for (`--only CONTENDER`) and has not been measured yet, all
    contenders of a seed before the next seed."""
    for seed in range(1 if options.quick else seeds):
        for contender in contenders:
            path = folder(benchmark, options) / f"{contender}-{seed}.json"
            if options.only in ("", contender) and not path.exists():
                yield contender, seed, path


def keep(path: Path, cell: Mapping[str, Any]) -> None:
    """Write a cell, with how it came about."""
    origin = {**_COMMIT, "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()), **_hardware()}
    with replacing(path) as partial:
        partial.write_text(json.dumps({**_rounded(cell), ORIGIN: origin}) + "\n")


def every(benchmark: str, options: Options) -> Iterator[dict[str, Any]]:
    """All cells that have been measured, by name."""
    for path in sorted(folder(benchmark, options).glob("[!.]*.json")):
        yield json.loads(path.read_text())


def origins(cells: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The commits and machines of some cells, and how many cells each measured; oldest first."""
    found: dict[str, dict[str, Any]] = {}
    for cell in sorted(cells, key=lambda cell: cell[ORIGIN]["date"]):
        origin = {key: value for key, value in cell[ORIGIN].items() if key != "date"}
        known = found.setdefault(json.dumps(origin), {**origin, "first": cell[ORIGIN]["date"], "cells": 0})
        known["cells"] += 1
        known["last"] = cell[ORIGIN]["date"]
    return list(found.values())


def _hardware() -> dict[str, Any]:
    """What does not change from one cell to the next."""
    return {key: value for key, value in machine().items() if key != "load"}


def _rounded(value: Any) -> Any:
    """Numbers to some digits, within lists and mappings."""
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    if isinstance(value, Mapping):
        return {key: _rounded(part) for key, part in value.items()}
    return [_rounded(part) for part in value] if isinstance(value, (list, tuple)) else value

"""`result.json`: what was typed, with which version and seed, what came out, and how long it took.

A folder may hold the outputs of several commands. The file tells of the last one, and under "earlier" of those before
it whose outputs still stand. A command that writes the same outputs again replaces its record. Where they are one
result (`Outcome.whole`), files of the earlier one that were not written again are removed: nobody finds sample 18 of a
restoration that drew 9.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import oneprior
from oneprior.apps.command import Command, Mistake, Outcome

NAME = "result.json"


def write(command: Command, outcome: Outcome, words: Sequence[str], seconds: float) -> Path | None:
    """Write `result.json` beside the outputs, all or nothing; returns its path, or None where there are no outputs."""
    if outcome.folder is None:
        return None
    path = outcome.folder / NAME
    state = {
        "command": ["oneprior", *words],
        "version": oneprior.__version__,
        "seed": command.common.seed,
        "device": command.common.device,
        "settings": plain(dataclasses.asdict(command)),
        "outputs": [str(output) for output in outcome.outputs],
        "seconds": round(seconds, 3),
        "figures": plain(outcome.figures),
    }
    if earlier := _kept(outcome.folder, state["outputs"], words[0] if outcome.whole else ""):
        state["earlier"] = earlier
    from oneprior.core import replacing

    with replacing(path) as draft:
        draft.write_text(json.dumps(state, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def read(folder: Path) -> list[dict[str, Any]]:
    """The records of a folder, the newest first; none where there is no file, or one that is not ours."""
    try:
        state = json.loads((folder / NAME).read_text(encoding="utf-8"))
        records = [state, *state.pop("earlier", [])]
        return [r for r in records if isinstance(r["outputs"], list) and isinstance(r["settings"], dict)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def typed() -> str:
    """The command as it was typed."""
    import shlex

    return shlex.join(["oneprior", *sys.argv[1:]])


def check_place(out: Path, command: Command, free: Sequence[str] | None = None) -> None:
    """Raises `Mistake` where writing to `out` would lose, litter or mix what lies there.

    A file is replaced only where the `result.json` beside it names it as an output. A folder is new, or empty, or one
    that the same verb has filled before; where `free` is given, with the same other settings.

    Args:
        out: the file or the folder of `--out`.
        command: the command.
        free: settings that may differ between commands whose outputs stand in one folder; None for a verb that
            replaces what it wrote before.
    """
    out = out.expanduser()
    if out.suffix and not out.is_dir():
        if (out.parent / NAME).exists() and not read(out.parent):
            raise Mistake(f"{out.parent / NAME} is not of oneprior and would be lost; give --out in another folder")
        if out.exists() and out.name not in {Path(name).name for r in read(out.parent) for name in r["outputs"]}:
            raise Mistake(
                f"--out {out} is a file that no oneprior command here has written; give another name, or remove it"
            )
        return
    if out.exists() and not out.is_dir():
        raise Mistake(f"--out {out} is a file; give a folder")
    there = sorted(path.name for path in out.iterdir() if path.name[0] != ".") if out.is_dir() else []
    verb = type(command).__name__.lower()
    mine = [r for r in read(out) if r["command"][1:2] == [verb] and Path(r["settings"].get("out", "")).name == out.name]
    if there and not mine:
        raise Mistake(f"--out {out} holds other files already ({', '.join(there[:3])}); give a new or an empty folder")
    if free is None:
        return
    for record in mine:
        if _essence(record["settings"], free) != _essence(plain(dataclasses.asdict(command)), free):
            typed = " ".join(record["command"])
            raise Mistake(f"{out} holds the outputs of `{typed}`, which would be mixed; give another --out")


def _essence(settings: Mapping[str, Any], free: Sequence[str]) -> dict[str, Any]:
    """What decides the content of outputs."""
    left_out = {*free, "out", "common"}
    return {"seed": settings["common"]["seed"], **{k: v for k, v in settings.items() if k not in left_out}}


def _kept(folder: Path, outputs: Sequence[str], whole: str) -> list[dict[str, Any]]:
    """The records whose outputs still stand; of a replaced one of the verb `whole`, what was not written again goes."""
    kept, new = [], {Path(name).name for name in outputs}
    for record in read(folder):
        old = {Path(name).name for name in record["outputs"]}
        if new.isdisjoint(old):
            kept.append(record)
        elif record["command"][1:2] == [whole]:
            for stale in old - new:
                if not (folder / stale).is_dir():  # folders are cleared by the command that fills them
                    (folder / stale).unlink(missing_ok=True)
    return kept


def plain(value: Any) -> Any:
    """A value as JSON knows it: paths and types as words, tensors as numbers, numbers that are not finite as words."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, str | int | bool):
        return value
    if isinstance(value, Path):
        return str(value)
    to_list = getattr(value, "tolist", None)
    return plain(to_list()) if callable(to_list) else str(value)

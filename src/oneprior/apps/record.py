"""`result.json`: what was typed, with which version and seed, what came out, and how long it took."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import oneprior
from oneprior.apps.command import Command, Outcome

NAME = "result.json"


def write(command: Command, outcome: Outcome, words: Sequence[str], seconds: float) -> Path | None:
    """Write `result.json` beside the outputs, all or nothing; returns its path, or None where there are no outputs."""
    if outcome.folder is None:
        return None
    outcome.folder.mkdir(parents=True, exist_ok=True)
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
    draft = path.with_name(f".{NAME}.{os.getpid()}")
    draft.write_text(json.dumps(state, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    draft.replace(path)
    return path


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

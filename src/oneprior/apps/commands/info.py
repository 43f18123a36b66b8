"""`oneprior info`: what a run is, what it was trained on, and how it went."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

import tyro

from oneprior.apps import screen
from oneprior.apps.command import Command, Outcome


@dataclass(frozen=True, kw_only=True)
class Info(Command):
    """What a run is: its family, events, conditions, units, data, training and figures.

    Args:
        run: a folder that `oneprior train` or `oneprior import` wrote, or `zoo:NAME`, of which the card is told too.
        json: print it as JSON.
    """

    run: tyro.conf.Positional[Path]
    json: bool = False

    def execute(self) -> Outcome:
        from oneprior.apps.conditions import describe
        from oneprior.training import load

        run = load(self.run)
        record, low_high = run.record, run.units.range
        tensors = list(run.model.parameters()) or list(run.model.buffers())  # what is fitted in closed form: buffers
        parameters = sum(tensor.numel() for tensor in tensors)
        facts: dict[str, Any] = {
            "family": record.family,
            "event": " x ".join(map(str, record.event_shape)),
            "conditions": "; ".join(describe(spec) for spec in record.conditions) or "none",
            "values": f"{low_high[0]:g} .. {low_high[1]:g} {run.units.unit}".strip(),
            "written as": f"{record.geometry.dtype} {record.geometry.format}".strip(),
            "parameters": f"{parameters:,}",
            "finished": "yes" if record.finished else "no; go on with oneprior train ... --resume",
        }
        if self.json:
            facts |= {
                "event": record.event_shape,
                "conditions": [vars(spec) for spec in record.conditions],
                "values": low_high,
                "parameters": parameters,
                "finished": record.finished,
            }
        groups = {"model": record.model, "training": record.train, "data": record.data, "result": record.result}
        if self.json:
            from oneprior.apps.record import plain

            screen.say(json.dumps(plain({**facts, **groups}), indent=2, ensure_ascii=False))
            return Outcome()
        screen.table(list(facts.items()), title=str(self.run))
        if run.published:
            for name, said in _card(run.path):
                screen.say(fill(f"{name}: {said}", 100, subsequent_indent="  "))
        for title, values in groups.items():
            if rows := [(name, _short(value)) for name, value in values.items() if value not in (None, "", [], {})]:
                screen.table(rows, title=title)
        return Outcome()


def _card(folder: Path) -> list[tuple[str, str]]:
    """What a person said of an entry of the zoo, and what was measured of it."""
    from oneprior.training.zoo import Entry

    known = Entry.read(folder)
    said = {name.replace("_", " "): value for name, value in vars(known.facts).items()}
    measured = [(figure.name, str(figure)) for figure in known.figures]
    return [*said.items(), *measured, ("for", "research and teaching, not for diagnosis")]


def _short(value: Any, most: int = 200) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        value = ", ".join(_short(item) for item in value)
    if isinstance(value, dict):
        value = ", ".join(f"{key} {_short(item)}" for key, item in value.items())
    text = str(value)
    return text if len(text) <= most else f"{text[:most]} ..."

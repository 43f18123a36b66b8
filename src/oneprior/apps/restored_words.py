"""How events were measured, in words: the instrument, the noise, and which values the prior took for black and white.

They stand with the figures of each event with all their digits, since every file of a folder, and every slice of a
k-space file, may have its own; pages show the words of all together, and what differs image by image.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from oneprior.operators.mri import MRI
from oneprior.operators.mri_sampling import Lines
from oneprior.tasks import Measurement

_NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d*)?(?:e[+-]?\d+)?(?!\w)", re.IGNORECASE)
_COLUMNS = {"operator": "instrument", "noise": "noise", "value_range": "black .. white"}


def told_of(measurement: Measurement, row: int) -> dict[str, Any]:
    """The instrument, the law of the noise and the range of values of one event, for its figures."""
    return {
        "operator": instrument(measurement),
        "noise": measurement.noise.take(slice(row, row + 1)).spec,
        "value_range": list(measurement.units.range),
    }


def instrument(measurement: Measurement) -> str:
    """The words of the operator; of measured k-space, which has none, what was measured."""
    operator = measurement.operator
    if operator.spec or not isinstance(operator, MRI) or not isinstance(operator.sampling, Lines):
        return operator.title
    sampling, coils = operator.sampling, operator.out_shape[0]
    parts = ["k-space", f"{len(sampling.matrix)} of {sampling.whole} lines"]
    return ", ".join([*parts, f"{coils} coils"] if coils > 1 else parts)


def rounded(words: str) -> str:
    """Words with no number of more than 4 significant digits, for people: gaussian:5.1000000000000005 is 5.1."""

    def short(found: re.Match[str]) -> str:
        few = f"{float(found[0]):.4g}"
        return few if len(few) < len(found[0]) else found[0]

    return _NUMBER.sub(short, words)


def of_all(rows: Sequence[Mapping[str, Any]], key: str) -> str:
    """What the figures of all events say of how they were measured; from the least to the largest where many differ."""
    said = list(dict.fromkeys(_shown(row[key]) for row in rows if key in row))
    if not said:
        return "as each file says"
    if len(said) <= 2:
        return " or ".join(said)
    said.sort(key=lambda words: [float(number) for number in _NUMBER.findall(words)])
    return f"{said[0]} to {said[-1]}"


def differing(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str | None]]:
    """What is not the same for all events, as columns of a table: name -> a cell for each."""
    cells = {head: [_shown(row[key]) if key in row else None for row in rows] for key, head in _COLUMNS.items()}
    return {head: column for head, column in cells.items() if len(set(column)) > 1}


def _shown(value: str | Sequence[float]) -> str:
    if isinstance(value, str):
        return rounded(value)
    low, high = value
    return f"{low:.4g} .. {high:.4g}"

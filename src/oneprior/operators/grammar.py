"""Operators as words: `name:value:key=value`, several of them applied left to right.

    parse_operator("downsample:4", (1, 32, 32))
    parse_operator("mask:random:0.7:seed=3", (3, 64, 64))
    parse_operator(["mask:left", "downsample:2"], (1, 28, 28))       # erase first, then average
    parse_operator("downsample:4 + blur:gaussian:2", (1, 28, 28))    # two measurements of one event

`operator.spec` gives the words back, so that a measurement file can carry its instrument.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from oneprior.core import InputError
from oneprior.operators import (
    bias_field,
    blur,
    colour,
    ct,
    downsample,
    foreign,
    identity,
    jpeg,
    mask_words,
    mri_words,
    page,
    phase,
    resize,
    saturation,
    uncertain_blur,
    uncertain_coils,
)
from oneprior.operators.base import Operator
from oneprior.operators.compose import compose
from oneprior.operators.mask import Erase, Mask
from oneprior.operators.stack import stack
from oneprior.operators.words import Grammar, near


def parse_operator(words: str | Sequence[str], in_shape: torch.Size | tuple[int, ...]) -> Operator:
    """The operator that the words name, for events of this shape.

    Args:
        words: one operator, several separated by blanks, or a list of them; applied left to right. A `+` of its own
            stands between measurements of the same event (see `operators.stack`).
        in_shape: (channels, *space) of the first one's input.

    Raises:
        InputError: for an unknown name, value or option; says what is near and what is needed.
    """
    parts = words.split() if isinstance(words, str) else [p for w in words for p in (w.split() if " + " in w else [w])]
    if not parts:
        raise InputError("no operator was given; `oneprior operators` lists them")
    branches: list[list[str]] = [[]]
    for part in parts:
        if part == "+":
            branches.append([])
        else:
            branches[-1].append(part)
    if not all(branches):
        raise InputError(f"a + stands between operators; got {' '.join(parts)!r}")
    operators = [_parse_chain(branch, torch.Size(in_shape)) for branch in branches]
    return operators[0] if len(operators) == 1 else stack(operators)


def grammar() -> list[Grammar]:
    """How every operator is written, for help pages."""
    return list(OPERATORS.values())


def _parse_chain(parts: list[str], in_shape: torch.Size) -> Operator:
    """One operator after another; a mask that others follow leaves a picture."""
    result: Operator | None = None
    for place, part in enumerate(parts):
        operator = _parse_one(part, in_shape if result is None else result.out_shape)
        if isinstance(operator, Mask) and place < len(parts) - 1:
            operator = Erase(operator)
        result = operator if result is None else compose(operator, result)
    assert result is not None
    return result


def _parse_one(part: str, in_shape: torch.Size) -> Operator:
    name, *fields = part.split(":")
    entry = OPERATORS.get(name)
    if entry is None:
        raise InputError(f"no operator is called {name!r}{near(name, OPERATORS)}")
    values = [field for field in fields if "=" not in field]
    options = dict(field.split("=", 1) for field in fields if "=" in field)
    unknown = [key for key in options if key not in entry.keys]
    if unknown:
        hint = near(unknown[0], entry.keys) if entry.keys else "; it has none"
        raise InputError(f"operator {name!r} has no option {unknown[0]!r}{hint}")
    return entry.build(values, options, in_shape)


OPERATORS: dict[str, Grammar] = {
    entry.name: entry
    for entry in (
        identity.WORDS,
        mask_words.WORDS,
        downsample.WORDS,
        mri_words.WORDS,
        ct.WORDS,
        resize.WORDS,
        blur.WORDS,
        colour.WORDS,
        foreign.WORDS,
        phase.WORDS,
        saturation.WORDS,
        jpeg.WORDS,
        bias_field.WORDS,
        bias_field.UNKNOWN,
        page.WORDS,
        page.UNKNOWN,
        uncertain_blur.WORDS,
        uncertain_blur.MOTION,
        uncertain_blur.KERNEL,
        uncertain_coils.WORDS,
    )
}

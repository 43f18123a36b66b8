"""Operators as words: `name:value:key=value`, several of them applied left to right.

    parse_operator("downsample:4", (1, 32, 32))
    parse_operator("mask:random:0.7:seed=3", (3, 64, 64))
    parse_operator(["mask:left", "downsample:2"], (1, 28, 28))       # erase first, then average

`operator.spec` gives the words back, so that a measurement file can carry its instrument.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from oneprior.core import InputError
from oneprior.operators.base import Operator
from oneprior.operators.compose import compose
from oneprior.operators.downsample import Downsample
from oneprior.operators.identity import Identity
from oneprior.operators.mask import Erase, Mask, box_missing, random_missing, side_missing, unspell

Words = tuple[list[str], dict[str, str]]


@dataclass(frozen=True)
class Grammar:
    """How one operator is written.

    Args:
        name: its name.
        usage: the words, with what may vary in capitals.
        meaning: what it does, one sentence.
        examples: words that parse.
        build: values, options and in_shape -> the operator.
        keys: the options that it takes.
    """

    name: str
    usage: tuple[str, ...]
    meaning: str
    examples: tuple[str, ...]
    build: Callable[[list[str], dict[str, str], torch.Size], Operator]
    keys: tuple[str, ...] = ()


def parse_operator(words: str | Sequence[str], in_shape: torch.Size | tuple[int, ...]) -> Operator:
    """The operator that the words name, for events of this shape.

    Args:
        words: one operator, several separated by blanks, or a list of them; applied left to right.
        in_shape: (channels, *space) of the first one's input.

    Raises:
        InputError: for an unknown name, value or option; says what is near and what is needed.
    """
    parts = words.split() if isinstance(words, str) else list(words)
    if not parts:
        raise InputError("no operator was given; `oneprior operators` lists them")
    result: Operator | None = None
    for place, part in enumerate(parts):
        shape = torch.Size(in_shape) if result is None else result.out_shape
        operator = _parse_one(part, shape)
        if isinstance(operator, Mask) and place < len(parts) - 1:
            operator = Erase(operator)
        result = operator if result is None else compose(operator, result)
    assert result is not None
    return result


def grammar() -> list[Grammar]:
    """How every operator is written, for help pages."""
    return list(OPERATORS.values())


def _parse_one(part: str, in_shape: torch.Size) -> Operator:
    name, *fields = part.split(":")
    entry = OPERATORS.get(name)
    if entry is None:
        raise InputError(f"no operator is called {name!r}{_near(name, OPERATORS)}")
    values = [field for field in fields if "=" not in field]
    options = dict(field.split("=", 1) for field in fields if "=" in field)
    unknown = [key for key in options if key not in entry.keys]
    if unknown:
        near = _near(unknown[0], entry.keys) if entry.keys else "; it has none"
        raise InputError(f"operator {name!r} has no option {unknown[0]!r}{near}")
    return entry.build(values, options, in_shape)


def _near(word: str, known: Mapping[str, object] | Sequence[str]) -> str:
    """'; did you mean ...?' or the list of what there is."""
    close = difflib.get_close_matches(word, list(known), 1, 0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; there is {', '.join(known)}"


def _identity(values: list[str], options: dict[str, str], in_shape: torch.Size) -> Operator:
    if values:
        raise InputError(f"identity takes no value, got {values[0]!r}")
    return Identity(in_shape)


def _downsample(values: list[str], options: dict[str, str], in_shape: torch.Size) -> Operator:
    text = options.get("factor", values[0] if values else "")
    try:
        factors = [int(f) for f in text.split("x")]
    except ValueError:
        raise InputError(
            f"downsample needs a whole factor, as in downsample:4 or downsample:2x4; got {text!r}"
        ) from None
    return Downsample(in_shape, factors[0] if len(factors) == 1 else factors)


def _mask(values: list[str], options: dict[str, str], in_shape: torch.Size) -> Operator:
    space = tuple(in_shape[1:])
    if "bits" in options:
        shape = tuple(_whole("shape", n) for n in options.get("shape", "").split("x"))
        return Mask(unspell(options["bits"], shape), in_shape)
    kind = values[0] if values else options.get("file", "")
    if kind in _SIDES:
        return Mask(side_missing(space, kind), in_shape, f"mask:{kind}")
    if kind == "box":
        size = _number("size", options.get("size", values[1] if len(values) > 1 else "0.5"))
        return Mask(box_missing(space, size), in_shape, f"mask:box:{size:g}")
    if kind == "random":
        fraction = _number("fraction", options.get("fraction", values[1] if len(values) > 1 else "0.7"))
        seed = _whole("seed", options.get("seed", "0"))
        spec = f"mask:random:{fraction:g}:seed={seed}"
        return Mask(random_missing(space, fraction, seed), in_shape, spec)
    if Path(kind).suffix or kind == options.get("file"):
        return Mask(_read_mask(kind, in_shape), in_shape)
    raise InputError(
        f"mask has no form {kind!r}{_near(kind, (*_SIDES, 'box', 'random'))}; or give a picture's file name"
    )


def _read_mask(path: str, in_shape: torch.Size) -> Tensor:
    """A picture or array of the event's size: entries above half of its range are kept, dark ones are missing."""
    import numpy as np
    from PIL import Image

    if not Path(path).is_file():
        raise InputError(f"mask file {path!r} does not exist")
    try:
        if Path(path).suffix == ".npy":
            values = np.load(path, allow_pickle=False)
        else:
            with Image.open(path) as picture:
                values = np.asarray(picture.convert("L"))
    except (OSError, ValueError) as error:
        raise InputError(f"mask file {path!r} cannot be read: {error}") from None
    if values.shape not in (tuple(in_shape[1:]), tuple(in_shape)):
        wanted = "x".join(map(str, in_shape[1:]))
        raise InputError(f"mask file {path!r} has shape {values.shape}; the event needs {wanted}. Resize the mask.")
    values = torch.from_numpy(values.astype("float64"))
    return values > (values.max() + min(float(values.min()), 0.0)) / 2


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{name} is a number, got {text!r}") from None


def _whole(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InputError(f"{name} is a whole number, got {text!r}") from None


_SIDES = ("left", "right", "top", "bottom", "front", "back")

OPERATORS: dict[str, Grammar] = {
    "identity": Grammar(
        "identity",
        ("identity",),
        "Adds nothing but the noise; restoring is denoising.",
        ("identity",),
        _identity,
    ),
    "mask": Grammar(
        "mask",
        ("mask:left|right|top|bottom|front|back", "mask:box:SIZE", "mask:random:FRACTION:seed=S", "mask:FILE"),
        "A half, a middle box (SIZE of each side), a random FRACTION, or the dark part of FILE is missing.",
        ("mask:left", "mask:box:0.5", "mask:random:0.7:seed=0"),
        _mask,
        ("size", "fraction", "seed", "file", "bits", "shape"),
    ),
    "downsample": Grammar(
        "downsample",
        ("downsample:FACTOR", "downsample:FACTORxFACTOR"),
        "Means of boxes; the factors need not divide the size.",
        ("downsample:4", "downsample:2x4"),
        _downsample,
        ("factor",),
    ),
}

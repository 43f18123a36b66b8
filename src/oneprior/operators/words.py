"""How an operator is written: what its words mean, and readers of their values, with clear errors."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import torch

from oneprior.core import InputError
from oneprior.operators.base import Operator


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


def near(word: str, known: Mapping[str, object] | Sequence[str]) -> str:
    """'; did you mean ...?' or the list of what there is."""
    close = difflib.get_close_matches(word, list(known), 1, 0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; there is {', '.join(known)}"


def number(name: str, text: str) -> float:
    """A number, or an error that names what it was for."""
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{name} is a number, got {text!r}") from None


def spelled(value: float) -> str:
    """The shortest common writing of a number that reads back as the same number: 2, 0.08, 1.6666666666666667."""
    short = f"{value:g}"
    return short if float(short) == value else repr(float(value))


def spelled_path(path: Path) -> str:
    """A file's name as the value of an option: blanks and colons, which part words, are written %20 and %3A."""
    return str(path).replace("%", "%25").replace(" ", "%20").replace(":", "%3A")


def path_of(text: str) -> Path:
    """The file that an option names, as it is or as `spelled_path` wrote it; absolute."""
    plain = Path(text).expanduser()
    return (plain if plain.is_file() else Path(unquote(text)).expanduser()).resolve()


def whole(name: str, text: str) -> int:
    """A whole number, or an error that names what it was for."""
    try:
        return int(text)
    except ValueError:
        raise InputError(f"{name} is a whole number, got {text!r}") from None


def no_values(name: str, values: Sequence[str], most: int = 0) -> None:
    """Raises `InputError` where an operator was given more values than it takes."""
    if len(values) > most:
        raise InputError(f"{name} takes {most or 'no'} value{'s' if most > 1 else ''}, got {values[most]!r}")

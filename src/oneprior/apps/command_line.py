"""From words to options: a YAML file becomes words too, put in front of the typed ones, and tyro parses them all.

A configuration file is a command line written down: the same names, the same checks, the same messages. Whatever is
typed as well is left out of it, so typed options win (lists too: they replace, they do not add).
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import itertools
import re
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from oneprior.apps.command import Command, Mistake

C = TypeVar("C", bound=Command)
HELP = ("-h", "--help")
_VALUE = re.compile(
    r"Error parsing (\S+): (?:invalid literal for (int)\(\) .*|could not convert string to float): ('.*')"
)
_VALUES = re.compile(
    r"Error parsing (\S+): no type matching \{?([^{}]+?)\}? could be instantiated from \[(.*?)\]\. Got .*"
)


def parse(kind: type[C], words: Sequence[str], prog: str) -> C:
    """The options of one command.

    Args:
        kind: its dataclass; nested dataclasses give their fields without a prefix.
        words: what was typed after the command's name.
        prog: how the command is called, for its help.

    Raises:
        Mistake: for words, values or a file that cannot be used.
        SystemExit: with status 0, after printing the help.
    """
    import tyro

    flags, words = flags_of(kind), list(words)
    if not any(word in HELP for word in words):
        _check_names(words, flags, prog)
        words = [*words, *from_file(_config_path(words), flags, _typed(words))]
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            command = tyro.cli(kind, prog=prog, args=words, config=(tyro.conf.OmitArgPrefixes, tyro.conf.DisallowNone))
    except SystemExit as stop:
        if not stop.code:
            raise
        raise Mistake(f"{_plainly(_one_line(said.getvalue()))} (see {prog} --help)") from None
    object.__setattr__(command, "given", frozenset(_typed(words)))
    return command


@dataclasses.dataclass(frozen=True)
class Flag:
    """One `--name` of a command.

    Args:
        name: without its dashes.
        switch: whether it is --name or --no-name, without a value.
        repeat: whether it may be given several times.
    """

    name: str
    switch: bool = False
    repeat: bool = False


def flags_of(kind: type) -> dict[str, Flag]:
    """The flags of a command's dataclass by name, those of nested dataclasses too; what is positional is left out."""
    import tyro

    hints, flags = typing.get_type_hints(kind, include_extras=True), {}
    for item in dataclasses.fields(kind):
        extras = getattr(hints[item.name], "__metadata__", ())
        bare = typing.get_args(hints[item.name])[0] if extras else hints[item.name]
        if any(extra is tyro.conf.Positional for extra in extras):
            continue
        given = [extra.name for extra in extras if getattr(extra, "name", None)]
        name = (given[0] if given else item.name).replace("_", "-")
        if dataclasses.is_dataclass(bare) and isinstance(bare, type):
            flags |= flags_of(bare)
        else:
            flags[name] = Flag(name, bare is bool, any(extra is tyro.conf.UseAppendAction for extra in extras))
    return flags


def from_file(path: Path | None, flags: Mapping[str, Flag], typed: Iterable[str] = ()) -> list[str]:
    """The options in a YAML file as words.

    Args:
        path: the file, or None.
        flags: the options there are.
        typed: names that were typed and are left out.

    Raises:
        Mistake: for a file that cannot be read, or a key that is no option (near ones are named).
    """
    if path is None:
        return []
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Mistake(f"--config {path}: {error.strerror or error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Mistake(f"--config {path} is no YAML: {' '.join(str(error).split())}") from None
    if content is None:
        return []
    if not isinstance(content, dict):
        raise Mistake(f"--config {path}: needs 'name: value' lines, found a {type(content).__name__}")
    words: list[str] = []
    for keys, value in _flat(content):
        spelled = [".".join(keys[k:]).replace("_", "-") for k in range(len(keys))]
        name = next((name for name in spelled if name in flags), None)
        if name is None:
            raise Mistake(f"--config {path}: unknown key {keys[-1]!r}{near(spelled[-1], flags)}")
        if name not in set(typed) | {"config"}:
            words += _words(flags[name], value)
    return words


def near(name: str, known: Iterable[str], dashes: str = "") -> str:
    """ "; did you mean a or b?" for the known names like this one, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(dashes + word for word in close)}?" if close else ""


def _flat(content: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Values with the keys that lead to them; null leaves an option as it is."""
    for key, value in content.items():
        keys = (*above, *str(key).split("."))
        if isinstance(value, dict):
            yield from _flat(value, keys)
        elif value is not None:
            yield keys, value


def _words(flag: Flag, value: Any) -> list[str]:
    dashed = f"--{flag.name}"
    if isinstance(value, bool) and flag.switch:
        return [dashed if value else "--" + re.sub(r"([^.]+)$", r"no-\1", flag.name)]
    if isinstance(value, bool):  # YAML's on and off
        value = "on" if value else "off"
    if not isinstance(value, list):
        return [dashed, str(value)]
    if flag.repeat:
        return [word for item in value for word in (dashed, str(item))]
    return [dashed, *map(str, value)] if value else []


def _typed(words: Sequence[str]) -> set[str]:
    """Names of the options among the words; --no-x is x."""
    names = {word[2:].split("=", 1)[0].replace("_", "-") for word in words if word.startswith("--")}
    return names | {_affirmed(name) for name in names}


def _check_names(words: Sequence[str], flags: Mapping[str, Flag], prog: str) -> None:
    for word in words:
        if not word.startswith("--") or word == "--":
            continue
        name = word[2:].split("=", 1)[0].replace("_", "-")
        if name not in flags and _affirmed(name) not in flags:
            raise Mistake(f"unknown option --{name}{near(name, flags, dashes='--')} (see {prog} --help)")


def _affirmed(name: str) -> str:
    """no-x -> x, group.no-x -> group.x."""
    return re.sub(r"(^|\.)no-([^.]+)$", r"\1\2", name)


def _config_path(words: Sequence[str]) -> Path | None:
    for word, following in itertools.zip_longest(words, words[1:]):
        if word.startswith("--config="):
            return Path(word.split("=", 1)[1])
        if word == "--config" and following is not None:
            return Path(following)
    return None


def _one_line(box: str) -> str:
    """tyro's message without its frame: the first paragraph, on one line."""
    lines = []
    for line in box.splitlines():
        text = re.sub(r"[│╭╮╰╯]", "", line).strip()
        if line.lstrip().startswith(("╭", "╰")):
            continue
        if set(text) <= {"─"} and text:
            break
        lines.append(text)
    return " ".join(" ".join(lines).split()) or "the command line cannot be understood"


def _plainly(message: str) -> str:
    """tyro's message about a value in words that need no Python: what the option needs, and what it got."""
    if found := _VALUE.fullmatch(message):
        return f"{found[1]} needs a {'whole ' if found[2] else ''}number, got {found[3]}"
    if found := _VALUES.fullmatch(message):
        name, needed, given = found.groups()
        kinds = needed.split()
        if set(kinds) in ({"INT"}, {"FLOAT"}):
            number = "whole number" if kinds[0] == "INT" else "number"
            needed = f"a {number}" if len(kinds) == 1 else f"{len(kinds)} {number}s"
        return f"{name} needs {needed}, got {given.replace(',', '')}"
    return message

"""Specifications as a YAML file.

    suite: Fashion-MNIST
    required: 0.98                      # pass rate of each, where it says no other
    checks:
      - name: sharp contours
        check: sharpness                # a measure of the library, or module:function
        at_least: auto                  # set on real data by `oneprior specify`
      - name: the garment that was asked for
        check: label_probability
        at_least: 0.01
        required: 0.95
      - name: one thing, or a pair
        check: parts
        threshold: 60                   # parameters of the measure, in the user's units
        at_most: 4
      - name: dark ones are sharp       # combined
        if: {check: mean, at_most: 40}
        then: {any: [{check: sharpness, at_least: 0.2}, {check: contrast, at_least: 30}]}

`auto` bounds are set by `fitting`, and written back as numbers.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from oneprior.core import InputError, user_function
from oneprior.evaluation.specifications import measures, molecules, music
from oneprior.evaluation.specifications.outputs import Outputs
from oneprior.evaluation.specifications.rules import AllOf, AnyOf, Bound, Implies, Rule, Scope
from oneprior.evaluation.specifications.suite import Specification, Suite

MEASURES: Mapping[str, tuple[Callable[..., Tensor], Scope]] = {
    "smallest": (measures.smallest, "sample"),
    "largest": (measures.largest, "sample"),
    "mean": (measures.mean, "sample"),
    "contrast": (measures.contrast, "sample"),
    "plateau": (measures.plateau, "sample"),
    "sharpness": (measures.sharpness, "sample"),
    "fine_detail": (measures.fine_detail, "sample"),
    "foreground": (measures.foreground, "sample"),
    "parts": (measures.parts, "sample"),
    "largest_part": (measures.largest_part, "sample"),
    "border": (measures.border, "sample"),
    "symmetry": (measures.symmetry, "sample"),
    "residual": (measures.residual, "sample"),
    "confidence": (measures.confidence, "sample"),
    "in_scale": (music.in_scale, "sample"),
    "lowest_note": (music.lowest_note, "sample"),
    "highest_note": (music.highest_note, "sample"),
    "notes": (music.notes, "sample"),
    "crossings": (music.crossings, "sample"),
    "largest_ring": (molecules.largest_ring, "sample"),
    "smallest_ring": (molecules.smallest_ring, "sample"),
    "atoms": (molecules.atoms, "sample"),
    "charge": (molecules.charge, "sample"),
    "charged_atoms": (molecules.charged_atoms, "sample"),
    "class_share": (measures.class_share, "sample"),
    "label_probability": (measures.label_probability, "conditional"),
    "label_rank": (measures.label_rank, "conditional"),
    "delivered_error": (measures.delivered_error, "conditional"),
    "rises_with": (measures.rises_with, "pair"),
    "repeat_distance": (measures.repeat_distance, "pair"),
    "misfit": (measures.misfit, "pair"),
    "distinct": (measures.distinct, "set"),
    "novel": (measures.novel, "set"),
    "class_imbalance": (measures.class_imbalance, "set"),
    "variety": (measures.variety, "set"),
}
_SMOOTH = {"mean", "contrast", "sharpness", "fine_detail", "symmetry", "confidence", "label_probability"}
_BOUNDS = ("at_least", "at_most", "scale")
_SCOPES = ("sample", "pair", "conditional", "set")


def read_suite(path: Path | str) -> Suite:
    """Read a file.

    Raises:
        InputError: names the file, the check, what is wrong, and near names.
    """
    return suite_from(read_content(path))


def read_content(path: Path | str) -> Any:
    """What a YAML file holds, looked through.

    Raises:
        InputError: as `read_suite`.
    """
    import yaml

    path = Path(path).expanduser()
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        suite_from(content)
    except OSError as error:
        raise InputError(f"specification {path}: {error.strerror or error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"specification {path} is no YAML: {' '.join(str(error).split())}") from None
    except InputError as error:
        raise InputError(f"specification {path}: {error}") from None
    return content


def suite_from(content: Any) -> Suite:
    """A suite from what a YAML file holds."""
    if not isinstance(content, Mapping) or not isinstance(content.get("checks"), list):
        raise InputError("needs a list `checks:`, each with a name, a check and a bound")
    _refuse(content, ("suite", "required", "checks", "fitted"), "the file")
    required = _number(content.get("required", 0.98), "required")
    return Suite(
        str(content.get("suite", "specification")),
        tuple(_specification(entry, k + 1, required) for k, entry in enumerate(content["checks"])),
    )


def measure_named(name: str, given: Mapping[str, Any]) -> tuple[Callable[[Outputs], Tensor], Scope, str]:
    """A measure with its parameters, its scope, and its words.

    Args:
        name: of the library, or module:function for one of the user's own (outputs, **parameters) -> (n,).
        given: its parameters; a parameter `measure` names another measure, with `of:` for that one's parameters.
    """
    if ":" in name:
        function, scope = _own(name), "sample"
    elif name in MEASURES:
        function, scope = MEASURES[name]
    else:
        raise InputError(f"unknown check {name!r}{_near(name, MEASURES)}; there are {', '.join(MEASURES)}")
    parameters = dict(given)
    scope = parameters.pop("scope", scope)
    if scope not in _SCOPES:
        raise InputError(f"{name}: unknown scope {scope!r}; there are {', '.join(_SCOPES)}")
    inner = parameters.pop("of", {}) if "measure" in parameters else {}
    if not isinstance(inner, Mapping):
        raise InputError(f"{name}: `of:` holds the parameters of the measure, `of: {{threshold: 40}}`, got {inner!r}")
    if isinstance(parameters.get("measure"), str):
        parameters["measure"], _, spelled = measure_named(parameters["measure"], inner)
    else:
        spelled = ""
    known = list(inspect.signature(function).parameters.values())[1:]
    open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in known)
    names = [p.name for p in known]
    if strange := [key for key in parameters if key not in names and not open_ended]:
        has = f"it has {', '.join(names)}" if names else "it has none"
        raise InputError(f"{name} has no parameter {strange[0]!r}{_near(strange[0], names)}; {has}")
    if missing := [p.name for p in known if p.default is p.empty and p.name not in parameters and p.kind.value == 1]:
        raise InputError(f"{name} needs {' and '.join(missing)}")
    if strange := [k for k, v in parameters.items() if k not in ("measure", "condition") and isinstance(v, str | list)]:
        kinds = {p.name: p.annotation for p in known}
        if kinds.get(strange[0]) in ("float", "int", "float | None"):
            raise InputError(f"{name}: {strange[0]} is a number, got {parameters[strange[0]]!r}")
    shown = [spelled if key == "measure" else f"{key} {value}" for key, value in parameters.items()]
    words = f"{name}({', '.join(shown)})" if shown else name
    return functools.partial(function, **parameters), scope, words


def _specification(entry: Any, number: int, required: float) -> Specification:
    if not isinstance(entry, Mapping):
        raise InputError(f"check {number}: needs `name: value` lines")
    name = str(entry.get("name", entry.get("check", f"check {number}")))
    rest = {key: value for key, value in entry.items() if key not in ("name", "required")}
    try:
        return Specification(name, _rule(rest), _number(entry.get("required", required), "required"))
    except InputError as error:
        raise InputError(f"check {number} ({name}): {error}") from None


def _rule(entry: Any) -> Rule:
    if not isinstance(entry, Mapping):
        raise InputError(f"a rule is `check: ...`, `all: [...]`, `any: [...]` or `if: ... then: ...`, not {entry!r}")
    for word, kind in (("all", AllOf), ("any", AnyOf)):
        if word in entry:
            _refuse(entry, (word,), word)
            if not isinstance(entry[word], list):
                raise InputError(f"`{word}:` needs a list of rules")
            return kind(tuple(_rule(part) for part in entry[word]))
    if "if" in entry or "then" in entry:
        _refuse(entry, ("if", "then"), "if/then")
        if not {"if", "then"} <= set(entry):
            raise InputError("`if:` and `then:` belong together")
        return Implies(_rule(entry["if"]), _rule(entry["then"]))
    if "check" not in entry:
        raise InputError(f"no `check:`, `all:`, `any:` or `if:` among {', '.join(map(str, entry)) or 'nothing'}")
    name = str(entry["check"])
    given = {key: value for key, value in entry.items() if key not in ("check", *_BOUNDS)}
    measure, scope, words = measure_named(name, given)
    numbers = {key: _number(entry[key], key) for key in _BOUNDS if key in entry and entry[key] != "auto"}
    auto = tuple(key for key in ("at_least", "at_most") if entry.get(key) == "auto")
    return Bound(measure, scope, words=words, differentiable=name in _SMOOTH, auto=auto, **numbers)  # type: ignore[arg-type]


def _own(name: str) -> Callable[..., Tensor]:
    function = user_function(name)

    @functools.wraps(function)
    def guarded(outputs: Outputs, **parameters: Any) -> Tensor:
        try:
            return function(outputs, **parameters)
        except InputError:
            raise
        except Exception as error:
            raise InputError(f"the measure {name} fails: {type(error).__name__}: {error}") from error

    return guarded


def _number(value: Any, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{key} is a number{' or auto' if key in _BOUNDS else ''}, got {value!r}")
    return float(value)


def _refuse(entry: Mapping[Any, Any], known: Iterable[str], what: str) -> None:
    known = tuple(known)
    if strange := [str(key) for key in entry if key not in known]:
        raise InputError(f"{what} has no {strange[0]!r}{_near(strange[0], known)}; it has {', '.join(known)}")


def _near(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(re.sub(r"[\s-]+", "_", name.lower()), list(known), n=3, cutoff=0.5)
    return f" (did you mean {' or '.join(close)}?)" if close else ""

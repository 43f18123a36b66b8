"""`--condition label=3`: words become what a run can be told.

label=3   label=cat   label=0,1,2        a class, by number or name; several, one for each sample in turn
pose=0.1,-0.4,0.9                        a vector
mask=mask.png   text=features.npy        an image, or a sequence of tokens, from a file
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oneprior.apps.command_line import near
from oneprior.core import ConditionSpec, InputError, ShapeError

if TYPE_CHECKING:
    from torch import Tensor


def read_conditions(words: Sequence[str], specs: Sequence[ConditionSpec]) -> dict[str, Any] | None:
    """The conditions that were typed, as `Run.prior` takes them; None where there are none.

    Args:
        words: "name=value", one for each condition.
        specs: what the run can be told.

    Raises:
        InputError: for a name, class, length or file that does not fit; says what the run knows.
    """
    known = {spec.name: spec for spec in specs}
    told: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not value:
            raise InputError(f"--condition {word!r} needs name=value, such as label=3")
        if name not in known:
            there = (
                f"it can be told {', '.join(map(describe, specs))}" if known else "it was trained without conditions"
            )
            raise InputError(f"this run knows no condition {name!r}{near(name, known)}; {there}")
        if name in told:
            raise InputError(f"--condition {name} was given twice; give several values as {name}=1,2,3")
        told[name] = _read(known[name], value)
    return told or None


def for_rows(told: dict[str, Any] | None, index: Tensor) -> dict[str, Any] | None:
    """The conditions with one value a row: row k has value k mod their number, whatever rows stand beside it."""
    if told is None:
        return None
    return {
        name: [value[int(k) % len(value)] for k in index] if isinstance(value, list) else value[index % len(value)]
        for name, value in told.items()
    }


def describe(spec: ConditionSpec) -> str:
    """One condition in words, for tables and messages."""
    if spec.kind == "class":
        shown = f": {', '.join(spec.names[:10])}{', ...' if len(spec.names) > 10 else ''}" if spec.names else ""
        return f"{spec.name} (class 0 .. {spec.classes - 1}{shown})"
    size = " x ".join(map(str, spec.shape))
    return f"{spec.name} ({spec.kind}, {size})" if size else f"{spec.name} ({spec.kind})"


def _read(spec: ConditionSpec, value: str) -> Any:
    if spec.kind == "class":
        import torch

        return torch.tensor([_class(spec, part.strip()) for part in value.split(",")])
    if spec.kind == "vector":
        return [_vector(spec, value)]
    tensor = _file(spec, Path(value))
    if tensor.dim() != len(spec.shape) + 1 or (spec.kind == "image" and tensor.shape[1] != spec.shape[0]):
        raise ShapeError(f"condition {spec.name} from {value}", tuple(tensor.shape[1:]), spec.shape)
    return tensor


def _class(spec: ConditionSpec, value: str) -> int:
    if value in spec.names:
        return spec.names.index(value)
    if value.isdigit() and int(value) < spec.classes:
        return int(value)
    raise InputError(
        f"--condition {spec.name}={value}: no such class{near(value, spec.names)}; there is {describe(spec)}"
    )


def _vector(spec: ConditionSpec, value: str) -> list[float]:
    try:
        numbers = [float(part) for part in value.split(",")]
    except ValueError:
        raise InputError(f"--condition {spec.name}={value}: needs numbers, parted by commas") from None
    if len(numbers) != spec.shape[0]:
        raise InputError(f"--condition {spec.name} needs {spec.shape[0]} numbers, got {len(numbers)}")
    return numbers


def _file(spec: ConditionSpec, path: Path) -> Tensor:
    """An image in [-1, 1] of its file's own range, or an array of tokens as it is; first axis: rows."""
    import numpy as np
    import torch

    if not path.is_file():
        raise InputError(f"--condition {spec.name}={path}: no such file; {spec.name} is read from a file")
    if path.suffix == ".npy":
        try:
            array = torch.from_numpy(np.load(path, allow_pickle=False)).float()
        except (OSError, ValueError) as error:
            raise InputError(f"--condition {spec.name}={path}: {error}") from None
        return array if array.dim() == len(spec.shape) + 1 else array.unsqueeze(0)
    if spec.kind == "tokens":
        raise InputError(f"--condition {spec.name}={path}: a sequence of tokens is read from a .npy file")
    from oneprior.data import read_event

    event, units, _ = read_event(path)
    return units.to_model(event).float()

"""The run folder: what it holds, written so that a reader never meets half a file.

    config.json          what was trained on what, and how; `RunRecord`
    card.md              the same for people
    model.safetensors    the weights that the run keeps (averaged)
    metrics.jsonl        one line of losses every few steps
    previews/*.png       samples of fixed seeds as training goes on
    tensorboard/         the same figures for TensorBoard
    checkpoint/          everything that is needed to go on

Nothing is pickled, so that a folder from a stranger can be opened. A file is written under another name, flushed to the
disk and renamed into place: a process that is killed leaves the old file or the new one, never a part of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from oneprior.core import AffineMap, BadRunError, ConditionSpec, Geometry, replacing
from oneprior.models import FAMILIES
from oneprior.training.zoo import PREFIX, names

FORMAT = 1
CONFIG, WEIGHTS, CARD, METRICS = "config.json", "model.safetensors", "card.md", "metrics.jsonl"


@dataclass(frozen=True)
class RunRecord:
    """What config.json says.

    Args:
        family: name of the family.
        model: the family's settings, plain values.
        event_shape: (channels, *space) of one event.
        conditions: what the model can be told.
        units: how x in [-1, 1] reads in the user's units.
        geometry: how to write an event back the way it came.
        train: the settings of the training, plain values; empty where it was not trained here.
        data: where the data came from, how many, what was skipped.
        result: what came out: images, seconds, losses, hardware.
        finished: whether the training reached its end.
    """

    family: str
    model: Mapping[str, Any]
    event_shape: tuple[int, ...]
    conditions: tuple[ConditionSpec, ...] = ()
    units: AffineMap = field(default_factory=AffineMap)
    geometry: Geometry = field(default_factory=Geometry)
    train: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    result: Mapping[str, Any] = field(default_factory=dict)
    finished: bool = False

    def write(self, folder: Path) -> None:
        """Into `folder`/config.json, at once."""
        from oneprior import __version__

        body = {"oneprior": __version__, "format": FORMAT, **asdict(self)}
        write_text(folder / CONFIG, json.dumps(body, indent=2, default=str) + "\n")

    @classmethod
    def read(cls, folder: Path) -> RunRecord:
        """From `folder`/config.json.

        Raises:
            BadRunError: no such folder or file, not ours, of a newer format, or damaged.
        """
        path = folder / CONFIG
        if not folder.is_dir():
            known = f"; the zoo has {PREFIX}{folder.name}" if folder.name in names() else ""
            raise BadRunError(f"{folder} is no folder; give the folder that `oneprior train --out` wrote{known}")
        if not path.is_file():
            raise BadRunError(f"{folder} has no {CONFIG}, so it is no run; give a folder that `oneprior train` wrote")
        try:
            body = json.loads(path.read_text(encoding="utf-8"))
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise BadRunError(f"{path} is damaged ({error}); take it from a backup or train again") from None
        if not isinstance(body, dict) or "oneprior" not in body or "format" not in body:
            raise BadRunError(f"{path} was not written by OnePrior; a diffusers folder is read by `oneprior import`")
        if body["format"] > FORMAT:
            raise BadRunError(
                f"{path} has format {body['format']} of OnePrior {body['oneprior']}, and this one reads formats up to "
                f"{FORMAT}; upgrade with `pip install -U oneprior`"
            )
        try:
            return cls(
                family=_known_family(body["family"], path),
                model=body["model"],
                event_shape=tuple(int(size) for size in body["event_shape"]),
                conditions=tuple(ConditionSpec.from_dict(spec) for spec in body["conditions"]),
                units=AffineMap.from_dict(body["units"]),
                geometry=Geometry.from_dict(body["geometry"]),
                train=body["train"],
                data=body["data"],
                result=body["result"],
                finished=body["finished"],
            )
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, BadRunError):
                raise
            raise BadRunError(f"{path} is damaged ({error!r}); take it from a backup or train again") from None


def _known_family(name: str, path: Path) -> str:
    if name not in FAMILIES:
        raise BadRunError(f"{path} is of family {name!r}, and this version knows {', '.join(FAMILIES)}; upgrade it")
    return name


def settings_from(kind: type, values: Mapping[str, Any], where: str) -> Any:
    """A frozen dataclass of settings from plain values, lists as tuples, nested dataclasses as themselves.

    Raises:
        BadRunError: a value that the dataclass does not have, or refuses.
    """
    hints, names = get_type_hints(kind), {f.name for f in fields(kind)}
    if strange := sorted(set(values) - names):
        raise BadRunError(f"{where}: {kind.__name__} knows no {', '.join(strange)}; was it written by a newer version?")
    try:
        return kind(**{name: _value(hints[name], value, where) for name, value in values.items()})
    except (TypeError, ValueError) as error:
        raise BadRunError(f"{where}: {kind.__name__} refuses its settings: {error}") from None


def _value(hint: Any, value: Any, where: str) -> Any:
    if isinstance(value, list):
        return tuple(_value(Any, item, where) for item in value)
    if isinstance(value, dict):
        options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        for option in options:
            if is_dataclass(option) and set(value) <= {f.name for f in fields(option)}:
                return settings_from(option, value, where)  # type: ignore[arg-type]
    return value


def write_text(path: Path, text: str) -> None:
    """A whole text file, at once."""
    with replacing(path, durable=True) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """A safetensors file, at once, with `facts` as JSON in its header."""
    stored, seen = {}, set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        if tensor.untyped_storage().data_ptr() in seen:  # tied weights are written twice: the format has no aliases
            tensor = tensor.clone()
        seen.add(tensor.untyped_storage().data_ptr())
        stored[name] = tensor
    with replacing(path, durable=True) as temporary:
        save_file(stored, temporary, metadata={"oneprior": json.dumps(facts, default=str)})


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and facts of a file of `write_tensors`; what is stored in half precision comes back in single.

    Raises:
        BadRunError: missing, truncated, or no safetensors file.
    """
    if not path.is_file():
        raise BadRunError(f"{path} is missing: the run is not complete; copy the whole folder, or train again")
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {}).get("oneprior", "{}"))
            return {name: _full(file.get_tensor(name)) for name in file.keys()}, facts  # noqa: SIM118
    except (SafetensorError, OSError, json.JSONDecodeError, ValueError) as error:
        size = path.stat().st_size
        raise BadRunError(
            f"{path} ({size} bytes) is truncated or no safetensors file ({error}); copy it again, or train again"
        ) from None


def _full(tensor: Tensor) -> Tensor:
    """Half precision is a way of storing (`training.publication`), and nothing here computes in it."""
    return tensor.float() if tensor.dtype == torch.float16 else tensor


def check_tensors(path: Path, given: Mapping[str, Tensor], needed: Mapping[str, Tensor]) -> None:
    """That a file has the tensors a model needs, each of its shape.

    Raises:
        BadRunError: names what is missing, too many, or of another shape.
    """
    missing, strange = sorted(set(needed) - set(given)), sorted(set(given) - set(needed))
    if missing or strange:
        said = [f"lacks {_some(missing)}"] * bool(missing) + [f"has the unknown {_some(strange)}"] * bool(strange)
        raise BadRunError(f"{path} does not fit its config.json: it {' and '.join(said)}; is it of another run?")
    for name, tensor in needed.items():
        if given[name].shape != tensor.shape:
            raise BadRunError(
                f"{path}: {name} has shape {tuple(given[name].shape)}, and the model needs {tuple(tensor.shape)}; "
                "is it of another run?"
            )


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

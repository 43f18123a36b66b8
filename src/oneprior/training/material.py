"""What a run learns from: the data opened, a part of them held out, and a note of both that can be read back."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from oneprior.core import InputError
from oneprior.data import Batch, Dataset, open_dataset, split


@dataclass(frozen=True)
class Material:
    """The data of a run.

    Args:
        training: what is learned.
        held_out: what is never trained on; None where nothing is.
        about: what config.json says of both, plain values.
    """

    training: Dataset
    held_out: Dataset | None
    about: Mapping[str, Any]

    def unlabelled(self) -> Material:
        """The same without conditions."""
        apart = None if self.held_out is None else Unlabelled(self.held_out)
        return replace(self, training=Unlabelled(self.training), held_out=apart)


class Unlabelled(Dataset):
    """A data set that tells nothing but its events.

    Args:
        parent: the data set with its conditions.
    """

    def __init__(self, parent: Dataset) -> None:
        self.parent, self.conditions = parent, ()
        self.event_shape, self.units, self.geometry = parent.event_shape, parent.units, parent.geometry
        self.names, self.groups, self.skipped = parent.names, parent.groups, parent.skipped

    def __len__(self) -> int:
        return len(self.parent)

    def batch(self, index: Tensor) -> Batch:
        """Batches without conditions."""
        return replace(self.parent.batch(index), condition={}, present={})


def open_material(
    data: Any,
    options: Mapping[str, Any],
    *,
    held_out: float,
    seed: int,
    subject: str | None = None,
    must_hold_out: bool = False,
) -> Material:
    """Open the data and hold a part out.

    Args:
        data: what `open_dataset` takes: a path, an array, a `Dataset`.
        options: of `open_dataset`.
        held_out: share of the data, 0 for none.
        seed: of the split.
        subject: the subject in a file's name, a regular expression; a subject is then on one side only.
        must_hold_out: whether data that cannot be parted (one file) are an error, or are all trained on.
    """
    whole = open_dataset(data, **options)
    if options.get("labels") is False and whole.conditions:  # data that were open already
        whole = Unlabelled(whole)
    training, apart = whole, None
    if held_out > 0:
        try:
            by = "subject" if subject else "file"
            training, apart = split(whole, held_out, by=by, seed=seed, subject=subject)
        except InputError:
            if must_hold_out or subject:
                raise
    about = {
        "path": str(Path(data).expanduser().resolve()) if isinstance(data, str | Path) else f"a {type(data).__name__}",
        "options": {name: _plain(value) for name, value in options.items() if value is not None},
        "split": {"held_out": held_out if apart is not None else 0.0, "seed": seed, "subject": subject},
        "n": len(whole),
        "trained_on": len(training),
        "held_out": len(apart) if apart is not None else 0,
        "skipped": [list(pair) for pair in whole.skipped],
        "fingerprint": fingerprint(whole),
    }
    return Material(training, apart, about)


def fingerprint(data: Dataset, rows: int = 32) -> str:
    """A hash of the form, the range and some rows of a data set, spread evenly: other data have another.

    The rows are read one by one, and of large events fewer, so that neither memory nor the start suffers.
    """
    few = max(2, min(rows, (1 << 24) // data.event_shape.numel()))
    index = torch.linspace(0, len(data) - 1, min(few, len(data)), dtype=torch.float64).round().long()
    state = hashlib.blake2b(digest_size=16)
    state.update(repr((len(data), tuple(data.event_shape), data.units.range)).encode())
    for one in index.split(1):
        batch = data.batch(one)
        for tensor in (batch.x, *(batch.condition[name] for name in sorted(batch.condition))):
            state.update(tensor.contiguous().cpu().numpy().tobytes())
    return state.hexdigest()


def reopen_material(about: Mapping[str, Any]) -> Material:
    """The data of a run again, from the note in its config.json.

    Raises:
        InputError: the data are not where they were, or are not as many.
    """
    path, parted = about.get("path", ""), about.get("split")
    if parted is None or not Path(path).exists():
        raise InputError(f"the data of this run ({path or 'unknown'}) are not here; open them with `open_dataset`")
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in about["options"].items()}
    found = open_material(path, options, **parted)
    if found.about["n"] != about["n"]:
        raise InputError(f"{path} holds {found.about['n']} events now, and held {about['n']} when it was trained on")
    if found.about["fingerprint"] != about.get("fingerprint", found.about["fingerprint"]):
        raise InputError(f"{path} holds other events now than when it was trained on")
    return found


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value

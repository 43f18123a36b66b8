"""Real events with the conditions as a run knows them: classes by its numbers, masks and amounts from beside the data.

A file numbers its own classes, 0 .. K-1 by the names that occur in it: where a test set has the classes 3 and 7 only,
its class 0 is the run's class 3. And a .npz holds, beside its events and labels, what else was known of them, such as
masks: an array that is named as a condition of the run is read as this condition.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from oneprior.core import ConditionSpec, InputError, ShapeError
from oneprior.data import Batch, Dataset
from oneprior.training.run import Run


class ToldDataset(Dataset):
    """A data set whose conditions are those of a run.

    Args:
        data: the events.
        specs: the run's conditions that the events have.
        numbers: for each class condition, the run's number of each class of the data, (classes of the data,).
        beside: further conditions, first axis as long as the data.
    """

    def __init__(
        self,
        data: Dataset,
        specs: tuple[ConditionSpec, ...],
        numbers: Mapping[str, Tensor],
        beside: Mapping[str, Tensor],
    ) -> None:
        self.event_shape, self.units, self.geometry = data.event_shape, data.units, data.geometry
        self.names, self.groups, self.skipped = data.names, data.groups, data.skipped
        self.conditions = specs
        self._data, self._numbers, self._beside = data, numbers, beside

    def __len__(self) -> int:
        return len(self._data)

    def batch(self, index: Tensor) -> Batch:
        read = self._data.batch(index)
        renumbered = {name: numbers[read.condition[name].long()] for name, numbers in self._numbers.items()}
        beside = {name: value[index] for name, value in self._beside.items()}
        return replace(read, condition={**read.condition, **renumbered, **beside})


def as_told(run: Run, data: Dataset, path: str | Path | None = None) -> Dataset:
    """A data set with its conditions as the run knows them; the data set itself where they are so already.

    Args:
        run: the trained run.
        data: real events.
        path: where they come from: of a .npz, arrays named as conditions of the run are read too.

    Raises:
        InputError: for a class that the run does not know.
        ShapeError: for an array of another number of events, or another shape than the condition's.
    """
    own = {spec.name: spec for spec in data.conditions}
    beside = {} if path is None else _beside(run, data, Path(path), set(own))
    numbers = {}
    for spec in run.conditions:
        there = own.get(spec.name)
        if there is None or spec.kind != "class" or there.kind != "class" or there.names == spec.names:
            continue
        if strange := [name for name in there.names if name not in spec.names]:
            raise InputError(
                f"the data have the class {strange[0]!r} of {spec.name}, and the run knows {', '.join(spec.names[:12])}"
            )
        numbers[spec.name] = torch.tensor([spec.names.index(name) for name in there.names])
    if not numbers and not beside:
        return data
    return ToldDataset(data, tuple(s for s in run.conditions if s.name in own or s.name in beside), numbers, beside)


def _beside(run: Run, data: Dataset, path: Path, own: set[str]) -> dict[str, Tensor]:
    """Arrays of a .npz that are named as conditions which the data lack."""
    wanted = [spec for spec in run.conditions if spec.name not in own and spec.kind != "tokens"]
    if not wanted or path.suffix.lower() != ".npz" or not path.is_file():
        return {}
    found = {}
    with np.load(path, allow_pickle=False) as file:
        for spec in wanted:
            if spec.name not in file:
                continue
            array = torch.from_numpy(file[spec.name].astype(np.int64 if spec.kind == "class" else np.float32))
            if spec.shape[:1] == (1,) and array.dim() == len(spec.shape):  # one channel, or one entry, without its axis
                array = array.unsqueeze(1)
            fits = array.dim() == len(spec.shape) + 1 and array.shape[1:2] == spec.shape[:1]
            if not fits or len(array) != len(data):
                needed = (len(data), *spec.shape)
                raise ShapeError(f"{path}[{spec.name}]", tuple(array.shape), needed, "One condition for each event.")
            found[spec.name] = array
    return found

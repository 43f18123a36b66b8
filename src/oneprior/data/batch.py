"""What a data set hands to a model, and what a data set is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor

from oneprior.core import AffineMap, ConditionSpec, Geometry


@dataclass(frozen=True)
class Batch:
    """n rows of data.

    Args:
        x: events in [-1, 1], (n, *event_shape), float32.
        condition: one tensor per condition name, first axis n.
        present: for each condition, which rows have it, (n,) bool; a name that is missing is present in every row.
        index: the place of each row in its data set, (n,) int64.
        weight: weight of each row in the loss, (n,), mean 1; None for equal weights.
    """

    x: Tensor
    condition: Mapping[str, Tensor] = field(default_factory=dict)
    present: Mapping[str, Tensor] = field(default_factory=dict)
    index: Tensor | None = None
    weight: Tensor | None = None

    def __len__(self) -> int:
        return self.x.shape[0]

    def to(self, device: torch.device | str) -> Self:
        def move(t: Tensor | None) -> Tensor | None:
            return None if t is None else t.to(device, non_blocking=True)

        return replace(
            self,
            x=move(self.x),
            condition={k: move(v) for k, v in self.condition.items()},
            present={k: move(v) for k, v in self.present.items()},
            index=move(self.index),
            weight=move(self.weight),
        )


class Dataset(ABC):
    """Real events that can be fetched by number, any number of them at once.

    Attributes:
        event_shape: (channels, *space).
        conditions: what `batch` fills `Batch.condition` with.
        units: how x in [-1, 1] reads in the user's units.
        geometry: how to write an event back the way it came.
        names: the file (or the place in a file) of each row; empty where there is none.
        groups: (n,) int64, equal for rows cut from one file or subject, which a split must not part; None: each row
            stands alone.
        skipped: (file, reason) of what could not be read, where `skip_bad` was asked.
    """

    event_shape: torch.Size
    conditions: tuple[ConditionSpec, ...] = ()
    units: AffineMap = AffineMap()
    geometry: Geometry = Geometry()
    names: Sequence[str] = ()
    groups: Tensor | None = None
    skipped: Sequence[tuple[str, str]] = ()

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def batch(self, index: Tensor) -> Batch:
        """The rows with these numbers, (n,) int64, in that order; memory grows with n, not with the set."""

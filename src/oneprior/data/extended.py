"""A data set with more events behind it, such as those that a campaign has made and measured."""

from __future__ import annotations

import torch
from torch import Tensor

from oneprior.core import ShapeError
from oneprior.data.batch import Batch, Dataset


class Extended(Dataset):
    """A data set, and events of its kind after its last row.

    The events have none of its conditions: they are absent there, as for a row whose label is unknown.

    Args:
        parent: the data set.
        x: events in [-1, 1], (n, *event_shape).
    """

    def __init__(self, parent: Dataset, x: Tensor) -> None:
        if x.shape[1:] != parent.event_shape:
            raise ShapeError("events behind a data set", tuple(x.shape), ("n", *parent.event_shape))
        self.parent, self.x = parent, x.detach().cpu().float()
        self.event_shape, self.conditions = parent.event_shape, parent.conditions
        self.units, self.geometry, self.skipped = parent.units, parent.geometry, parent.skipped

    def __len__(self) -> int:
        return len(self.parent) + len(self.x)

    def batch(self, index: Tensor) -> Batch:
        index = torch.as_tensor(index, dtype=torch.int64).reshape(-1)
        own = index < len(self.parent)
        if bool(own.all()):
            return self.parent.batch(index)
        known = self.parent.batch(torch.where(own, index, 0))  # row 0 stands in where there is none
        x = known.x.clone()
        x[~own] = self.x[index[~own] - len(self.parent)]
        present = {name: known.present.get(name, torch.ones_like(own)) & own for name in known.condition}
        return Batch(x, known.condition, present, index, known.weight)

"""The one data set: rows of a source, scaled to [-1, 1], with their labels; and a part of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from oneprior.core import AffineMap, ConditionSpec, Geometry, InputError
from oneprior.data.batch import Batch, Dataset
from oneprior.data.files import Taken
from oneprior.data.fit import fit_channels, fit_events, fit_geometry, resolve_size
from oneprior.data.plan import Plan
from oneprior.data.sources import Source


class StoredDataset(Dataset):
    """Rows of a source as events in [-1, 1].

    Args:
        source: the rows, in the user's units.
        units: the map to [-1, 1].
        geometry: how to write a row back.
        conditions: each spec with its values, first axis n.
        names: the file of each row.
        groups: equal for rows of one file, (n,) int64; None: each alone.
        skipped: (file, reason) of what was left out.
        plan: size and channels to bring rows to as they are fetched; sources of files have done it already.
        clip: cut values off at -1 and 1, where the user's range is narrower than the data.
    """

    def __init__(
        self,
        source: Source,
        units: AffineMap,
        geometry: Geometry = Geometry(),
        *,
        conditions: Mapping[ConditionSpec, np.ndarray] | None = None,
        names: Sequence[str] = (),
        groups: Tensor | None = None,
        skipped: Sequence[tuple[str, str]] = (),
        plan: Plan = Plan(),
        clip: bool = False,
    ) -> None:
        self.source, self._plan, self._clip = source, plan, clip
        channels, *space = source.event_shape
        self._size = resolve_size(plan.size, tuple(space))
        if plan.channels is not None:
            channels = {"grey": 1, "rgb": 3}[plan.channels]
        self.event_shape = torch.Size((channels, *self._size))
        self.units = units
        self.geometry = fit_geometry(geometry, tuple(space), self._size, plan.fit)
        self._values = {spec.name: values for spec, values in (conditions or {}).items()}
        self.conditions = tuple(conditions or ())
        self.names, self.groups, self.skipped = names, groups, skipped
        for name, values in self._values.items():
            if len(values) != len(source):
                raise InputError(f"condition {name!r} has {len(values)} values for {len(source)} rows")

    def __len__(self) -> int:
        return len(self.source)

    def batch(self, index: Tensor) -> Batch:
        rows = np.asarray(index, dtype=np.int64).reshape(-1)
        if rows.size and (rows.min() < 0 or rows.max() >= len(self)):
            raise InputError(f"rows {rows.min()} .. {rows.max()} were asked of a set of {len(self)}")
        events = self.source.fetch(rows)
        events = fit_channels(events, self._plan.channels)
        if tuple(events.shape[2:]) != self._size:
            events = fit_events(events.astype(np.float32), self._size, self._plan.fit)
        x = np.array(events, dtype=np.float32 if events.dtype.itemsize <= 4 else np.float64, order="C")
        x -= self.units.offset
        x /= self.units.scale
        if self._clip:
            x = np.clip(x, -1, 1, out=x)
        condition = {name: torch.from_numpy(values[rows]) for name, values in self._values.items()}
        return Batch(torch.from_numpy(x.astype(np.float32, copy=False)), condition, index=torch.from_numpy(rows))


class Subset(Dataset):
    """Some rows of a data set, as a data set.

    Args:
        parent: the whole set.
        index: which rows, (n,) int64, in the order they are to have.
        skipped: (file, reason) of what was left out; the parent's own are kept.
    """

    def __init__(self, parent: Dataset, index: Tensor, skipped: Sequence[tuple[str, str]] = ()) -> None:
        index = torch.as_tensor(index, dtype=torch.int64).reshape(-1)
        if isinstance(parent, Subset):
            index, skipped = parent.index[index], [*parent._own, *skipped]
            parent = parent.parent
        self.parent, self.index, self._own = parent, index, list(skipped)
        self.event_shape, self.conditions = parent.event_shape, parent.conditions
        self.units, self.geometry = parent.units, parent.geometry
        self.names = Taken(parent.names, index.numpy()) if len(parent.names) else ()
        self.groups = None if parent.groups is None else parent.groups[index]
        self.skipped = [*parent.skipped, *self._own]

    def __len__(self) -> int:
        return self.index.numel()

    def batch(self, index: Tensor) -> Batch:
        index = torch.as_tensor(index, dtype=torch.int64).reshape(-1)
        if index.numel() and (int(index.min()) < 0 or int(index.max()) >= len(self)):
            raise InputError(f"rows {int(index.min())} .. {int(index.max())} were asked of a set of {len(self)}")
        batch = self.parent.batch(self.index[index])
        return Batch(batch.x, batch.condition, batch.present, index, batch.weight)

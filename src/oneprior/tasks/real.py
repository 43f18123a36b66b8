"""Real events as a run sees them: in its range of values, with what it can be told."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from oneprior.core import InputError, Rows, ShapeError
from oneprior.data import Dataset, open_dataset
from oneprior.data.midi import FORMAT as MUSIC
from oneprior.data.molecules import FORMAT as MOLECULES
from oneprior.data.split import subjects
from oneprior.data.write import in_units
from oneprior.tasks.restoration import range_of
from oneprior.tasks.told import as_told
from oneprior.training.material import open_material
from oneprior.training.run import Run

_SHAPING = ("size", "fit", "channels", "slices", "clips", "layout", "orientation", "label_key", "key", "value_range")
_KINDS = {MOLECULES: "molecules", MUSIC: "music"}


@dataclass(frozen=True)
class Real:
    """A set of real events.

    Args:
        x: in the run's [-1, 1], (n, *event_shape).
        condition: what the run could be told of them, for the conditions that the data have.
        group: equal for events of one file or subject, (n,); None: each alone.
        names: of the files.
    """

    x: Tensor
    condition: Mapping[str, Tensor]
    group: Tensor | None = None
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.x)


def open_real(run: Run, path: str | Path, **options: Any) -> Dataset:
    """Open data in the way that the run's own were opened: size, slices, channels, keys and classes are the same.

    Args:
        run: the trained run.
        path: of the data.
        options: of `open_dataset`, which win.

    Raises:
        InputError: for data of another kind than the run's, such as pictures for a run of molecules.
    """
    shaping = {name: value for name, value in _options(run).items() if name in _SHAPING and value is not None}
    if run.geometry.tokens:  # sequences are read in the words that the run knows, as long as it knows them
        shaping |= {"tokens": run.geometry.tokens, "size": run.event_shape[-1]}
    told = {name: value for name, value in options.items() if value is not None}
    data = open_dataset(path, labels=bool(run.conditions), **(shaping | told))
    if run.geometry.tokens and data.geometry.format != run.geometry.format:
        raise InputError(f"{path}: the run is of {_KINDS[run.geometry.format]}, and these data are none")
    return as_told(run, data, path)


def _options(run: Run) -> dict[str, Any]:
    """What the run's data were opened with; JSON has made lists of tuples."""
    options = run.record.data.get("options", {})
    return {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}


def own_data(run: Run) -> tuple[Dataset | None, Dataset | None]:
    """The training and the held-out part of the run's own data, parted as they were; None where they are not there."""
    about = run.record.data
    path, parting = about.get("path", ""), about.get("split", {})
    if not path or not Path(path).exists():
        return None, None
    material = open_material(
        path,
        _options(run),
        held_out=float(parting.get("held_out", 0.0)),
        seed=int(parting.get("seed", 0)),
        subject=parting.get("subject"),
    )
    return material.training, material.held_out


def read_real(run: Run, data: Dataset, most: int, rows: Rows, batch: int = 500, subject: str | None = None) -> Real:
    """Up to `most` events of a data set in a random order, as the run sees them: any first part is a random one.

    Args:
        run: the trained run.
        data: of events of its shape.
        most: how many.
        rows: one row, which chooses.
        batch: read at once.
        subject: the subject in a file's name, a regular expression; the run's own where None. Its events are a group.

    Raises:
        ShapeError: for events of another shape than the run's.
        InputError: for no event, or values that are not finite.
    """
    if data.event_shape != run.event_shape:
        remedy = "Give data of the size and channels that the run was trained on (--size, --channels)."
        raise ShapeError("real events", tuple(data.event_shape), tuple(run.event_shape), remedy)
    if not len(data):
        raise InputError("the data hold no event to compare with")
    order = rows.take(slice(0, 1)).stream("real").bits(len(data))[0].argsort()[:most].cpu()
    index, place = order.sort()  # files are read in their own order
    back = place.argsort()
    units = range_of(run, data.geometry, data.units)
    known = {spec.name for spec in data.conditions} & {spec.name for spec in run.conditions}
    parts: list[Tensor] = []
    told: dict[str, list[Tensor]] = {name: [] for name in sorted(known)}
    for some in index.split(batch):
        read = data.batch(some)
        parts.append(units.to_model(data.units.to_units(read.x.double())).float())
        for name in told:
            told[name].append(read.condition[name])
    x, index = torch.cat(parts)[back], order
    if bad := (~torch.isfinite(x).flatten(1).all(1)).nonzero()[:, 0].tolist():
        name = data.names[int(index[bad[0]])] if len(data.names) else f"row {int(index[bad[0]])}"
        raise InputError(f"{len(bad)} of {len(x)} real events hold nan or infinity, such as {name}")
    low, high = float(x.amin()), float(x.amax())
    if high < -0.8 or low > 0.8 or high - low < 0.02 or max(-low, high) > 3:
        a, b = (float(run.units.to_units(torch.tensor(v))) for v in (low, high))
        warnings.warn(
            f"the values of the real events, {a:.4g} .. {b:.4g}, hardly fit the run's range, {run.units.range[0]:g} .. "
            f"{run.units.range[1]:g}: are they in its units?",
            stacklevel=2,
        )
    names = tuple(data.names[int(k)] for k in index) if len(data.names) else ()
    rule = subject or run.record.data.get("split", {}).get("subject")
    groups = subjects(data, rule) if rule and len(data.names) else data.groups
    group = None if groups is None else groups[index]
    return Real(x, {name: torch.cat(values)[back] for name, values in told.items()}, group, names)


def as_stored(run: Run, x: Tensor) -> Tensor:
    """Events as a file of the data's own type holds them: rounded and kept in its range."""
    return run.units.to_model(torch.from_numpy(in_units(x, run.units, run.geometry)).double()).float()


def first_of_groups(group: Tensor) -> Tensor:
    """The first row of each group, in the order of the rows, (groups,) int64."""
    _, place = group.unique(return_inverse=True)
    rows = torch.arange(len(group))
    first = torch.full((int(place.max()) + 1,), len(group)).scatter_reduce(0, place.cpu(), rows, "amin")
    return first.sort().values


def independent(real: Real, n: int) -> Real:
    """The first n events of different groups, one of each: slices of one subject are one trial."""
    keep = torch.arange(len(real)) if real.group is None else first_of_groups(real.group)
    keep = keep[:n]
    names = tuple(real.names[int(k)] for k in keep) if real.names else ()
    told = {name: value[keep] for name, value in real.condition.items()}
    return Real(real.x[keep], told, None if real.group is None else real.group[keep], names)

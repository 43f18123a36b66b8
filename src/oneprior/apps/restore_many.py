"""Many restorations: in batches, over processes, one bad file never ending them all, and to be gone on with.

Each finished event is written whole before the next batch begins, its figures last, so that Ctrl-C or a killed process
loses no more than one batch; what stands is skipped by `--resume`. Events of files that were made by the same
instrument are worked on together. An event's draws do not depend on those beside it, so neither the batch size nor the
number of processes, nor where a run was broken off, changes them. Each process takes every n-th file (or event of a
single file); the first one writes the page.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from oneprior.apps.conditions import for_rows
from oneprior.apps.restore_inputs import Intake, Item
from oneprior.apps.restore_place import Place
from oneprior.apps.restored import event_of, kept
from oneprior.core import DivergedError, Geometry, InputError, OnePriorError, Rows
from oneprior.tasks import Measurement, Restoration, restore_iter


@dataclass(frozen=True)
class Settings:
    """What is asked of every restoration; see `tasks.restore_iter`."""

    samples: int = 19
    aim: Any = "best"
    method: Any = None
    guide: Any = None
    told: Any = None
    seed: int = 0
    batch: int = 64
    space: Any = None
    truncation: float | None = None


@dataclass(frozen=True)
class Share:
    """The part of the work that this process does: every `size`-th from `rank` on."""

    rank: int = 0
    size: int = 1


@dataclass(frozen=True)
class Progress:
    """How far it is: the finished share, 0 to 1, and words."""

    done: float
    words: str = ""


@dataclass(frozen=True)
class _Event:
    """One event that waits for its turn."""

    item: Item
    name: str
    index: int
    order: int
    weight: float
    geometry: Geometry


@dataclass
class _Bunch:
    """Events by one instrument."""

    measurement: Measurement
    events: list[_Event] = field(default_factory=list)

    def accepts(self, other: Measurement) -> bool:
        """Whether two measurements can be one."""
        mine = self.measurement
        same = mine.operator is other.operator or (mine.operator.spec and mine.operator.spec == other.operator.spec)
        level = mine.noise.spec == other.noise.spec and not any(
            isinstance(m.noise.noise_level, torch.Tensor) for m in (mine, other)
        )
        fits = mine.event_shape == other.event_shape and mine.y.shape[1:] == other.y.shape[1:]
        fits = fits and mine.y.dtype == other.y.dtype and mine.units == other.units
        return bool(same) and level and fits and (mine.truth is None) == (other.truth is None)

    def add(self, other: Measurement, events: list[_Event]) -> None:
        """Lay another measurement behind."""
        mine = self.measurement
        truth = None if mine.truth is None or other.truth is None else torch.cat([mine.truth, other.truth])
        self.measurement = replace(mine, y=torch.cat([mine.y, other.y]), truth=truth)
        self.events = [*self.events, *events]

    def part(self, count: int) -> tuple[_Bunch, _Bunch | None]:
        """The first events, and the rest."""
        first = _Bunch(self.measurement.take(slice(0, count)), self.events[:count])
        if len(self.events) <= count:
            return first, None
        return first, _Bunch(self.measurement.take(slice(count, None)), self.events[count:])


def restore_many(
    intake: Intake, items: list[Item], place: Place, settings: Settings, share: Share = Share()
) -> Iterator[Progress]:
    """Restore this process's share of the items, what is finished left as it stands.

    Args:
        intake: reads them.
        items: all of them.
        place: where results go; `Place.failed` then says what came to nothing.
        settings: of every restoration.
        share: which are ours.

    Raises:
        InputError: where an item is given alone and cannot be read; and where the settings cannot serve the first event
            of the prior's size by the instrument that was told, which no other file can mend.
    """
    mine = items[share.rank :: share.size] if place.many else items
    work = _Work(intake, place, settings, len(mine))
    bunch: _Bunch | None = None
    for item in mine:
        if item.single and place.many and place.finished(item.stem):
            work.done += 1
            continue
        yield Progress(work.done / len(mine), item.name)
        try:
            measurement = intake.read(item)
        except (OnePriorError, OSError) as error:
            if not place.many:
                raise
            place.fail(item, _reason(error))
            work.done += 1
            continue
        events = _events_of(item, measurement, place, share)
        work.done += 1 - sum(event.weight for event in events)
        if not events:
            continue
        rows = torch.tensor([event.order for event in events])
        measurement = measurement.take(rows)
        if bunch is not None and not bunch.accepts(measurement):
            yield from work.restore(bunch)
            bunch = None
        if bunch is None:
            bunch = _Bunch(measurement, events)
        else:
            bunch.add(measurement, events)
        while bunch is not None and len(bunch.events) >= settings.batch:
            first, bunch = bunch.part(settings.batch)
            yield from work.restore(first)
    if bunch is not None:
        yield from work.restore(bunch)
    yield Progress(1.0)


def _events_of(item: Item, measurement: Measurement, place: Place, share: Share) -> list[_Event]:
    """The events of one item that are ours and not finished."""
    n = len(measurement)
    index, order = item.index(n), range(n) if place.many else range(share.rank, n, share.size)
    names = (
        [item.stem]
        if n == 1 and place.many
        else [f"{item.stem}_{k:04d}" if place.many else f"{k:04d}" for k in range(n)]
    )
    weight = 1 / max(len(order), 1)
    return [
        _Event(item, names[k], index[k], k, weight, measurement.geometry) for k in order if not place.finished(names[k])
    ]


class _Work:
    """The restorations, and how much of the work is behind."""

    def __init__(self, intake: Intake, place: Place, settings: Settings, total: int) -> None:
        self.intake, self.place, self.settings, self.total = intake, place, settings, max(total, 1)
        self.done, self.any = 0.0, False

    def restore(self, bunch: _Bunch) -> Iterator[Progress]:
        """One batch; where it fails its events are tried one by one, and those that fail are noted."""
        rest: _Bunch | None = bunch
        try:
            yield from self._restored(bunch)
            return
        except (DivergedError, torch.linalg.LinAlgError, InputError) as error:
            if not self.place.many or (isinstance(error, InputError) and self._hopeless(bunch.measurement)):
                raise
            if len(bunch.events) == 1:
                self._fail(bunch.events[0], error)
                return
        while rest is not None:
            one, rest = rest.part(1)
            try:
                yield from self._restored(one)
            except (DivergedError, torch.linalg.LinAlgError, InputError) as error:
                self._fail(one.events[0], error)

    def _hopeless(self, measurement: Measurement) -> bool:
        """Whether what cannot be restored is as ordinary as can be: the settings are at fault, and not a file."""
        ordinary = measurement.event_shape == self.intake.run.event_shape
        return ordinary and self.intake.instrument is not None and not self.any

    def _fail(self, event: _Event, error: Exception) -> None:
        self.place.fail(event.item, _reason(error))
        self.done += event.weight

    def _restored(self, bunch: _Bunch) -> Iterator[Progress]:
        asked, events = self.settings, bunch.events
        weight, names = sum(event.weight for event in events), {event.item.name for event in events}
        words = f"{len(events)} at once" if len(events) > 1 else next(iter(names))
        orders = torch.tensor([event.item.place + event.order for event in events])
        state: Restoration | None = None
        for state in restore_iter(
            self.intake.run,
            bunch.measurement,
            samples=asked.samples,
            aim=asked.aim,
            method=asked.method,
            guide=asked.guide,
            condition=for_rows(asked.told, orders),
            units=bunch.measurement.units,
            rows=Rows([event.index for event in events], seed=asked.seed).stream("restore"),
            space=asked.space,
            truncation=asked.truncation,
        ):
            yield Progress((self.done + state.done * weight) / self.total, f"{state.method}, {words}")
        assert state is not None
        for k, event in enumerate(events):
            own = replace(bunch.measurement.take(slice(k, k + 1)), geometry=event.geometry)
            self.place.save(event.name, event.item.name, event_of(state, k, own))
        self.done, self.any = self.done + weight, True


def whole(place: Place, measurement: Measurement) -> Restoration:
    """All events of one file, from what each process and each batch left."""
    parts = [place.archive(f"{k:04d}") for k in range(len(measurement))]
    return kept([place.folder / "restoration.npz"] if place.ended else parts, measurement)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__

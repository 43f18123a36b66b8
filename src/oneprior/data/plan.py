"""What is asked of a set, and what is done to every file on its way into it: orientation, slices, channels, size."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from oneprior.core import Geometry, InputError
from oneprior.data.decoded import Decoded
from oneprior.data.fit import Fit, Size, fit_channels, fit_events, fit_geometry, resolve_size
from oneprior.data.volumes import orient

Channels = Literal["grey", "rgb"]


@dataclass(frozen=True)
class Plan:
    """How each decoded file becomes rows.

    Args:
        size: of the events; None keeps what the files have.
        fit: how an event comes to that size.
        channels: "grey", "rgb", or None for what the files have.
        slices: cut volumes into pictures along this axis (0, 1, 2); None keeps them whole.
        orientation: turn volumes to these axes ("RAS"); None keeps each file's own.
    """

    size: Size | None = None
    fit: Fit = "resize"
    channels: Channels | None = None
    slices: int | None = None
    orientation: str | None = None

    def apply(self, decoded: Decoded) -> tuple[np.ndarray, Geometry]:
        """One decoded file -> its rows (k, channels, *space), and their geometry."""
        if self.orientation is not None:
            decoded = orient(decoded, self.orientation)
        event, geometry = decoded.event, decoded.geometry
        if self.slices is None:
            events = event[None]
        else:
            if event.ndim != 4 or not -3 <= self.slices < 3:
                raise InputError(f"slices={self.slices} needs volumes with three axes, got {event.shape[1:]}")
            axis = self.slices % 3
            events = np.moveaxis(event, 1 + axis, 0)
            spacing = tuple(v for k, v in enumerate(geometry.spacing) if k != axis)
            geometry = replace(geometry, axis=axis, spacing=spacing)
        events = fit_channels(events, self.channels)
        space = events.shape[2:]
        size = resolve_size(self.size, space, clip=geometry.format == "clip" and len(space) == 3)
        return fit_events(events, size, self.fit), fit_geometry(geometry, space, size, self.fit)


@dataclass(frozen=True)
class Request:
    """All that `open_dataset` was told, besides the path; see there.

    Args:
        plan: what is done to each event.
        key, label_key, clips, layout, value_range, skip_bad, labels: as in `open_dataset`.
        keep: whether decoded files are kept in a cache.
        cache: the folder of the cache; None: beside the data.
        tokens: of sequences; those of the file where empty.
    """

    plan: Plan = field(default_factory=Plan)
    key: str | None = None
    label_key: str | None = None
    clips: bool = False
    layout: str | None = None
    value_range: tuple[float, float] | None = None
    skip_bad: bool = False
    labels: bool = True
    keep: bool = True
    cache: Path | None = None
    tokens: tuple[str, ...] = ()

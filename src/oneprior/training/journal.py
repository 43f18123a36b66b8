"""What a run writes down as it goes: lines of metrics, trackers, previews."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from oneprior.core import DivergedError, InputError
from oneprior.training.config import TrainConfig
from oneprior.training.folder import METRICS, write_text
from oneprior.training.parallel import Team
from oneprior.training.previews import write_sheet
from oneprior.training.progress import Progress

_PICTURES: dict[str, dict[str, str]] = {"tensorboard": {"dataformats": "NHWC"}, "wandb": {}}  # who takes pictures


class LossLog:
    """Losses as they come, left on the device until somebody reads them.

    Reading a number from a GPU stalls it, so that the loop reads every few steps; each step keeps its own entry, and a
    loss that is not finite is still named with its step.
    """

    def __init__(self, team: Team) -> None:
        self._team = team
        self._entries: list[tuple[int, list[str], Tensor]] = []
        self._sums: dict[str, tuple[float, int]] = {}
        self.newest: dict[str, float] = {}

    def add(self, step: int, named: Mapping[str, Tensor]) -> None:
        """The losses of one step, scalars; the same names on every process."""
        values = torch.stack([value.detach().float().reshape(()) for value in named.values()])
        self._entries.append((step, list(named), values))

    def read(self) -> dict[str, float]:
        """The newest value of every name, each a mean over the processes.

        Raises:
            DivergedError: a value is not finite; names the first step and the term.
        """
        if not self._entries:
            return self.newest
        values = iter(self._team.mean(torch.cat([values for _, _, values in self._entries])).tolist())
        for step, names, _ in self._entries:
            for name, value in zip(names, values, strict=False):
                if not math.isfinite(value):
                    raise DivergedError(f"{name} became {value} at step {step}")
                total, count = self._sums.get(name, (0.0, 0))
                self._sums[name] = (total + value, count + 1)
                self.newest[name] = value
        self._entries.clear()
        return self.newest

    def means(self) -> dict[str, float]:
        """The mean of every name since the last call."""
        self.read()
        means = {name: total / count for name, (total, count) in self._sums.items()}
        self._sums.clear()
        return means or dict(self.newest)


class Journal:
    """metrics.jsonl, the trackers and the previews of one run; silent on all processes but the first.

    Args:
        folder: the run folder; None to write nothing.
        config: names the tracker.
        team: says whether we write.
        step: the step a resumed run starts from; later lines are dropped.
    """

    def __init__(self, folder: Path | None, config: TrainConfig, team: Team, step: int = 0) -> None:
        self.folder = folder if team.main else None
        self._tracker: Any = None
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        self._metrics = self.folder / METRICS
        self._cut(step)
        if config.tracker != "none":
            self._tracker = _tracker(config, self.folder)

    def _cut(self, step: int) -> None:
        """Drops what a killed session wrote after its last checkpoint, a line cut in half included."""
        kept = []
        if step and self._metrics.exists():
            for line in self._metrics.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    if json.loads(line)["step"] <= step:
                        kept.append(line + "\n")
                except (json.JSONDecodeError, KeyError, TypeError):
                    continue
        write_text(self._metrics, "".join(kept))

    def line(self, progress: Progress) -> None:
        """One line of metrics.jsonl, and the trackers."""
        if self.folder is None:
            return
        body = {k: v for k, v in asdict(progress).items() if k in ("step", "images", "fraction", "stage")}
        body["seconds"] = round(progress.seconds, 3)
        figures = {**progress.losses}
        if progress.held_out is not None:
            figures["held_out"] = progress.held_out
        with self._metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**body, **figures}) + "\n")
        if self._tracker is not None:
            self._tracker.log(figures, step=progress.images)

    def preview(self, named: Mapping[str, Tensor], images: int) -> Path | None:
        """Writes a sheet for each name; returns the first one's path."""
        first: Path | None = None
        if self.folder is None:
            return None
        for name, x in named.items():
            path = self.folder / "previews" / f"{name}-{images:012d}.png"
            values = write_sheet(x, path)
            first = first or path
            if self._tracker is not None and self._tracker.name in _PICTURES:
                picture = np.broadcast_to(values.reshape(*values.shape[:2], -1), (*values.shape[:2], 3))
                self._tracker.log_images({name: picture[None]}, step=images, **_PICTURES[self._tracker.name])
        return first

    def close(self) -> None:
        """The trackers are told that it is over."""
        if self._tracker is not None:
            self._tracker.finish()
            self._tracker = None


def _tracker(config: TrainConfig, folder: Path) -> Any:
    """accelerate's tracker of that name, started."""
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, filter_trackers

    if config.tracker not in LOGGER_TYPE_TO_CLASS:
        known = ", ".join(sorted(map(str, LOGGER_TYPE_TO_CLASS)))
        raise InputError(f"tracker {config.tracker!r} is unknown; give none or one of {known}")
    kinds = filter_trackers([config.tracker], str(folder))  # those that are installed
    if not kinds:
        raise InputError(f"tracker {config.tracker!r} is not installed; `pip install {config.tracker}`, or give none")
    kind = LOGGER_TYPE_TO_CLASS[config.tracker]
    tracker = kind(config.tracker, logging_dir=str(folder)) if kind.requires_logging_directory else kind("oneprior")
    tracker.start()
    if config.tracker != "tensorboard":  # which would make a folder of it, and config.json has it
        tracker.store_init_configuration(asdict(config))
    return tracker

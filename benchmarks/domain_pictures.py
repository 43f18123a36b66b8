"""The pictures of docs/domains.md, one for each domain, from the cells that `benchmarks.domains` has kept.

A column is a task, each on another held-out event; a line is what was seen, what is true, or what one contender
believes: `python -m benchmarks domains --only pictures`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.domain_sets import NAMES
from benchmarks.domains import TASKS, cell_path, measurement, prior_of, shown
from benchmarks.harness import ROOT, Options
from oneprior.apps.pictures import Picture, grid, stack

LINES = {
    "ppca, exact": ("ppca-best", "mean"),
    "BRGM": ("brgm-best", "mean"),
    "the same GAN,\nposterior mean": ("gan-best", "mean"),
    "diffusion,\nposterior mean": ("diffusion-best", "mean"),
    "a draw": ("diffusion-best", "draw"),
    "another": ("diffusion-calibrated", "draw"),
    "deviation": ("diffusion-best", "std"),
}
"""What is shown below the truth and what was seen -> the contender's key and the array that it kept."""


def draw(options: Options) -> list[Path]:
    """Write docs/pictures/domains-<domain>.png for each domain, with the lines of which all tasks are there."""
    made = []
    for which in NAMES:
        tasks = list(TASKS[which])
        truth, seen = map(list, zip(*(_event(which, task, options) for task in tasks), strict=True))
        lines = [("truth", _strip("truth", truth)), ("seen", _strip("seen", seen))]
        for label, (key, array) in LINES.items():
            row = [_restored(which, key, task, array, options) for task in tasks]
            if all(event is not None for event in row):
                lines.append((label, _strip(label, [event for event in row if event is not None])))
        made.append(stack(lines).save(ROOT / "docs/pictures" / f"domains-{which}.png"))
        print(f"-> {made[-1]}: {', '.join(tasks)}")
    return made


def _event(which: str, task: str, options: Options) -> tuple[Tensor, Tensor]:
    """The truth of a task's event and what was seen of it, as grey levels, (1, h, w) each."""
    given = measurement(which, task, prior_of(which, "diffusion", options), options).take(
        torch.tensor([shown(which, task)])
    )
    assert given.truth is not None
    seen = torch.nn.functional.interpolate(given.picture().float(), given.event_shape[1:], mode="nearest")
    return given.truth[0].float(), seen[0]


def _restored(which: str, key: str, task: str, array: str, options: Options) -> Tensor | None:
    """What a contender believes of that event; None where the cell is not there."""
    path = cell_path(which, key, task, options).with_suffix(".npz")
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as file:
        return torch.from_numpy(file[array]).float()


def _strip(label: str, events: list[Tensor]) -> Picture:
    x = torch.stack(events)
    if label == "deviation":
        return grid(x, columns=len(x), low=0.0, high=float(x.quantile(0.99)), colours="magma")
    return grid(x, columns=len(x), low=0.0, high=255.0)

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
from benchmarks.domains import KEPT, TASKS, folder
from benchmarks.harness import ROOT, Options
from oneprior.apps.pictures import Picture, grid, stack

LINES = {
    "truth": ("diffusion-best", "truth"),
    "seen": ("diffusion-best", "seen"),
    "ppca, exact": ("ppca-best", "mean"),
    "BRGM": ("brgm-best", "mean"),
    "the same GAN,\nposterior mean": ("gan-best", "mean"),
    "diffusion,\nposterior mean": ("diffusion-best", "mean"),
    "a draw": ("diffusion-best", "draw"),
    "another": ("diffusion-calibrated", "draw"),
    "deviation": ("diffusion-calibrated", "std"),
}
"""What is shown -> the contender's key and the array that it kept."""


def draw(options: Options) -> list[Path]:
    """Write docs/pictures/domains-<domain>.png for each domain of which all lines are there."""
    made = []
    for which in NAMES:
        lines = []
        for label, (key, array) in LINES.items():
            row = [_event(which, key, task, k % KEPT, array, options) for k, task in enumerate(TASKS[which])]
            if all(event is not None for event in row):
                lines.append((label, _strip(label, [event for event in row if event is not None])))
        if lines:
            made.append(stack(lines).save(ROOT / "docs/pictures" / f"domains-{which}.png"))
            print(f"-> {made[-1]}: {', '.join(TASKS[which])}")
    return made


def _event(which: str, key: str, task: str, row: int, array: str, options: Options) -> Tensor | None:
    """One event as grey levels, (1, h, w), in the size of its truth; None where the cell is not there."""
    path = folder(options) / f"{which}-{key}-{task}.npz"
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as file:
        x, size = torch.from_numpy(file[array][row]).float(), file["truth"].shape[2:]
    return torch.nn.functional.interpolate(x[None], size, mode="nearest")[0]


def _strip(label: str, events: list[Tensor]) -> Picture:
    x = torch.stack(events)
    if label == "deviation":
        return grid(x, columns=len(x), low=0.0, high=float(x.quantile(0.99)), colours="magma")
    return grid(x, columns=len(x), low=0.0, high=255.0)

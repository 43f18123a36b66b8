"""The pictures of docs/optimise.md: what the data had at most, and what each contender found.

    python -m benchmarks beyond --only pictures

The best of the first seed lie beside the cells, a strip of grey levels each, so that they are there on any machine.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks import kept
from benchmarks.beyond_sets import NAMES, predicted, predictor, task
from benchmarks.harness import ROOT, Options
from oneprior.apps.pictures import grid, stack
from oneprior.core import replacing

COLUMNS = 8
LINES = {
    "exact": "exact search",
    "near": "exact, within\na few codes",
    "part": "exact, around\nthe mouth",
    "aimed": "exact, aimed at\nthe unseen mean",
    "genetic": "genetic search",
    "bayes": "vae and\nGaussian process",
    "random": "random codes",
}
"""Contender -> what stands beside its line."""


def draw(options: Options) -> list[Path]:
    """Write docs/pictures/optimise-<task>.png for each task that has strips."""
    made = []
    for name in NAMES:
        found = {said: x for key, said in LINES.items() if (x := _best(name, key, options)) is not None}
        if not found:
            continue
        told, score = task(name, options), predictor(name, 0, options)
        highest = told.low[torch.from_numpy(np.argsort(-predicted(score, told.low))[:COLUMNS].copy())]
        real = told.high[torch.linspace(0, len(told.high) - 1, COLUMNS).long()]
        lines = {"highest of\nthe data": highest, **found, "real, never seen": real}
        shown = [(said, grid(x, columns=COLUMNS)) for said, x in lines.items()]
        made.append(stack(shown).save(ROOT / "docs/pictures" / f"optimise-{name}.png"))
        print(f"-> {made[-1]}")
    return made


def keep(cell: Path, best: Tensor) -> None:
    """Write the strip of a cell: events in [-1, 1], (n, 1, h, w), of which the first `COLUMNS` are shown."""
    from PIL import Image

    levels = ((best[:COLUMNS, 0] + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    with replacing(cell.with_suffix(".png")) as partial:
        Image.fromarray(torch.cat(list(levels), 1).numpy()).save(partial, format="PNG")


def _best(name: str, contender: str, options: Options) -> Tensor | None:
    """The best candidates of the first seed, (COLUMNS, 1, h, w); None where there is no such strip."""
    from PIL import Image

    path = kept.folder("beyond", options) / f"{name}-{contender}-0.png"
    if not path.exists():
        return None
    strip = torch.from_numpy(np.asarray(Image.open(path)).copy())
    return torch.stack(strip.chunk(COLUMNS, 1))[:, None].float() / 127.5 - 1

"""What a training loop says of itself after each step; no torch here, so that a screen can be drawn at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Progress:
    """The state of a run after a step.

    Args:
        step: steps done.
        images: images seen, over all processes.
        fraction: share of the budget that is spent, 0 to 1.
        seconds: wall time of the training, earlier sessions of a resumed run included.
        seconds_left: the time that the rest will take at the present pace; None where nobody can know.
        losses: the newest means of the named losses and metrics.
        preview: the newest preview picture, if it was written at this step.
        held_out: the newest held-out loss, if it was measured at this step.
        stage: what is being done: "train", or a stage of a family of several ("autoencoder", "encoding").
        finished: True for the last state of the run.
    """

    step: int
    images: int
    fraction: float
    seconds: float
    seconds_left: float | None = None
    losses: Mapping[str, float] = field(default_factory=dict)
    preview: Path | None = None
    held_out: float | None = None
    stage: str = "train"
    finished: bool = False

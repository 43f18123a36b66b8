"""Settings of a training run; no torch here, so that the command line starts at once.

What is left None is taken from the family's own `Recipe`, so that the same three words (`--data`, `--out` and a budget)
train every family. The budget is counted in images, which makes a run exact, or in minutes, which makes it punctual:
under `images` the weights are a function of the data and these settings alone, and a killed run resumes to them bit for
bit on a CPU; under `minutes` the schedule follows the clock.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

DEFAULT_IMAGES = 500_000  # where the user gives no budget


@dataclass(frozen=True)
class TrainConfig:
    """How to train; every field has a default that works.

    Args:
        images: budget in images, rounded up to whole batches; not together with `minutes`.
        minutes: budget in minutes of wall time.
        batch_size: images of one step, over all processes together.
        accumulate: parts into which each process cuts its share of a batch, for small memory; gradients are summed.
        learning_rate: of Adam(W); None for the family's recipe.
        learning_rate_scale: what every learning rate is multiplied by: 0.1 for a short training that goes on from
            another, which else forgets in its first steps what that has learned.
        warmup_images: images of the linear warm-up; None for the first hundredth of the budget.
        decay: of the learning rate after the warm-up.
        ema: half-life of the averaged weights in images, 0 for none; None for the family's recipe.
        clip: largest gradient norm, 0 for none; None for the family's recipe.
        precision: of the networks; auto takes bf16 where the processor computes in it and the family allows it.
        compile: torch.compile; auto for long runs only, and never where a penalty needs double backward.
        channels_last: memory layout of 2-D networks; auto on a GPU, and on a CPU where bf16 is compiled.
        held_out: share of the data that is never trained on, 0 for none.
        evaluate_every: images between held-out losses; None for twenty of them in a run.
        keep: weights that the run keeps: the last, or the best by held-out loss.
        patience: stop after so many held-out losses without a better one; None never stops early.
        checkpoint_every: images between checkpoints; None for every five minutes.
        preview_every: images between preview pictures; None for ten of them in a run, 0 for none.
        previews: number of samples in a preview.
        log_every: steps between lines of metrics.jsonl.
        residual: events on which is measured what a decoder cannot say of them (`training.residual`), 0 for none.
        tracker: "tensorboard", "none", or another that accelerate knows ("wandb", "mlflow", ...).
        seed: of the first weights, the order of the data, the noise and the previews.
    """

    images: int | None = None
    minutes: float | None = None
    batch_size: int = 64
    accumulate: int = 1
    learning_rate: float | None = None
    learning_rate_scale: float = 1.0
    warmup_images: int | None = None
    decay: Literal["cosine", "constant", "inverse_sqrt"] = "cosine"
    ema: float | None = None
    clip: float | None = None
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: Literal["auto", "on", "off"] = "auto"
    channels_last: Literal["auto", "on", "off"] = "auto"
    held_out: float = 0.05
    evaluate_every: int | None = None
    keep: Literal["last", "best"] = "last"
    patience: int | None = None
    checkpoint_every: int | None = None
    preview_every: int | None = None
    previews: int = 16
    log_every: int = 50
    residual: int = 1024
    tracker: str = "tensorboard"
    seed: int = 0

    def __post_init__(self) -> None:
        self._need(self.images is None or self.minutes is None, "give a budget in images or in minutes, not in both")
        positive = ("images", "minutes", "batch_size", "accumulate", "patience", "previews")
        for name in (*positive, "learning_rate", "learning_rate_scale"):
            value = getattr(self, name)
            self._need(value is None or value > 0, f"{name} must be positive, got {value}")
        for name in ("warmup_images", "ema", "clip", "preview_every", "residual"):
            value = getattr(self, name)
            self._need(value is None or value >= 0, f"{name} must not be negative, got {value}")
        for name in ("evaluate_every", "checkpoint_every", "log_every"):
            value = getattr(self, name)
            self._need(value is None or value >= 1, f"{name} must be at least 1, got {value}")
        self._need(0 <= self.held_out < 1, f"held_out is a share of the data in [0, 1), got {self.held_out}")
        for name, known in _CHOICES.items():
            value = getattr(self, name)
            self._need(value in known, f"{name} is one of {', '.join(known)}; got {value!r}")

    @staticmethod
    def _need(held: bool, message: str) -> None:
        if not held:
            from oneprior.core import InputError

            raise InputError(message)

    def differences(self, other: TrainConfig) -> dict[str, tuple[Any, Any]]:
        """The settings that change the weights and differ: {name: (ours, theirs)}."""
        pairs = {f.name: (getattr(self, f.name), getattr(other, f.name)) for f in fields(self)}
        return {name: pair for name, pair in pairs.items() if name not in _WATCHING and pair[0] != pair[1]}


_CHOICES = {
    "decay": ("cosine", "constant", "inverse_sqrt"),
    "precision": ("auto", "fp32", "bf16"),
    "compile": ("auto", "on", "off"),
    "channels_last": ("auto", "on", "off"),
    "keep": ("last", "best"),
}
_WATCHING = {"checkpoint_every", "preview_every", "previews", "log_every", "residual", "tracker"}  # change no weight

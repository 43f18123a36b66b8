"""Closed forms of everything that changes while a run goes on: learning rate, averaging, budget.

All are functions of two numbers, the images seen and the share f of the budget spent, so that a resumed run needs no
state for them.

    warm-up         min(1, images / warmup)                       Goyal et al. 2017, arXiv:1706.02677, section 2.2
    cosine          (1 + cos(pi f)) / 2                           Loshchilov, Hutter 2017, arXiv:1608.03983, eq. 5
    inverse root    1 / sqrt(max(1, f / 0.1))                     Karras et al. 2024 (EDM2), arXiv:2312.02696, eq. 67
    EMA             0.5 ** (batch / min(half-life, images / 20))  Karras et al. 2022 (EDM), arXiv:2206.00364, code:
                    the ramp keeps the early average from remembering the first weights
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from oneprior.training.config import DEFAULT_IMAGES, TrainConfig

_REFERENCE = 0.1  # share of the budget after which the inverse square root sets in
_RAMP = 0.05  # the half-life is at most this share of the images seen
_WARMUP = 0.01  # share of the budget, where the user names no number of images


def warmup_factor(images: int, fraction: float, warmup_images: int | None = None) -> float:
    """The warm-up in [0, 1] for a step at whose end `images` are seen and `fraction` of the budget is spent."""
    if warmup_images is None:
        return min(1.0, fraction / _WARMUP)
    return min(1.0, images / warmup_images) if warmup_images else 1.0


def decay_factor(decay: str, fraction: float) -> float:
    """The decay in [0, 1] for a step at whose start `fraction` of the budget is spent."""
    if decay == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * min(1.0, fraction)))
    if decay == "inverse_sqrt":
        return 1.0 / math.sqrt(max(1.0, fraction / _REFERENCE))
    return 1.0


def ema_decay(batch: int, images: int, half_life: float) -> float:
    """How much of the average survives a step of `batch` images, `images` being seen at its end."""
    if half_life <= 0:
        return 0.0
    return 0.5 ** (batch / min(half_life, max(images, 1) * _RAMP))


@dataclass(frozen=True)
class Budget:
    """How long a run lasts.

    Args:
        images: whole batches, in images, or None.
        seconds: wall time, or None; one of the two is given.
    """

    images: int | None = None
    seconds: float | None = None

    @classmethod
    def of(cls, config: TrainConfig) -> Budget:
        """The budget of a run, images rounded up to whole batches."""
        if config.minutes is not None:
            return cls(seconds=config.minutes * 60)
        images = config.images or DEFAULT_IMAGES
        return cls(images=-(-images // config.batch_size) * config.batch_size)

    def fraction(self, images: int, seconds: float) -> float:
        """The share that is spent, 0 to 1."""
        spent = images / self.images if self.images is not None else seconds / (self.seconds or 1.0)
        return min(1.0, spent)

    def seconds_left(self, images: int, seconds: float, images_per_second: float) -> float | None:
        """What the rest will take at this pace; None before the pace is known."""
        if self.images is None:
            return max(0.0, (self.seconds or 0.0) - seconds)
        return (self.images - images) / images_per_second if images_per_second > 0 else None


def crossed(before: float, after: float, every: float) -> bool:
    """Whether a multiple of `every` lies in (before, after]; never where `every` is 0."""
    return every > 0 and math.floor(after / every + 1e-9) > math.floor(before / every + 1e-9)

"""Looking at a model without touching its training: the held-out loss, and previews."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from oneprior.core import Rows
from oneprior.data.batch import Dataset
from oneprior.models.base import Model
from oneprior.training.config import TrainConfig
from oneprior.training.numerics import uncompiled
from oneprior.training.order import part_of, seeded
from oneprior.training.parallel import Team
from oneprior.training.players import Losses

_MOST = 2048  # held-out events that are measured; the same ones each time


@contextmanager
def resting(model: Model, progress: float) -> Iterator[None]:
    """Inside: no gradients, evaluation mode, losses annealed as at `progress`, nothing compiled."""
    before, training = model.progress, model.training
    model.eval()
    model.progress = progress
    try:
        with torch.no_grad(), uncompiled():
            yield
    finally:
        model.progress = before
        model.train(training)


def held_out_loss(losses: Losses, data: Dataset, config: TrainConfig, device: torch.device) -> float:
    """The mean loss of the only player on the first 2,048 held-out events, with the same noise each time."""
    model = losses.model
    (player,) = model.players
    total, count = 0.0, min(len(data), _MOST)
    with resting(model, 1.0), seeded(config.seed, "held-out", device=device):
        for index in torch.arange(count).split(config.batch_size):
            batch = part_of(data.batch(index).to(device), slice(None), losses.numerics.layout)
            rows = Rows(index, seed=config.seed, stream="held-out", device=device)
            total += float(losses(batch, player, rows)[0]) * len(index)
    return total / count


def previews(model: Model, data: Dataset, config: TrainConfig, team: Team) -> dict[str, Tensor]:
    """The model's pictures of itself, of the same rows each time."""
    with resting(model, model.progress), seeded(config.seed, "preview", device=team.device):
        batch = data.batch(torch.arange(min(config.previews, len(data)))).to(team.device)
        rows = Rows(config.previews, seed=config.seed, stream="preview", device=team.device)
        return model.preview(rows, batch)

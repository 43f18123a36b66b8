"""Small models and data of this room's own, so that its tests need no family and no file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from oneprior.core import AffineMap, Geometry, Rows
from oneprior.data.batch import Batch, Dataset
from oneprior.models.base import ClosedFormModel, Model, Recipe
from oneprior.priors.base import NoisePrior, StandardNormal
from oneprior.priors.pushforward import push


class Blobs(Dataset):
    """Smooth random events, a function of their number alone."""

    def __init__(self, n: int = 60, shape: tuple[int, ...] = (1, 4, 4), seed: int = 0) -> None:
        self.event_shape, self.n, self.seed = torch.Size(shape), n, seed
        self.units, self.geometry = AffineMap.from_range(0, 255), Geometry(dtype="uint8", format="png")

    def __len__(self) -> int:
        return self.n

    def batch(self, index: Tensor) -> Batch:
        x = Rows(index, seed=self.seed, stream="blobs").normal(*self.event_shape)
        return Batch(torch.tanh(x.cumsum(-1) / 2), index=index)


@dataclass(frozen=True)
class ToyConfig:
    """Settings of `Toy`."""

    hidden: int = 6
    noise: float = 0.1
    dropout: float = 0.0
    explode_at: float = 2.0
    widths: tuple[int, ...] = (3, 4)


class Toy(Model):
    """A denoising autoencoder with a running mean, dropout, and a way to explode."""

    family = "toy"

    def __init__(self, config, event_shape, conditions=()) -> None:
        super().__init__(config, event_shape, conditions)
        size = self.event_shape.numel()
        self.encoder = nn.Linear(size, config.hidden)
        self.decoder = nn.Linear(config.hidden, size)
        self.unused = nn.Parameter(torch.ones(3))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(size))

    @property
    def players(self):
        return {"all": list(self.parameters())}

    def recipe(self, player):
        return Recipe(learning_rate=3e-3, ema=50.0, weight_decay=1e-2)

    def prepare(self, passes, rows):
        total = sum(len(batch) * batch.x.flatten(1).mean(0) for batch in passes())
        self.mean.copy_(total / sum(len(batch) for batch in passes()))

    def forward(self, batch, player, rows):
        x = batch.x.flatten(1) - self.mean
        noisy = x + self.config.noise * rows.normal(x.shape[1])
        h = nn.functional.dropout(self.encoder(noisy), self.config.dropout, self.training)
        loss = (self.decoder(h) - x).square().mean()
        if self.training and self.progress >= self.config.explode_at:
            loss = loss * float("nan")
        return {"square": loss, "metric/size": h.detach().square().mean()}

    def after_step(self, images):
        self.seen += images

    def prior(self, condition=None):
        shape = self.event_shape
        base = StandardNormal((self.config.hidden,), self.device)
        return push(base, lambda z: (self.decoder(z) + self.mean).tanh().reshape(-1, *shape), shape)


class Duel(Model):
    """Two players on a plane: the critic's and the generator's parameters must not move in each other's turn."""

    family = "duel"

    def __init__(self, config, event_shape, conditions=()) -> None:
        super().__init__(config, event_shape, conditions)
        size = self.event_shape.numel()
        self.critic, self.generator = nn.Linear(size, 1), nn.Linear(4, size)
        self.register_buffer("asked", torch.zeros(2, dtype=torch.int64))

    @property
    def players(self):
        return {"critic": list(self.critic.parameters()), "generator": list(self.generator.parameters())}

    def recipe(self, player):
        return Recipe(learning_rate=1e-2, ema=0.0 if player == "critic" else 100.0, clip=0.0, compile=False)

    def forward(self, batch, player, rows):
        real, fake = batch.x.flatten(1), self.generator(rows.normal(4))
        if player == "generator":
            self.asked[1] += any(p.requires_grad for p in self.critic.parameters())
            return {"generator": nn.functional.softplus(-self.critic(fake)).mean()}
        self.asked[0] += any(p.requires_grad for p in self.generator.parameters())
        x = real.clone().requires_grad_()
        score = self.critic(x)
        (slope,) = torch.autograd.grad(score.square().sum(), x, create_graph=True)
        loss = nn.functional.softplus(-score).mean() + nn.functional.softplus(self.critic(fake.detach())).mean()
        return {"critic": loss, "penalty": slope.square().sum(1).mean()}

    def prior(self, condition=None):
        return push(StandardNormal((4,)), lambda z: self.generator(z).reshape(-1, *self.event_shape), self.event_shape)


class MeanModel(ClosedFormModel):
    """Fitted by two passes: the mean, then the spread."""

    family = "mean"

    def __init__(self, config, event_shape, conditions=()) -> None:
        super().__init__(config, event_shape, conditions)
        self.register_buffer("mean", torch.zeros(*event_shape))
        self.register_buffer("spread", torch.zeros(()))

    def fit_passes(self, passes, rows) -> Iterator[dict[str, float]]:
        self.mean.copy_(torch.cat([batch.x for batch in passes()]).mean(0))
        yield {"mean": float(self.mean.mean())}
        self.spread.copy_((torch.cat([batch.x for batch in passes()]) - self.mean).std())
        yield {"spread": float(self.spread)}

    def prior(self, condition=None) -> NoisePrior:
        return push(StandardNormal(self.event_shape), lambda u: self.mean + self.spread * u, self.event_shape)

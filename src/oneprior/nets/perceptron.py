"""Fully connected players: a small pair for events of a few numbers, and the pair of the first GAN paper.

`GoodfellowGenerator` and `GoodfellowCritic` are the networks with which Goodfellow et al. 2014 modelled MNIST, after
the authors' settings (github.com/goodfeli/adversarial, mnist.yaml): uniform noise on [-sqrt 3, sqrt 3], two layers of
1200 rectifiers and a sigmoid; against it two layers of 240 maxout units of 5 pieces (Goodfellow et al. 2013), dropout
that keeps 0.8 of the pixels and 0.5 of the units, scaled up when training. Weights start uniform in +-0.05 and
+-0.005, and the last bias of the generator at the logit of the data's mean.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from oneprior.core import ConditionSpec, Rows
from oneprior.nets.adversarial import ConditionImage, ConditionVector, Critic, Generator, Given
from oneprior.nets.convnet import GAIN, SLOPE, ProjectionHead, he_start


class Told(nn.Module):
    """All conditions as one flat vector, images at the event's own size among them; (n, width), width 0 for none."""

    def __init__(self, conditions: tuple[ConditionSpec, ...], event_shape: torch.Size, width: int) -> None:
        super().__init__()
        self.space = torch.Size(event_shape[1:])
        self.vector = ConditionVector(conditions, width)
        self.image = ConditionImage(conditions, len(self.space))
        self.width = self.vector.width + self.image.channels * math.prod(self.space)

    def forward(self, given: Given, like: Tensor) -> Tensor:
        n = like.shape[0]
        plane = self.image(given, n, self.space)
        parts = [self.vector(given, n), None if plane is None else plane.flatten(1)]
        return torch.cat([like.new_zeros(n, 0), *[p for p in parts if p is not None]], 1)


class MLPGenerator(Generator):
    """z -> `blocks` hidden layers of `width` leaky rectifiers -> event."""

    def __init__(
        self,
        event_shape: torch.Size | tuple[int, ...],
        conditions: tuple[ConditionSpec, ...] = (),
        *,
        latent: int = 64,
        width: int = 256,
        blocks: int = 3,
    ) -> None:
        super().__init__()
        self.event_shape, self.latent = torch.Size(event_shape), latent
        self.told = Told(conditions, self.event_shape, latent)
        self.hidden = _hidden(latent + self.told.width, width, blocks)
        self.out = he_start(nn.Linear(width, self.event_shape.numel()), 1.0)

    def forward(self, z: Tensor, given: Given, noise: Tensor | None = None) -> Tensor:
        h = self.hidden(torch.cat([z, self.told(given, z)], 1))
        return self.out(h).reshape(-1, *self.event_shape)


class MLPCritic(Critic):
    """event -> `blocks` hidden layers of `width` leaky rectifiers -> one logit."""

    def __init__(
        self,
        event_shape: torch.Size | tuple[int, ...],
        conditions: tuple[ConditionSpec, ...] = (),
        *,
        width: int = 256,
        blocks: int = 3,
    ) -> None:
        super().__init__()
        shape = torch.Size(event_shape)
        self.told = Told(conditions, shape, 64)
        self.hidden = _hidden(shape.numel() + self.told.width, width, blocks)
        self.head = ProjectionHead(width, 0)

    def forward(self, x: Tensor, given: Given, rows: Rows | None = None) -> Tensor:
        return self.head(self.hidden(torch.cat([x.flatten(1), self.told(given, x)], 1)), None)


class GoodfellowGenerator(Generator):
    """Uniform noise -> 1200 rectifiers -> 1200 rectifiers -> sigmoid, then mapped from [0, 1] to [-1, 1].

    z is standard normal like everywhere in the house; its distribution function makes the uniform noise.
    """

    def __init__(
        self,
        event_shape: torch.Size | tuple[int, ...],
        conditions: tuple[ConditionSpec, ...] = (),
        *,
        latent: int = 100,
        width: int = 1200,
    ) -> None:
        super().__init__()
        self.event_shape, self.latent = torch.Size(event_shape), latent
        self.told = Told(conditions, self.event_shape, latent)
        self.layers = nn.ModuleList(
            _uniform_start(nn.Linear(a, b), 0.05)
            for a, b in [(latent + self.told.width, width), (width, width), (width, self.event_shape.numel())]
        )

    def forward(self, z: Tensor, given: Given, noise: Tensor | None = None) -> Tensor:
        uniform = math.sqrt(3.0) * torch.erf(z / math.sqrt(2.0))
        h = torch.cat([uniform, self.told(given, z)], 1)
        for layer in self.layers[:-1]:
            h = F.relu(layer(h))
        return (2.0 * torch.sigmoid(self.layers[-1](h)) - 1.0).reshape(-1, *self.event_shape)

    @torch.no_grad()
    def start_at(self, mean: Tensor) -> None:
        """Set the last bias to the logit of the data's mean, (*event_shape) in [-1, 1], kept from 0 and 1 by 0.001."""
        bias = self.layers[-1].bias
        bias.copy_(torch.logit(((mean + 1) / 2).clamp(1e-3, 1 - 1e-3)).flatten())  # type: ignore[union-attr]


class GoodfellowCritic(Critic):
    """Maxout 240 x 5 -> maxout 240 x 5 -> logit, with dropout that keeps 0.8, 0.5 and 0.5 of what each layer reads."""

    keep = (0.8, 0.5, 0.5)

    def __init__(
        self,
        event_shape: torch.Size | tuple[int, ...],
        conditions: tuple[ConditionSpec, ...] = (),
        *,
        units: int = 240,
        pieces: int = 5,
    ) -> None:
        super().__init__()
        shape = torch.Size(event_shape)
        self.units = units
        self.told = Told(conditions, shape, 64)
        self.layers = nn.ModuleList(
            _uniform_start(nn.Linear(a, b), 0.005)
            for a, b in [(shape.numel() + self.told.width, units * pieces), (units, units * pieces), (units, 1)]
        )

    def forward(self, x: Tensor, given: Given, rows: Rows | None = None) -> Tensor:
        h = torch.cat([(x.flatten(1) + 1.0) / 2.0, self.told(given, x)], 1)
        for layer, keep in zip(self.layers, self.keep, strict=True):
            if rows is not None:
                h = h * (rows.uniform(h.shape[1]).to(h) < keep) / keep
            h = layer(h)
            if h.shape[1] > 1:
                h = h.unflatten(1, (self.units, -1)).amax(2)
        return h.squeeze(1)


def _hidden(inputs: int, width: int, layers: int) -> nn.Sequential:
    sizes = [inputs] + [width] * layers
    parts: list[nn.Module] = []
    for a, b in zip(sizes[:-1], sizes[1:], strict=True):
        parts += [he_start(nn.Linear(a, b), GAIN), nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*parts)


def _uniform_start(layer: nn.Linear, limit: float) -> nn.Linear:
    with torch.no_grad():
        layer.weight.uniform_(-limit, limit)
        layer.bias.zero_()
    return layer

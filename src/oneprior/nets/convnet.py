"""A small convolutional generator and critic for lines, pictures and volumes, after R3GAN.

Huang, Gokaslan, Kuleshov and Tompkin 2024, "The GAN is dead; long live the GAN!", removed from StyleGAN2 all that a
well-regularised loss makes needless (mapping network, styles, noise, minibatch statistics, equalised rates) and put a
modern residual network in its place. What is kept here:

- no normalisation anywhere: stability comes from the loss and from the start;
- residual blocks 1x1 -> grouped kxk -> 1x1 with twice the channels inside and about 16 channels a group;
- the start of Zhang, Dauphin and Ma 2019 ("Fixup"): in a network of L residual blocks of three layers the first two
  layers of each are scaled by L^(-1/4), and the last is zero, so that every block starts as the identity;
- leaky rectifiers with a bias each, and nothing non-linear on the residual trunk;
- linear resampling between levels, never strided convolution;
- a learned picture at the coarsest level, multiplied channel by channel by a linear map of z; the critic ends with
  its mirror, one learned picture a channel that is correlated with the features.

Departures, all for the sake of any event on any machine: sizes are halved axis by axis until at most 6 are left (the
paper has powers of two); channels double at each coarser level instead of being constant, since the finest level
costs most; and for the same reason that level may work on patches, `patch` samples along each axis at once, which
cuts its cost by as many times.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from oneprior.core import ConditionSpec, Rows, ShapeError
from oneprior.nets.adversarial import ConditionImage, ConditionVector, Critic, Generator, Given, resize
from oneprior.nets.dims import CONV

SLOPE = 0.2
GAIN = math.sqrt(2.0 / (1.0 + SLOPE**2))
_COARSEST = 6
_Layer = TypeVar("_Layer", nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def level_sizes(size: Sequence[int]) -> list[tuple[int, ...]]:
    """The grids from the finest to the coarsest: every axis is halved, upwards rounded, until at most 6 are left."""
    sizes = [tuple(size)]
    while max(sizes[-1]) > _COARSEST:
        sizes.append(tuple(-(-s // 2) if s > _COARSEST else s for s in sizes[-1]))
    return sizes


def to_patches(x: Tensor, patch: int) -> Tensor:
    """Each block of `patch` samples an axis becomes channels; far edges are padded by repetition.

    (n, c, *space) -> (n, c patch^dims, *ceil(space / patch)).
    """
    if patch == 1:
        return x
    dims = x.dim() - 2
    over = [-s % patch for s in x.shape[2:]]
    if any(over):
        x = F.pad(x, [k for o in reversed(over) for k in (0, o)], mode="replicate")
    for axis in range(dims):  # (n, c, a, b, ...) -> (n, c, a / p, p, b / p, p, ...)
        x = x.unflatten(2 + 2 * axis, (-1, patch))
    order = [0, 1, *range(3, 2 + 2 * dims, 2), *range(2, 2 + 2 * dims, 2)]
    return x.permute(order).flatten(1, 1 + dims)


def from_patches(x: Tensor, patch: int, size: torch.Size | tuple[int, ...]) -> Tensor:
    """(n, c patch^dims, *ceil(size / patch)) -> (n, c, *size); what stands over is cut off."""
    if patch == 1:
        return x
    dims = x.dim() - 2
    x = x.unflatten(1, (-1, *[patch] * dims))
    order = [0, 1]
    for axis in range(dims):
        order += [2 + dims + axis, 2 + axis]
    x = x.permute(order)
    for axis in range(dims):
        x = x.flatten(2 + axis, 3 + axis)
    return x[(slice(None), slice(None), *[slice(s) for s in size])]


def level_widths(width: int, levels: int, growth: int = 4) -> list[int]:
    """Channels from the finest level to the coarsest: doubled at each, at most `growth` times the first."""
    return [width * min(2**k, growth) for k in range(levels)]


class ConvGenerator(Generator):
    """z -> learned basis -> residual blocks and linear upsampling -> event.

    Args:
        event_shape: (channels, *space) with 1, 2 or 3 axes.
        conditions: what it can be told; images are added at every level through a 1x1 convolution.
        latent: length of z.
        width: channels at the finest level.
        blocks: residual blocks at each level.
        patch: samples along each axis that the finest level takes at once.
        growth: most channels, in units of `width`.
    """

    def __init__(
        self,
        event_shape: torch.Size | tuple[int, ...],
        conditions: tuple[ConditionSpec, ...] = (),
        *,
        latent: int = 64,
        width: int = 32,
        blocks: int = 1,
        patch: int = 1,
        growth: int = 4,
    ) -> None:
        super().__init__()
        channels, dims = _channels_and_axes(event_shape)
        self.latent, self.patch, self.space = latent, patch, torch.Size(event_shape[1:])
        self.sizes = level_sizes([-(-s // patch) for s in self.space])[::-1]
        widths = level_widths(width, len(self.sizes), growth)[::-1]
        self.given_vector = ConditionVector(conditions, latent)
        self.given_image = ConditionImage(conditions, dims)
        self.basis = nn.Parameter(torch.randn(widths[0], *self.sizes[0]))
        self.start = he_start(nn.Linear(latent + self.given_vector.width, widths[0], bias=False), 1.0)
        total = blocks * len(widths)
        self.change = nn.ModuleList(_change(a, b, dims) for a, b in zip(widths[:1] + widths[:-1], widths, strict=True))
        self.stages = nn.ModuleList(nn.Sequential(*[Residual(w, total, dims) for _ in range(blocks)]) for w in widths)
        self.picture = nn.ModuleList(_picture_input(self.given_image.channels, w, dims) for w in widths)
        self.out = he_start(CONV[dims](widths[-1], channels * patch**dims, 1), 1.0)

    def forward(self, z: Tensor, given: Given, noise: Tensor | None = None) -> Tensor:
        n = z.shape[0]
        told = self.given_vector(given, n)
        scale = self.start(z if told is None else torch.cat([z, told], 1))
        h = self.basis * scale.reshape(n, -1, *[1] * (self.basis.dim() - 1))
        for size, change, picture, stage in zip(self.sizes, self.change, self.picture, self.stages, strict=True):
            h = resize(change(h), size)
            plane = self.given_image(given, n, torch.Size(size))
            h = stage(h if plane is None else h + picture(plane))
        return from_patches(self.out(h), self.patch, self.space)


class ConvCritic(Critic):
    """event -> residual blocks and averaging -> learned basis -> one logit; the mirror of `ConvGenerator`."""

    def __init__(
        self,
        event_shape: torch.Size | tuple[int, ...],
        conditions: tuple[ConditionSpec, ...] = (),
        *,
        width: int = 32,
        blocks: int = 1,
        patch: int = 1,
        growth: int = 4,
    ) -> None:
        super().__init__()
        channels, dims = _channels_and_axes(event_shape)
        self.patch = patch
        self.sizes = level_sizes([-(-s // patch) for s in event_shape[1:]])
        widths = level_widths(width, len(self.sizes), growth)
        last = widths[-1]
        self.given_vector = ConditionVector(conditions, last)
        self.given_image = ConditionImage(conditions, dims)
        total = blocks * len(widths)
        self.enter = he_start(CONV[dims]((channels + self.given_image.channels) * patch**dims, widths[0], 1), 1.0)
        self.change = nn.ModuleList(_change(a, b, dims) for a, b in zip(widths[:1] + widths[:-1], widths, strict=True))
        self.stages = nn.ModuleList(nn.Sequential(*[Residual(w, total, dims) for _ in range(blocks)]) for w in widths)
        self.basis = nn.Parameter(torch.randn(last, *self.sizes[-1]) / math.sqrt(math.prod(self.sizes[-1])))
        self.head = ProjectionHead(last, self.given_vector.width)

    def forward(self, x: Tensor, given: Given, rows: Rows | None = None) -> Tensor:
        n = x.shape[0]
        plane = self.given_image(given, n, x.shape[2:])
        h = self.enter(to_patches(x if plane is None else torch.cat([x, plane], 1), self.patch))
        for size, change, stage in zip(self.sizes, self.change, self.stages, strict=True):
            h = stage(change(resize(h, size)))
        return self.head((h * self.basis).flatten(2).sum(2), self.given_vector(given, n))


class ProjectionHead(nn.Module):
    """psi(phi) + <embedding, V phi> / sqrt(width): features (n, width) -> logits (n,) (Miyato and Koyama 2018)."""

    def __init__(self, width: int, given: int) -> None:
        super().__init__()
        self.score = he_start(nn.Linear(width, 1), 1.0)
        self.project = he_start(nn.Linear(width, given, bias=False), 1.0) if given else None

    def forward(self, features: Tensor, told: Tensor | None) -> Tensor:
        logit = self.score(features).squeeze(1)
        if self.project is None or told is None:
            return logit
        return logit + (self.project(features) * told).sum(1) / math.sqrt(told.shape[1])


class Residual(nn.Module):
    """x + W3 act(W2 act(W1 x)), W2 grouped kxk, W3 = 0 at the start; (n, width, *space) to the same.

    Args:
        width: channels of the trunk.
        total: residual blocks in the whole network, for the scale of the start.
        dims: number of spatial axes.
    """

    def __init__(self, width: int, total: int, dims: int) -> None:
        super().__init__()
        conv, inside = CONV[dims], 2 * width
        groups = math.gcd(inside, max(1, inside // 16))
        gain = GAIN * total**-0.25
        self.widen = he_start(conv(width, inside, 1), gain)
        self.mix = he_start(conv(inside, inside, 3, padding=1, groups=groups), gain)
        self.narrow = he_start(conv(inside, width, 1, bias=False), 0.0)

    def forward(self, x: Tensor) -> Tensor:
        h = F.leaky_relu(self.widen(x), SLOPE)
        return x + self.narrow(F.leaky_relu(self.mix(h), SLOPE))


def he_start(layer: _Layer, gain: float) -> _Layer:
    """Normal weights of standard deviation gain / sqrt(inputs), zero bias (He et al. 2015); gives the layer back."""
    with torch.no_grad():
        layer.weight.normal_().mul_(gain / math.sqrt(layer.weight[0].numel()))
        if layer.bias is not None:
            layer.bias.zero_()
    return layer


def _change(inside: int, outside: int, dims: int) -> nn.Module:
    """Another number of channels between two levels, or nothing to do."""
    return nn.Identity() if inside == outside else he_start(CONV[dims](inside, outside, 1, bias=False), 1.0)


def _picture_input(channels: int, width: int, dims: int) -> nn.Module:
    return he_start(CONV[dims](channels, width, 1), 1.0) if channels else nn.Identity()


def _channels_and_axes(event_shape: torch.Size | tuple[int, ...]) -> tuple[int, int]:
    if len(event_shape) - 1 not in CONV:
        raise ShapeError(
            "event",
            event_shape,
            "(channels, *space) with 1, 2 or 3 spatial axes",
            "Use network='mlp' for other events.",
        )
    return event_shape[0], len(event_shape) - 1

"""Encoders and decoders: events to latents and back, for 1-D, 2-D and 3-D events.

An encoder halves the event k times (`downsample` = 2^k) and ends in a grid of channels, or in one vector; a decoder
is its mirror image. The light pair, written here, does its work on the halved grids: its one operation at full
resolution is a thin convolution. The usual design (Esser, Rombach, Ommer 2021, "Taming transformers", which
diffusers' `AutoencoderKL` and MONAI's follow) runs residual blocks at full resolution too, and pays for it. On
Fashion-MNIST, 45 CPU seconds each on one thread, same objective and 4x7x7 latents, reconstructions of 2,000 test
images: light pair 26.0 dB, `AutoencoderKL` of the same widths 21.1 dB, for the light one takes three times the steps
and decodes three times as fast. So it is the default, and `DiffusersAutoencoder` stands beside it for what must be
read by diffusers (`LDMPipeline`) or comes from it.

Sizes that 2^k does not divide are padded with the edge's value, and cropped after decoding. Tiny events (8x8 digits)
take a pair of multilayer perceptrons. What an encoder and a decoder are told (`told`, one vector a row) is added to
the features at both ends.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from oneprior.core import InputError, ShapeError
from oneprior.nets.dims import CONV

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, VQModel

_TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


def latent_grid(space: tuple[int, ...] | torch.Size, downsample: int) -> torch.Size:
    """The spatial shape of the latents: every size divided by `downsample`, rounded up.

    Raises:
        InputError: if `downsample` is no power of two, or an axis is shorter than it.
    """
    if downsample < 1 or downsample & (downsample - 1):
        raise InputError(f"downsample must be a power of two (1, 2, 4, 8 ...), got {downsample}")
    if min(space) < downsample:
        raise InputError(
            f"an event of {'x'.join(map(str, space))} cannot be halved down by {downsample}: "
            f"give larger events, or downsample at most {1 << int(math.log2(min(space)))}"
        )
    return torch.Size(-(-s // downsample) for s in space)


class Residual(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))), widths unchanged; starts as the identity."""

    def __init__(self, dims: int, width: int) -> None:
        super().__init__()
        conv = CONV[dims]
        self.body = nn.Sequential(
            _norm(width), nn.SiLU(), conv(width, width, 3, padding=1),
            _norm(width), nn.SiLU(), conv(width, width, 3, padding=1),
        )  # fmt: skip
        last = cast(nn.Conv2d, self.body[-1])
        nn.init.zeros_(last.weight)
        nn.init.zeros_(cast(Tensor, last.bias))

    def forward(self, x: Tensor) -> Tensor:
        """(n, width, *grid) -> the same shape."""
        return x + self.body(x)


class ConvEncoder(nn.Module):
    """(n, channels, *space) -> (n, out, *grid), or (n, out) with `vector`.

    Args:
        event_shape: (channels, *space), 1, 2 or 3 spatial axes.
        out: channels of the result, or its length with `vector`.
        downsample: power of two; the grid is the event divided by it, rounded up.
        width: channels after the first halving; doubled at each further one, up to four times.
        blocks: residual blocks a level (one more at the last).
        vector: end in one vector rather than a grid.
        told: length of the vector that it is told, or 0.
    """

    def __init__(
        self,
        event_shape: torch.Size | tuple[int, ...],
        out: int,
        *,
        downsample: int = 4,
        width: int = 32,
        blocks: int = 1,
        vector: bool = False,
        told: int = 0,
    ) -> None:
        super().__init__()
        channels, *space = event_shape
        dims, self.grid = len(space), latent_grid(tuple(space), downsample)
        self.padding = _padding(space, self.grid, downsample)
        widths = _widths(width, downsample)
        conv = CONV[dims]
        layers: list[nn.Module] = [] if downsample > 1 else [conv(channels, widths[0], 3, padding=1)]
        for level, (a, b) in enumerate(zip([channels, *widths[:-1]], widths, strict=True) if downsample > 1 else ()):
            layers.append(conv(a, b, 4, stride=2, padding=1))
            last = level == len(widths) - 1
            layers.extend(Residual(dims, b) for _ in range(blocks + last))
        if downsample == 1:
            layers.extend(Residual(dims, widths[0]) for _ in range(blocks + 1))
        self.stem, self.trunk = layers[0], nn.Sequential(*layers[1:], _norm(widths[-1]), nn.SiLU())
        self.told = nn.Linear(told, widths[0]) if told else None
        self.head: nn.Module = conv(widths[-1], out, 1)
        if vector:
            self.head = nn.Sequential(nn.Flatten(), nn.Linear(widths[-1] * self.grid.numel(), out))

    def forward(self, x: Tensor, told: Tensor | None = None) -> Tensor:
        """(n, *event_shape), (n, told) -> (n, out, *grid) or (n, out)."""
        h = self.stem(F.pad(x, self.padding, mode="replicate") if any(self.padding) else x)
        return self.head(self.trunk(_add(h, self.told, told)))


class ConvDecoder(nn.Module):
    """The mirror image of `ConvEncoder`: (n, latent, *grid), or (n, latent) with `vector`, -> (n, *event_shape)."""

    def __init__(
        self,
        event_shape: torch.Size | tuple[int, ...],
        latent: int,
        *,
        downsample: int = 4,
        width: int = 32,
        blocks: int = 1,
        vector: bool = False,
        told: int = 0,
    ) -> None:
        super().__init__()
        channels, *space = event_shape
        dims, self.grid = len(space), latent_grid(tuple(space), downsample)
        padding = _padding(space, self.grid, downsample)
        first = list(reversed(padding[::2]))
        self.crop = (..., *(slice(p, p + s) for p, s in zip(first, space, strict=True)))
        widths = _widths(width, downsample)
        top, conv = widths[-1], CONV[dims]
        self.stem: nn.Module = conv(latent, top, 3, padding=1)
        if vector:
            self.stem = nn.Sequential(nn.Linear(latent, top * self.grid.numel()), nn.Unflatten(1, (top, *self.grid)))
        self.told = nn.Linear(told, top) if told else None
        layers: list[nn.Module] = [Residual(dims, top)]
        thin = max(8, width // 2)
        for level in reversed(range(len(widths))):
            layers.extend(Residual(dims, widths[level]) for _ in range(blocks))
            if downsample > 1:
                below = widths[level - 1] if level else thin
                layers.append(_TRANSPOSED[dims](widths[level], below, 4, stride=2, padding=1))
        end = thin if downsample > 1 else top
        self.trunk = nn.Sequential(*layers, nn.SiLU(), conv(end, channels, 3, padding=1))

    def forward(self, z: Tensor, told: Tensor | None = None) -> Tensor:
        """(n, latent, *grid) or (n, latent), (n, told) -> (n, *event_shape)."""
        return self.trunk(_add(self.stem(z), self.told, told))[self.crop].contiguous()


class MLPEncoder(nn.Module):
    """(n, *event_shape) -> (n, out), by two hidden layers: for events of a few hundred numbers."""

    def __init__(self, event_shape: torch.Size | tuple[int, ...], out: int, *, width: int = 256, told: int = 0) -> None:
        super().__init__()
        self.net = _perceptron(math.prod(event_shape) + told, width, out)

    def forward(self, x: Tensor, told: Tensor | None = None) -> Tensor:
        """(n, *event_shape), (n, told) -> (n, out)."""
        return self.net(_beside(x.flatten(1), told))


class MLPDecoder(nn.Module):
    """(n, latent) -> (n, *event_shape), the mirror image of `MLPEncoder`."""

    def __init__(
        self, event_shape: torch.Size | tuple[int, ...], latent: int, *, width: int = 256, told: int = 0
    ) -> None:
        super().__init__()
        self.net = _perceptron(latent + told, width, math.prod(event_shape))
        self.event_shape = tuple(event_shape)

    def forward(self, z: Tensor, told: Tensor | None = None) -> Tensor:
        """(n, latent), (n, told) -> (n, *event_shape)."""
        return self.net(_beside(z, told)).unflatten(1, self.event_shape)


class DiffusersAutoencoder(nn.Module):
    """diffusers' `AutoencoderKL` or `VQModel` behind this room's two calls; 2-D, edges padded and cropped.

    Args:
        net: the diffusers model, made by `diffusers_autoencoder` or loaded from a folder.
        event_shape: (channels, height, width).

    Raises:
        ShapeError: if the event's channels are not the network's.
    """

    def __init__(self, net: AutoencoderKL | VQModel, event_shape: torch.Size | tuple[int, ...]) -> None:
        super().__init__()
        config = cast(Any, net).config
        if len(event_shape) != 3 or event_shape[0] != config.in_channels:
            raise ShapeError(
                "the events of a diffusers autoencoder", event_shape, (config.in_channels, "height", "width")
            )
        downsample = 1 << (len(config.block_out_channels) - 1)
        self.net, self.grid = net, latent_grid(tuple(event_shape[1:]), downsample)
        self.padding = _padding(list(event_shape[1:]), self.grid, downsample)
        top, left = self.padding[2], self.padding[0]
        self.crop = (..., slice(top, top + event_shape[1]), slice(left, left + event_shape[2]))

    def encode(self, x: Tensor) -> Tensor:
        """(n, *event_shape) -> what the quantisation convolution gives, (n, channels, *grid)."""
        net = cast(Any, self.net)
        h = net.encoder(F.pad(x, self.padding, mode="replicate") if any(self.padding) else x)
        return h if net.quant_conv is None else net.quant_conv(h)

    def decode(self, z: Tensor) -> Tensor:
        """(n, latent, *grid) -> (n, *event_shape); a `VQModel`'s z is quantised already."""
        net = cast(Any, self.net)
        return net.decoder(z if net.post_quant_conv is None else net.post_quant_conv(z))[self.crop]


def diffusers_autoencoder(
    channels: int, latent: int, *, downsample: int = 4, width: int = 32, blocks: int = 1, codes: int = 0
) -> AutoencoderKL | VQModel:
    """A small `AutoencoderKL`, or a `VQModel` where `codes` > 0, without attention; scaling factor 1.

    Args:
        channels: of the event.
        latent: channels of the latents.
        downsample: power of two.
        width: channels at full resolution; doubled at each halving, up to four times.
        blocks: residual blocks a level.
        codes: size of the codebook.
    """
    from diffusers import AutoencoderKL, VQModel

    levels = downsample.bit_length()
    widths = tuple(min(width << level, 4 * width) for level in range(levels))
    shared: dict[str, Any] = {
        "in_channels": channels,
        "out_channels": channels,
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "block_out_channels": widths,
        "layers_per_block": blocks,
        "latent_channels": latent,
        "norm_num_groups": math.gcd(8, width),
        "scaling_factor": 1.0,
        "mid_block_add_attention": False,
        "force_upcast": False,
    }
    return VQModel(num_vq_embeddings=codes, **shared) if codes else AutoencoderKL(**shared)


def _widths(width: int, downsample: int) -> list[int]:
    return [min(width << level, 4 * width) for level in range(max(1, downsample.bit_length() - 1))]


def _padding(space: list[int], grid: torch.Size, downsample: int) -> list[int]:
    """For `F.pad`: both sides of every axis, the last axis first."""
    total = [g * downsample - s for g, s in zip(grid, space, strict=True)]
    return [side for t in reversed(total) for side in (t // 2, t - t // 2)]


def _norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(8, width), width)


def _add(h: Tensor, project: nn.Linear | None, told: Tensor | None) -> Tensor:
    return h if project is None else h + project(told).reshape(*h.shape[:2], *[1] * (h.dim() - 2))


def _beside(x: Tensor, told: Tensor | None) -> Tensor:
    return x if told is None else torch.cat([x, told], 1)


def _perceptron(a: int, width: int, b: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(a, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, b))


def diffusers_copy(encoder: nn.Module, network: str) -> Any:
    """A copy of the diffusers network behind an autoencoder, for export.

    Args:
        encoder: the autoencoder's encoder.
        network: its name in the settings, for the message.

    Raises:
        InputError: where the network is not diffusers' own.
    """
    if not isinstance(encoder, DiffusersAutoencoder):
        raise InputError(
            f"this autoencoder's network is {network!r}, which diffusers cannot read: "
            "train the autoencoder with network='diffusers' to export it"
        )
    net = cast(Any, encoder.net)
    copy = type(net).from_config(net.config)
    copy.load_state_dict(net.state_dict())
    return copy

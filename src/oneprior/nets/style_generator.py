"""The generator of StyleGAN2: z -> mapping network -> w -> modulated synthesis with noise, in the official layout.

A network of fully connected layers maps z, brought to unit length per entry, to a style w; the picture is built from
a learned constant by modulated convolutions, each of which reads w through an affine map, and each level adds its own
picture to the doubled picture of the level below (skip architecture). Every convolution also adds one plane of noise,
scaled by a learned strength that starts at zero: pores and hair that no style should have to describe.

The names of parameters and buffers are those of the official networks (`mapping.fc0.weight`,
`synthesis.b16.conv0.affine.weight`, ...), and the functions agree to rounding, so that official weights load; only
labels are embedded differently (an embedding's row is the official column over sqrt(classes), plus the bias).

Truncation (Karras et al. 2019, section 2.2 and appendix B): w' = w_avg + psi (w - w_avg), with w_avg the running mean
of w over training, trades diversity for typicality.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from oneprior.core import ConditionSpec, InputError, Rows, ShapeError
from oneprior.nets.adversarial import ConditionVector, Generator, Given
from oneprior.nets.convnet import from_patches
from oneprior.nets.stylegan import (
    EqualLinear,
    activate,
    clamped,
    modulated_conv,
    resample_filter,
    style_grids,
    style_widths,
    unit_second_moment,
    upsample2,
)


class StyleGenerator(Generator):
    """Mapping and synthesis as one map, x = synthesis(mapping(z)).

    Args:
        event_shape: (channels, height, width) of any size from 4 on.
        conditions: labels, vectors or tokens.
        latent: length of z.
        style: length of w.
        width: channels at the finest level.
        max_width: most channels at any level.
        mapping_layers: depth of the mapping network.
        clamp: features and pictures of every level are kept within +- this ("conv_clamp"); 0 does not.
        patch: pixels along each axis that the finest level makes at once, as channels; official networks have 1.
    """

    def __init__(
        self,
        event_shape: torch.Size | tuple[int, ...],
        conditions: tuple[ConditionSpec, ...] = (),
        *,
        latent: int = 64,
        style: int = 64,
        width: int = 16,
        max_width: int = 512,
        mapping_layers: int = 2,
        clamp: float = 0.0,
        patch: int = 1,
    ) -> None:
        super().__init__()
        check_style_event(event_shape, conditions, patch)
        self.latent = latent
        self.synthesis = Synthesis(torch.Size(event_shape), style, width, max_width, clamp, patch)
        self.mapping = Mapping(conditions, latent, style, self.synthesis.num_ws, mapping_layers)
        self.noise_size = self.synthesis.noise_size

    def forward(self, z: Tensor, given: Given, noise: Tensor | None = None) -> Tensor:
        return self.synthesis(self.mapping(z, given), noise)


class Mapping(nn.Module):
    """z (and what is given) -> w, repeated for each layer of the synthesis.

    Args:
        conditions: labels, vectors or tokens, embedded at the length of w.
        latent: length of z.
        style: length of w.
        num_ws: layers of the synthesis.
        layers: depth; every layer learns at 0.01 of the common rate.
    """

    w_avg: Tensor

    def __init__(
        self, conditions: tuple[ConditionSpec, ...], latent: int, style: int, num_ws: int, layers: int
    ) -> None:
        super().__init__()
        self.num_ws, self.style, self.layers = num_ws, style, layers
        self.embed = ConditionVector(conditions, style)
        for i in range(layers):
            self.add_module(f"fc{i}", EqualLinear(style if i else latent + self.embed.width, style, rate=0.01))
        self.register_buffer("w_avg", torch.zeros(style))

    def style_of(self, z: Tensor, given: Given) -> Tensor:
        """(n, latent) -> w, (n, style)."""
        h = unit_second_moment(z)
        told = self.embed(given, z.shape[0])
        if told is not None:
            h = torch.cat([h, unit_second_moment(told)], 1)
        for i in range(self.layers):
            h = activate(self.get_submodule(f"fc{i}")(h))
        return h

    def truncate(self, w: Tensor, psi: float) -> Tensor:
        """w_avg + psi (w - w_avg)."""
        return w if psi == 1.0 else torch.lerp(self.w_avg.to(w), w, psi)

    def forward(self, z: Tensor, given: Given, truncation: float = 1.0) -> Tensor:
        """(n, latent) -> w for each layer, (n, num_ws, style)."""
        return self.truncate(self.style_of(z, given), truncation).unsqueeze(1).expand(-1, self.num_ws, -1)

    @torch.no_grad()
    def moments(self, given: Given, samples: int = 10_000) -> tuple[Tensor, Tensor]:
        """Mean (k, style) and symmetric root of the covariance (k, style, style) of w for each of k rows of `given`.

        The same `samples` latents are used for every row and on every day (seed 0). Equal rows are computed once.
        """
        z = Rows(samples, seed=0, stream="moments of w", device=self.w_avg.device).normal(self.fc0_inputs)
        k = max([v.shape[0] for v in given.values.values()], default=1)
        given = given.cycle(k)
        told = self.embed(given, k)
        place = None if told is None else torch.unique(told, dim=0, return_inverse=True)[1]
        means, roots = [], []
        for i in range(1 if place is None else int(place.max()) + 1):  # over distinct conditions, not rows
            if place is None:
                one = Given()
            else:
                row = int((place == i).nonzero()[0])
                one = Given(
                    {name: v[row : row + 1].expand(samples, *v.shape[1:]) for name, v in given.values.items()},
                    {name: v[row : row + 1].expand(samples) for name, v in given.present.items()},
                )
            w = self.style_of(z, one).double()
            values, vectors = torch.linalg.eigh(torch.cov(w.T).reshape(self.style, self.style))
            means.append(w.mean(0).float())
            roots.append(((vectors * values.clamp_min(0).sqrt()) @ vectors.T).float())
        mean, root = torch.stack(means), torch.stack(roots)
        return (mean, root) if place is None else (mean[place], root[place])

    @property
    def fc0_inputs(self) -> int:
        """Length of z."""
        return self.get_submodule("fc0").weight.shape[1] - self.embed.width  # type: ignore[union-attr,operator]


class Synthesis(nn.Module):
    """w for each layer -> picture.

    Args:
        event_shape: (channels, height, width).
        style: length of w.
        width: channels at the finest level.
        max_width: most channels at any level.
        clamp: see `StyleGenerator`.
        patch: see there.
    """

    def __init__(
        self, event_shape: torch.Size, style: int, width: int, max_width: int, clamp: float = 0.0, patch: int = 1
    ) -> None:
        super().__init__()
        self.event_shape, self.patch = event_shape, patch
        grids = style_grids(tuple(-(-side // patch) for side in event_shape[1:]))
        channels = event_shape[0] * patch**2
        widths = style_widths(width, max_width, len(grids))
        self.names = [f"b{max(grid)}" for grid in grids]
        for i, (name, grid) in enumerate(zip(self.names, grids, strict=True)):
            block = SynthesisBlock(widths[i - 1] if i else 0, widths[i], style, grid, channels, clamp)
            self.add_module(name, block)
        self.num_ws = 2 * len(grids)
        self.noise_shapes = [grid for i, grid in enumerate(grids) for _ in range(2 if i else 1)]
        self.noise_size = sum(math.prod(s) for s in self.noise_shapes)

    def forward(self, ws: Tensor, noise: Tensor | None = None) -> Tensor:
        """(n, num_ws, style) and noise (n, noise_size), or None for the constant planes -> (n, *event_shape)."""
        planes: list[Tensor | None] = [None] * len(self.noise_shapes)
        if noise is not None:
            if noise.shape[1:] != (self.noise_size,):
                raise ShapeError("noise of the synthesis", noise.shape, ("n", self.noise_size))
            pieces = noise.split([math.prod(s) for s in self.noise_shapes], 1)
            planes = [p.reshape(-1, 1, *s) for p, s in zip(pieces, self.noise_shapes, strict=True)]
        h = picture = None
        used = 0
        for name in self.names:
            block: SynthesisBlock = self.get_submodule(name)  # type: ignore[assignment]
            h, picture = block(h, picture, ws[:, used : used + block.layers + 1], planes[used : used + block.layers])
            used += block.layers
        assert picture is not None
        height, width = self.event_shape[1:]
        return from_patches(picture, self.patch, (height, width))[:, :, :height, :width]


class SynthesisBlock(nn.Module):
    """One level: [double,] convolve, and add this level's picture to the doubled one below.

    Args:
        inputs: channels of the level below, 0 for the coarsest, which starts from a learned constant.
        outputs: channels of this level.
        style: length of w.
        grid: (height, width) of this level.
        channels: of the picture.
        clamp: see `StyleGenerator`.
    """

    resample_filter: Tensor

    def __init__(
        self, inputs: int, outputs: int, style: int, grid: tuple[int, int], channels: int, clamp: float = 0.0
    ) -> None:
        super().__init__()
        self.layers = 2 if inputs else 1
        if inputs:
            self.conv0 = StyledConv(inputs, outputs, style, grid, up=True, clamp=clamp)
        else:
            self.const = nn.Parameter(torch.randn(outputs, *grid))
        self.conv1 = StyledConv(outputs, outputs, style, grid, clamp=clamp)
        self.torgb = ToPicture(outputs, channels, style, clamp)
        self.register_buffer("resample_filter", resample_filter(), persistent=False)

    def forward(
        self, below: Tensor | None, picture: Tensor | None, ws: Tensor, noise: list[Tensor | None]
    ) -> tuple[Tensor, Tensor]:
        w = ws.unbind(1)
        if below is None:
            h: Tensor = self.const.expand(ws.shape[0], -1, -1, -1)
        else:
            h = self.conv0(below, w[0], noise[0])
        h = self.conv1(h, w[-2], noise[-1])
        own = self.torgb(h, w[-1])
        if picture is not None:
            own = own + upsample2(picture, self.resample_filter)
        return h, own


class StyledConv(nn.Module):
    """Modulated 3x3 convolution, noise, bias, leaky rectifier[, clamp].

    Args:
        inputs: channels in.
        outputs: channels out.
        style: length of w.
        grid: size of the output, for the constant noise.
        up: whether the size is doubled.
        clamp: the largest size of a feature; 0 for any.
    """

    noise_const: Tensor
    resample_filter: Tensor

    def __init__(
        self, inputs: int, outputs: int, style: int, grid: tuple[int, int], *, up: bool = False, clamp: float = 0.0
    ) -> None:
        super().__init__()
        self.affine = EqualLinear(style, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.noise_strength = nn.Parameter(torch.zeros([]))
        self.up, self.clamp = up, clamp
        self.register_buffer("noise_const", torch.randn(*grid))
        self.register_buffer("resample_filter", resample_filter(), persistent=False)

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None) -> Tensor:
        h = modulated_conv(x, self.weight, self.affine(w), up_filter=self.resample_filter if self.up else None)
        h = h + (self.noise_const if noise is None else noise) * self.noise_strength
        return clamped(activate(h + self.bias[:, None, None]), self.clamp)


class ToPicture(nn.Module):
    """Modulated 1x1 convolution to the channels of the picture, not demodulated."""

    def __init__(self, inputs: int, channels: int, style: int, clamp: float = 0.0) -> None:
        super().__init__()
        self.clamp = clamp
        self.affine = EqualLinear(style, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(channels, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        style = self.affine(w) / math.sqrt(self.weight.shape[1])
        picture = modulated_conv(x, self.weight, style, demodulate=False) + self.bias[:, None, None]
        return clamped(picture, self.clamp)


def check_style_event(
    event_shape: torch.Size | tuple[int, ...], conditions: tuple[ConditionSpec, ...], patch: int = 1
) -> None:
    """Raise where StyleGAN2 does not reach: other than two spatial axes, under 4 patches, image conditions."""
    least = 3 * patch + 1
    if len(event_shape) != 3 or min(event_shape[1:]) < least:
        expected = f"(channels, height >= {least}, width >= {least})"
        raise ShapeError("event of network='stylegan2'", event_shape, expected, "Use network='conv'.")
    for c in conditions:
        if c.kind == "image":
            raise InputError(f"network='stylegan2' takes no image condition ({c.name!r}); use network='conv'")

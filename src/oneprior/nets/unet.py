"""Denoising networks: (x_t, index of the noise level, conditions) -> a tensor of the event's shape.

2-D events take diffusers' `UNet2DModel` (Ho et al. 2020, after Ronneberger et al. 2015), or its `UNet2DConditionModel`
where something comes by cross-attention (Rombach et al. 2022); 1-D and 3-D events take `UNetND`; events of a few dozen
numbers (8x8 digits) take a residual perceptron, which learns them several times faster than convolutions.
One module, `Denoiser`, stands before all of them:

- labels, vectors and pooled tokens are added to the time embedding; images become channels at the event's own size;
  whatever asks for cross-attention becomes a sequence. Each condition has one learned value for "absent".
- sizes that the network cannot halve often enough are padded with zeros and cropped afterwards.
- the last convolution and the end of every residual branch start at zero (Karras et al. 2022, appendix F): the network
  begins as the zero function and the loss at the variance of its target.

The index is the fractional place of the noise level in a table of 1000 steps (`models.diffusion`), so that a plain
`UNet2DModel` means to diffusers' pipelines what it means here.
"""

from __future__ import annotations

import json
import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from oneprior.core import ConditionSpec, InputError, ShapeError
from oneprior.nets.adversarial import ConditionImage, ConditionVector, Given
from oneprior.nets.attention import choose_attention
from oneprior.nets.embeddings import ConditionTokens, time_embedding
from oneprior.nets.unet_nd import UNetND, groups, silent

_TINY = 144  # events of at most so many numbers take the perceptron


class Denoiser(nn.Module):
    """A core network with its conditions and its padding.

    Args:
        core: (x, index, added, tokens) -> (n, channels, *space), as the classes below.
        event_shape: (channels, *space).
        conditions: what it can be told.
        added: width of the vector that the core adds to its time embedding.
        tokens: width of the tokens of its cross-attention.
        stride: the padded sizes are multiples of it.
    """

    def __init__(
        self,
        core: nn.Module,
        event_shape: torch.Size,
        conditions: tuple[ConditionSpec, ...] = (),
        *,
        added: int = 0,
        tokens: int = 0,
        stride: int = 1,
    ) -> None:
        super().__init__()
        self.core, self.event_shape = core, torch.Size(event_shape)
        self.space = self.event_shape[1:]
        self.vector = ConditionVector(_through(conditions, "add"), added)
        self.image = ConditionImage(_through(conditions, "concat"), len(self.space))
        self.tokens = ConditionTokens(conditions, tokens)
        missing = [-s % stride for s in self.space]
        self.padding = [side for m in reversed(missing) for side in (0, m)]
        self.crop = (..., *(slice(0, s) for s in self.space))

    @property
    def plain(self) -> bool:
        """Whether the core alone is the whole network: nothing told, nothing padded."""
        return not (self.vector.width or self.image.channels or self.tokens.width or any(self.padding))

    def forward(self, x: Tensor, index: Tensor, given: Given | None = None) -> Tensor:
        """(n, *event_shape), (n,) float, n rows told or None -> (n, *event_shape)."""
        if self.plain:
            return self.core(x, index)
        n, given = x.shape[0], given or Given()
        planes = self.image(given, n, self.space)
        h = x if planes is None else torch.cat([x, planes.to(x.dtype)], 1)
        h = F.pad(h, self.padding) if any(self.padding) else h
        out = self.core(h, index, self.vector(given, n), self.tokens(given, n))
        return out[self.crop] if any(self.padding) else out


class PlainUNet(nn.Module):
    """diffusers' `UNet2DModel`; `added` goes to its time embedding."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        from diffusers import UNet2DModel

        self.net: Any = UNet2DModel.from_config(config)
        choose_attention(self.net)

    def forward(self, x: Tensor, index: Tensor, added: Tensor | None = None, tokens: Tensor | None = None) -> Tensor:
        return self.net(x, index, class_labels=added, return_dict=False)[0]


class CrossUNet(nn.Module):
    """diffusers' `UNet2DConditionModel`; `tokens` are attended to at the attention levels."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        from diffusers import UNet2DConditionModel

        self.net: Any = UNet2DConditionModel(**config)
        choose_attention(self.net)

    def forward(self, x: Tensor, index: Tensor, added: Tensor | None = None, tokens: Tensor | None = None) -> Tensor:
        return self.net(x, index, tokens, class_labels=added, return_dict=False)[0]


class ResidualMLP(nn.Module):
    """A perceptron of residual blocks, each scaled and shifted by the time (and by what is told).

    Args:
        inputs: channels of the event and of the images beside it.
        event_shape: shape of the result.
        hidden: width of the blocks.
        blocks: how many.
        dropout: in the blocks.
        tokens: width of the tokens, which are averaged and added; 0 for none.
    """

    def __init__(
        self, inputs: int, event_shape: torch.Size, hidden: int, blocks: int, dropout: float = 0.0, tokens: int = 0
    ) -> None:
        super().__init__()
        self.event_shape, self.hidden = event_shape, hidden
        self.time = nn.Sequential(nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, hidden))
        self.attend = nn.Linear(tokens, hidden) if tokens else None
        self.stem = nn.Linear(inputs * math.prod(event_shape[1:]), hidden)
        self.norm = nn.ModuleList(nn.LayerNorm(hidden, elementwise_affine=False) for _ in range(blocks))
        self.modulate = nn.ModuleList(nn.Linear(hidden, 2 * hidden) for _ in range(blocks))
        self.up = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(blocks))
        self.down = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(blocks))
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, event_shape.numel()))
        for layer in (*self.modulate, *self.down, self.out[1]):
            silent(layer)

    def forward(self, x: Tensor, index: Tensor, added: Tensor | None = None, tokens: Tensor | None = None) -> Tensor:
        emb = self.time(time_embedding(index, self.hidden).to(x.dtype))
        if added is not None:
            emb = emb + added
        if tokens is not None and self.attend is not None:
            emb = emb + self.attend(tokens.mean(1))
        emb = F.silu(emb)
        h = self.stem(x.flatten(1))
        for norm, modulate, up, down in zip(self.norm, self.modulate, self.up, self.down, strict=True):
            scale, shift = modulate(emb).chunk(2, 1)
            h = h + down(self.dropout(F.silu(up(torch.addcmul(shift, norm(h), 1 + scale)))))
        return self.out(h).reshape(-1, *self.event_shape)


def denoiser(
    event_shape: torch.Size | tuple[int, ...],
    conditions: tuple[ConditionSpec, ...] = (),
    *,
    network: Literal["auto", "unet", "mlp"] = "auto",
    width: int = 64,
    multipliers: tuple[int, ...] = (1, 2, 2),
    blocks: int = 2,
    attention: tuple[int, ...] = (2,),
    dropout: float = 0.0,
    config: str = "",
) -> Denoiser:
    """The network that suits the event: a U-Net in 1, 2 or 3 dimensions, or a perceptron for tiny events.

    Args:
        event_shape: (channels, *space).
        conditions: what it can be told.
        network: "auto" takes the perceptron for events of at most 144 numbers.
        width: channels at full resolution; the perceptron has 8 times as many units.
        multipliers: channels of each level in units of `width`; each level after the first has half the resolution.
        blocks: residual blocks a level; the perceptron has one more than this.
        attention: levels with attention, 0 the finest; levels that do not exist are ignored.
        dropout: in the residual blocks.
        config: a `UNet2DModel` configuration as JSON, which then stands in place of all the numbers above.

    Raises:
        InputError: for a condition that this network cannot take.
    """
    shape = torch.Size(event_shape)
    if not 2 <= len(shape) <= 4:
        raise ShapeError("event of a denoiser", tuple(shape), "(channels, 1 to 3 spatial axes)")
    for spec in conditions:
        if spec.via == "concat" and spec.kind != "image":
            raise InputError(
                f"condition {spec.name!r} is a {spec.kind}: only images are concatenated; "
                "give via='add' or 'cross_attention'"
            )
    inputs = shape[0] + sum(c.shape[0] for c in conditions if c.via == "concat")
    adds, attends = bool(_through(conditions, "add")), bool(_through(conditions, "cross_attention"))
    if config:
        if conditions:
            raise InputError("an imported U-Net takes no conditions: train one of our own for that")
        read = json.loads(config)
        return Denoiser(PlainUNet(read), shape, stride=2 ** (len(read["block_out_channels"]) - 1))
    if network == "mlp" or (network == "auto" and shape.numel() <= _TINY):
        hidden, tokens = 8 * width, width if attends else 0
        mlp = ResidualMLP(inputs, shape, hidden, blocks + 1, dropout, tokens)
        return Denoiser(mlp, shape, conditions, added=hidden if adds else 0, tokens=tokens)
    widths = tuple(width * m for m in multipliers)
    levels = [level in attention for level in range(len(widths))]
    stride, tokens = 2 ** (len(widths) - 1), widths[-1] if attends else 0
    if attends and not any(levels):
        raise InputError(
            f"cross-attention needs a level with attention, got attention={attention} of {len(widths)} levels"
        )
    if len(shape) != 3:
        core: nn.Module = UNetND(
            len(shape) - 1, inputs, shape[0], widths, blocks, tuple(levels), tokens=tokens, dropout=dropout
        )
    else:
        maker = CrossUNet if attends else PlainUNet
        core = maker(_diffusers(shape, inputs, widths, blocks, levels, adds, tokens, dropout))
        _calm(core)
    return Denoiser(core, shape, conditions, added=4 * width if adds else 0, tokens=tokens, stride=stride)


def _diffusers(
    shape: torch.Size,
    inputs: int,
    widths: tuple[int, ...],
    blocks: int,
    levels: list[bool],
    adds: bool,
    tokens: int,
    dropout: float,
) -> dict[str, Any]:
    """The configuration of `UNet2DModel`, or of `UNet2DConditionModel` where there are tokens."""
    kind = "CrossAttn" if tokens else "Attn"
    down = tuple(f"{kind}DownBlock2D" if on else "DownBlock2D" for on in levels)
    up = tuple(f"{kind}UpBlock2D" if on else "UpBlock2D" for on in reversed(levels))
    config: dict[str, Any] = {
        "sample_size": shape[1] if shape[1] == shape[2] else tuple(shape[1:]),
        "in_channels": inputs,
        "out_channels": shape[0],
        "block_out_channels": widths,
        "layers_per_block": blocks,
        "down_block_types": down,
        "up_block_types": up,
        "norm_num_groups": groups(widths),
        "dropout": dropout,
        "class_embed_type": "identity" if adds else None,
    }
    if tokens:
        # diffusers reads `attention_head_dim` as the number of heads in this one network
        heads = tuple(max(1, w // _head(widths)) for w in widths)
        return config | {"cross_attention_dim": tokens, "attention_head_dim": heads}
    return config | {"attention_head_dim": _head(widths), "add_attention": any(levels)}


def _head(widths: tuple[int, ...]) -> int:
    """Channels of an attention head: 32 where that divides every width."""
    return math.gcd(32, *widths)


def _through(conditions: tuple[ConditionSpec, ...], via: str) -> tuple[ConditionSpec, ...]:
    return tuple(c for c in conditions if c.via == via)


def _calm(core: PlainUNet | CrossUNet) -> None:
    """Zero the last convolution and the end of every residual branch of a network of diffusers."""
    for name, module in core.net.named_modules():
        if name == "conv_out" or name.endswith((".conv2", ".to_out.0")):
            silent(module)

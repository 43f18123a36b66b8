"""A U-Net for events of 1, 2 or 3 spatial axes, told the time, a vector and a sequence of tokens.

The network of Ho et al. 2020 with the two habits that later work settled on: the time (and whatever else is told)
scales and shifts the second normalisation of each residual block (Dhariwal and Nichol 2021, section 3), and every
residual branch starts at zero. 2-D events normally take diffusers' network instead, for the sake of its pipelines.
MONAI's network for other dimensions is not used: its residual block cannot broadcast the time over one axis (1.6.1),
it has no dropout, and its attention wants another package.
"""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from oneprior.nets.dims import CONV
from oneprior.nets.embeddings import time_embedding

Module = TypeVar("Module", bound=nn.Module)


class UNetND(nn.Module):
    """(x, index, added, tokens) -> a tensor of the event's space; sizes must be multiples of 2^(levels - 1).

    Args:
        dims: number of spatial axes.
        inputs: channels in.
        outputs: channels out.
        widths: channels of each level, the finest first.
        blocks: residual blocks a level (one more on the way up).
        attention: for each level, whether it attends to itself (and to the tokens).
        tokens: width of the tokens; 0 for none.
        dropout: in the residual blocks.
    """

    def __init__(
        self,
        dims: int,
        inputs: int,
        outputs: int,
        widths: tuple[int, ...],
        blocks: int,
        attention: tuple[bool, ...],
        *,
        tokens: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        conv, self.emb = CONV[dims], 4 * widths[0]
        self.frequencies = widths[0]
        self.time = nn.Sequential(nn.Linear(widths[0], self.emb), nn.SiLU(), nn.Linear(self.emb, self.emb))
        self.stem = conv(inputs, widths[0], 3, padding=1)

        def stage(a: int, b: int, attends: bool) -> Stage:
            return Stage(dims, a, b, self.emb, dropout, attends, tokens)

        self.down, self.shrink = nn.ModuleList(), nn.ModuleList()
        skips, width = [widths[0]], widths[0]
        for level, (b, attends) in enumerate(zip(widths, attention, strict=True)):
            for _ in range(blocks):
                self.down.append(stage(width, b, attends))
                skips.append(width := b)
            if level < len(widths) - 1:
                self.shrink.append(conv(width, width, 3, stride=2, padding=1))
                skips.append(width)
        self.middle = nn.ModuleList([stage(width, width, any(attention)), stage(width, width, False)])
        self.up, self.grow = nn.ModuleList(), nn.ModuleList()
        for level, (b, attends) in reversed(list(enumerate(zip(widths, attention, strict=True)))):
            for _ in range(blocks + 1):
                self.up.append(stage(width + skips.pop(), b, attends))
                width = b
            if level > 0:
                self.grow.append(conv(width, width, 3, padding=1))
        self.blocks = blocks
        self.out = nn.Sequential(_norm(width), nn.SiLU(), silent(conv(width, outputs, 3, padding=1)))

    def forward(self, x: Tensor, index: Tensor, added: Tensor | None = None, tokens: Tensor | None = None) -> Tensor:
        """(n, inputs, *space), (n,), (n, 4 * widths[0]), (n, length, tokens) -> (n, outputs, *space)."""
        emb = self.time(time_embedding(index, self.frequencies).to(x.dtype))
        emb = F.silu(emb if added is None else emb + added)
        h = self.stem(x)
        skips = [h]
        for k, stage in enumerate(self.down):
            h = stage(h, emb, tokens)
            skips.append(h)
            level, last = divmod(k + 1, self.blocks)
            if last == 0 and level <= len(self.shrink):
                h = self.shrink[level - 1](h)
                skips.append(h)
        for stage in self.middle:
            h = stage(h, emb, tokens)
        for k, stage in enumerate(self.up):
            h = stage(torch.cat([h, skips.pop()], 1), emb, tokens)
            level, last = divmod(k + 1, self.blocks + 1)
            if last == 0 and level <= len(self.grow):
                h = self.grow[level - 1](F.interpolate(h, scale_factor=2.0, mode="nearest"))
        return self.out(h)


class Stage(nn.Module):
    """One residual block and, where asked, attention after it."""

    def __init__(self, dims: int, a: int, b: int, emb: int, dropout: float, attends: bool, tokens: int) -> None:
        super().__init__()
        conv = CONV[dims]
        self.before = nn.Sequential(_norm(a), nn.SiLU(), conv(a, b, 3, padding=1))
        self.told = silent(nn.Linear(emb, 2 * b))
        self.norm = _norm(b)
        self.after = nn.Sequential(nn.SiLU(), nn.Dropout(dropout), silent(conv(b, b, 3, padding=1)))
        self.skip = nn.Identity() if a == b else conv(a, b, 1)
        self.attention = Attention(b, tokens) if attends else None

    def forward(self, x: Tensor, emb: Tensor, tokens: Tensor | None) -> Tensor:
        h = self.before(x)
        scale, shift = self.told(emb).reshape(*emb.shape[:1], -1, *[1] * (x.dim() - 2)).chunk(2, 1)
        h = self.skip(x) + self.after(torch.addcmul(shift, self.norm(h), 1 + scale))
        return h if self.attention is None else self.attention(h, tokens)


class Attention(nn.Module):
    """Every place looks at every other, and at the tokens; starts as the identity.

    Args:
        width: channels.
        tokens: width of the tokens; 0 for none.
    """

    def __init__(self, width: int, tokens: int) -> None:
        super().__init__()
        self.heads = width // math.gcd(32, width)
        self.norm = _norm(width)
        self.query, self.pairs = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.told = nn.Linear(tokens, 2 * width) if tokens else None
        self.out = silent(nn.Linear(width, width))

    def forward(self, x: Tensor, tokens: Tensor | None) -> Tensor:
        h = self.norm(x).flatten(2).transpose(1, 2)
        pairs = self.pairs(h)
        if self.told is not None and tokens is not None:
            pairs = torch.cat([pairs, self.told(tokens)], 1)
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (self.query(h), *pairs.chunk(2, 2)))
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return x + self.out(y).transpose(1, 2).reshape(x.shape)


def silent(layer: Module) -> Module:
    """The layer with zero weights."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def _norm(width: int) -> nn.GroupNorm:
    """At most 32 groups of at least 4 channels, where the width allows it."""
    return nn.GroupNorm(groups((width,)), width)


def groups(widths: tuple[int, ...]) -> int:
    """The most groups, up to 32 of at least 4 channels, that divide every width."""
    common = math.gcd(*widths)
    return max(g for g in range(1, min(32, max(1, common // 4)) + 1) if common % g == 0)

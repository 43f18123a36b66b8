"""A small causal transformer over a sequence of codes.

Position i sees a start token and the codes before i, so one pass gives every conditional p(code_i | codes before i),
and their product is the exact probability of the sequence. What the sequence is told (a class) is added to the start
token. Blocks are pre-norm (Radford et al. 2019): x + attend(norm(x)), then x + mlp(norm(x)). In sampling the keys and
values of past positions are kept, so that L codes cost L positions of work and not L^2 (attention's own L^2 / 2
stays).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from oneprior.core import InputError


@dataclass
class Cache:
    """The keys and values of the positions seen so far.

    Args:
        memory: (depth, 2, n, heads, length, head width); filled up to `position`.
        position: how many positions it holds.
    """

    memory: Tensor
    position: int = 0


class CausalTransformer(nn.Module):
    """codes -> logits of each code given those before it.

    Args:
        vocabulary: K.
        length: L, the number of positions.
        width: of the residual stream; a multiple of `heads`.
        depth: number of blocks.
        heads: attention heads.
        told: length of the vector that a sequence is told, or 0.
    """

    def __init__(
        self, vocabulary: int, length: int, *, width: int = 128, depth: int = 4, heads: int = 4, told: int = 0
    ) -> None:
        super().__init__()
        if width % heads:
            raise InputError(f"the transformer's width {width} is no multiple of its {heads} heads")
        self.vocabulary, self.length = vocabulary, length
        self.code = nn.Embedding(vocabulary, width)
        self.position = nn.Parameter(torch.zeros(length, width))
        self.start = nn.Parameter(torch.zeros(width))
        self.told = nn.Linear(told, width) if told else None
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary)
        for tensor in (self.code.weight, self.position, self.start, self.head.weight):
            nn.init.normal_(tensor, std=0.02)
        for block in self.blocks:  # the residual stream keeps its scale whatever the depth
            for last in (block.out, block.down):  # type: ignore[union-attr]
                nn.init.normal_(last.weight, std=0.02 * (2 * depth) ** -0.5)  # type: ignore[arg-type]

    def forward(self, codes: Tensor, told: Tensor | None = None) -> Tensor:
        """(n, L) int64, (n, told) -> logits (n, L, K); logits at i depend on codes before i alone."""
        h = torch.cat([self._start(len(codes), told), self.code(codes[:, : self.length - 1])], 1)
        h = h + self.position
        for block in self.blocks:
            h = block(h)
        return self.head(self.norm(h))

    def begin(self, n: int, told: Tensor | None = None) -> tuple[Tensor, Cache]:
        """Logits of the first code of n sequences, (n, K), and the memory to go on with."""
        block: _Block = self.blocks[0]  # type: ignore[assignment]
        heads, width = block.heads, self.start.shape[0]
        memory = self.start.new_zeros(len(self.blocks), 2, n, heads, self.length, width // heads)
        return self._advance(self._start(n, told), Cache(memory))

    def advance(self, codes: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
        """Logits of the next code, (n, K), given the codes just chosen, (n,); the memory grows in place."""
        return self._advance(self.code(codes)[:, None], cache)

    def _start(self, n: int, told: Tensor | None) -> Tensor:
        start = self.start.expand(n, 1, -1)
        return start if self.told is None or told is None else start + self.told(told)[:, None]

    def _advance(self, h: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
        h = h + self.position[cache.position]
        for block, memory in zip(self.blocks, cache.memory, strict=True):
            h = block(h, memory, cache.position)
        cache.position += 1
        return self.head(self.norm(h[:, 0])), cache


class _Block(nn.Module):
    """Attention and a perceptron, each on the normed stream and added to it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, h: Tensor, memory: Tensor | None = None, position: int = 0) -> Tensor:
        """(n, length, width) causally; or one position, (n, 1, width), with the memory of those before it."""
        q, k, v = self.qkv(self.norm1(h)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if memory is not None:
            memory[0, :, :, position], memory[1, :, :, position] = k[:, :, 0], v[:, :, 0]
            k, v = memory[0, :, :, : position + 1], memory[1, :, :, : position + 1]
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=memory is None)
        h = h + self.out(mixed.transpose(1, 2).flatten(2))
        return h + self.down(F.gelu(self.up(self.norm2(h))))

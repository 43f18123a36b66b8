"""How a denoiser is told the time and, by cross-attention, its conditions."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from oneprior.core import ConditionSpec, ShapeError
from oneprior.nets.adversarial import Given
from oneprior.nets.dims import CONV

_POOL = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}
_GRID = 8  # an image becomes at most so many tokens along each axis


def time_embedding(index: Tensor, width: int) -> Tensor:
    """Cosines and sines of the index at `width` / 2 frequencies from 1 down to 1e-4; (n,) -> (n, width).

    Source: Vaswani et al. 2017, section 3.5; Ho et al. 2020.
    """
    half = width // 2
    frequency = torch.exp(-math.log(10_000) / half * torch.arange(half, device=index.device, dtype=torch.float32))
    angle = index.float()[:, None] * frequency
    return torch.cat([angle.cos(), angle.sin()], 1)


class ConditionTokens(nn.Module):
    """Conditions as one sequence for cross-attention; an absent one is a learned sequence of its own length.

    A class or a vector is one token, a token sequence keeps its length, an image becomes at most 8 tokens along each
    axis, whatever its resolution.

    Args:
        conditions: those with via="cross_attention"; others are passed over.
        width: length of a token.
    """

    def __init__(self, conditions: tuple[ConditionSpec, ...], width: int) -> None:
        super().__init__()
        self.specs = tuple(c for c in conditions if c.via == "cross_attention")
        self.width = width if self.specs else 0
        self.embed, self.absent, self.place = nn.ModuleDict(), nn.ParameterDict(), nn.ParameterDict()
        for spec in self.specs:
            length = _length(spec)
            self.embed[spec.name] = _embedding(spec, width)
            self.absent[spec.name] = nn.Parameter(0.5 * torch.randn(length, width))
            if length > 1:
                self.place[spec.name] = nn.Parameter(0.02 * torch.randn(length, width))

    def forward(self, given: Given, n: int) -> Tensor | None:
        """What n rows are told -> (n, length, width), or None where nothing comes this way."""
        parts = []
        for spec in self.specs:
            tokens = self.absent[spec.name].expand(n, -1, -1)
            value, present = given.values.get(spec.name), given.present.get(spec.name)
            if value is not None:
                told = self._tokens(spec, value)
                tokens = told if present is None else torch.where(present[:, None, None], told, tokens)
            parts.append(tokens)
        return torch.cat(parts, 1) if parts else None

    def _tokens(self, spec: ConditionSpec, value: Tensor) -> Tensor:
        embed = self.embed[spec.name]
        if spec.kind == "image":
            dims = len(spec.shape) - 1
            grid = [min(_GRID, s) for s in spec.shape[1:]]
            told = _POOL[dims](embed(value), grid).flatten(2).transpose(1, 2)  # type: ignore[arg-type]
        elif spec.kind == "tokens":
            if value.shape[1] != spec.shape[0]:
                remedy = "Sequences are of one length: pad them as in training."
                raise ShapeError(f"condition {spec.name!r}", tuple(value.shape), ("n", *spec.shape), remedy)
            told = embed(value)
        else:
            told = embed(value)[:, None]
        return told + self.place[spec.name] if spec.name in self.place else told


def _length(spec: ConditionSpec) -> int:
    if spec.kind == "image":
        return math.prod(min(_GRID, s) for s in spec.shape[1:])
    return spec.shape[0] if spec.kind == "tokens" else 1


def _embedding(spec: ConditionSpec, width: int) -> nn.Module:
    if spec.kind == "class":
        return nn.Embedding(spec.classes, width)
    if spec.kind == "image":
        conv = CONV[len(spec.shape) - 1]
        return nn.Sequential(conv(spec.shape[0], width, 3, padding=1), nn.SiLU(), conv(width, width, 3, padding=1))
    return nn.Linear(spec.shape[-1], width)

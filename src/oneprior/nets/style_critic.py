"""The critic of StyleGAN2: residual blocks that halve the picture, minibatch statistics, a projection head.

Karras et al. 2020 (residual critic, section 4.1) and Karras et al. 2018 ("Progressive growing", section 3: the
standard deviation over a group of rows as one more channel, so that a generator without variety is found out by it).

Groups are of consecutive rows within one process. Under data-parallel training each process has groups of its own, as
in the official code: the statistic is a feature and not an estimate that gains from more rows, and the loss stays a
mean over groups.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from oneprior.core import ConditionSpec, Rows
from oneprior.nets.adversarial import ConditionVector, Critic, Given
from oneprior.nets.convnet import to_patches
from oneprior.nets.style_generator import check_style_event
from oneprior.nets.stylegan import EqualConv, EqualLinear, activate, style_grids, style_widths


class StyleCritic(Critic):
    """Picture -> one logit per row.

    Args:
        event_shape: (channels, height, width); padded at the far edges, by repetition, to the generator's grid.
        conditions: labels, vectors or tokens, by projection.
        width: channels at the finest level.
        max_width: most channels at any level.
        group: rows that share one minibatch statistic; the largest divisor of the batch up to this is taken.
        patch: pixels along each axis that the finest level takes at once, as channels.
    """

    couples_rows = True

    def __init__(
        self,
        event_shape: torch.Size | tuple[int, ...],
        conditions: tuple[ConditionSpec, ...] = (),
        *,
        width: int = 16,
        max_width: int = 512,
        group: int = 4,
        patch: int = 1,
    ) -> None:
        super().__init__()
        check_style_event(event_shape, conditions, patch)
        channels, height, breadth = event_shape[0] * patch**2, *(-(-side // patch) for side in event_shape[1:])
        self.patch = patch
        self.grids = style_grids((height, breadth))[::-1]
        widths = style_widths(width, max_width, len(self.grids))[::-1]
        self.pad = (0, self.grids[0][1] - breadth, 0, self.grids[0][0] - height)
        self.group = group
        self.fromrgb = EqualConv(channels, widths[0], 1)
        self.blocks = nn.ModuleList(CriticBlock(a, b) for a, b in zip(widths[:-1], widths[1:], strict=True))
        last = widths[-1]
        self.conv = EqualConv(last + 1, last, 3)
        self.fc = EqualLinear(last * math.prod(self.grids[-1]), last)
        self.out = EqualLinear(last, 1)
        self.embed = ConditionVector(conditions, last)
        self.project = EqualLinear(last, last) if self.embed.width else None

    def forward(self, x: Tensor, given: Given, rows: Rows | None = None) -> Tensor:
        x = to_patches(x, self.patch)
        h = activate(self.fromrgb(F.pad(x, self.pad, mode="replicate") if any(self.pad) else x))
        for block in self.blocks:
            h = block(h)
        h = activate(self.conv(torch.cat([h, minibatch_deviation(h, self.group)], 1)))
        h = activate(self.fc(h.flatten(1)))
        logit = self.out(h).squeeze(1)
        told = self.embed(given, x.shape[0])
        if self.project is None or told is None:
            return logit
        return logit + (self.project(h) * told).sum(1) / math.sqrt(told.shape[1])


class CriticBlock(nn.Module):
    """(conv 3x3, conv 3x3 and halve) + (halve, 1x1), each times sqrt(1/2); (n, a, 2h, 2w) -> (n, b, h, w)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv0 = EqualConv(inputs, inputs, 3)
        self.conv1 = EqualConv(inputs, outputs, 3, down=True)
        self.skip = EqualConv(inputs, outputs, 1, bias=False, down=True)

    def forward(self, x: Tensor) -> Tensor:
        h = activate(self.conv1(activate(self.conv0(x))))
        return (h + self.skip(x)) * math.sqrt(0.5)


def minibatch_deviation(x: Tensor, group: int) -> Tensor:
    """The deviation over each group of rows, averaged over channels and places; (n, c, h, w) -> (n, 1, h, w)."""
    n = x.shape[0]
    size = next(g for g in range(min(group, n), 0, -1) if n % g == 0)
    grouped = x.unflatten(0, (-1, size))
    variance = (grouped - grouped.mean(1, keepdim=True)).square().mean(1)
    deviation = (variance + 1e-8).sqrt().flatten(1).mean(1)
    return deviation.repeat_interleave(size).reshape(n, 1, 1, 1).expand(n, 1, *x.shape[2:])

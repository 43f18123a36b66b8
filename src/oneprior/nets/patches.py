"""An encoder and a decoder of patches, each by itself: a code says what its patch is and nothing else.

The convolutions of `autoencoder` look beyond the edges of a code's own patch, and their normalisation at the whole
event. So the same event can be said in many ways, and to change one code changes what the others should be: molecules
with one code of 34 changed had 12 other codes when they were encoded anew. Where codes are searched one by one, a code
that stands for its patch alone is easier to learn from and to change. It pays for this in fidelity: what two patches
share has to be said twice.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from oneprior.nets.autoencoder import latent_grid
from oneprior.nets.convnet import from_patches, to_patches
from oneprior.nets.dims import CONV


class PatchEncoder(nn.Module):
    """(n, channels, *space) -> (n, out, *grid), each place of the grid by a perceptron of its patch.

    Args:
        event_shape: (channels, *space), 1, 2 or 3 spatial axes.
        out: channels of the result.
        downsample: edge of a patch, a power of two; far edges are padded by repetition.
        width: hidden units.
    """

    def __init__(
        self, event_shape: torch.Size | tuple[int, ...], out: int, *, downsample: int = 4, width: int = 32
    ) -> None:
        super().__init__()
        channels, *space = event_shape
        self.grid, self.patch = latent_grid(tuple(space), downsample), downsample
        self.net = _pointwise(len(space), channels * downsample ** len(space), width, out)

    def forward(self, x: Tensor) -> Tensor:
        """(n, *event_shape) -> (n, out, *grid)."""
        return self.net(to_patches(x, self.patch))


class PatchDecoder(nn.Module):
    """The mirror image of `PatchEncoder`: (n, latent, *grid) -> (n, *event_shape)."""

    def __init__(
        self, event_shape: torch.Size | tuple[int, ...], latent: int, *, downsample: int = 4, width: int = 32
    ) -> None:
        super().__init__()
        channels, *self.space = event_shape
        self.grid, self.patch = latent_grid(tuple(self.space), downsample), downsample
        self.net = _pointwise(len(self.space), latent, width, channels * downsample ** len(self.space))

    def forward(self, z: Tensor) -> Tensor:
        """(n, latent, *grid) -> (n, *event_shape)."""
        return from_patches(self.net(z), self.patch, tuple(self.space)).contiguous()


def _pointwise(dims: int, a: int, width: int, b: int) -> nn.Sequential:
    conv = CONV[dims]
    return nn.Sequential(conv(a, width, 1), nn.SiLU(), conv(width, width, 1), nn.SiLU(), conv(width, b, 1))

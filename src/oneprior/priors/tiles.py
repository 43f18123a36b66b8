"""How a large event is covered by overlapping tiles, and with what weights.

Along an axis of N entries tiles of L stand at even distances, as few as overlap by at least the wanted number. Where
two overlap, the weight goes over from one to the other as sin^2 and cos^2; the weights of all tiles sum to 1 at every
entry (a partition of unity), and of several axes they are multiplied. Their roots are sine and cosine, so that
independent tiles blended with root weights keep the variance, and neighbours keep their correlation up to the factor
cos(pi / (2 overlap)), the same at every entry of the overlap: no other window is as even.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from oneprior.core import InputError, ShapeError


@dataclass(frozen=True)
class Tiles:
    """A cover of events of one shape by tiles of another.

    Args:
        event_shape: of the large event, (channels, *space).
        tile_shape: of a tile, (channels, *tile).
        overlap: entries that neighbours share at least, one number or one for each spatial axis; half a tile where
            None.

    Raises:
        ShapeError: for other channels or axes, or an event smaller than a tile.
        InputError: for an overlap that is not between 1 and the tile's side less 1.
    """

    event_shape: torch.Size
    tile_shape: torch.Size
    overlap: int | Sequence[int] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "event_shape", torch.Size(self.event_shape))
        object.__setattr__(self, "tile_shape", torch.Size(self.tile_shape))
        alike = len(self.event_shape) == len(self.tile_shape) and self.event_shape[:1] == self.tile_shape[:1]
        if not alike or any(n < k for n, k in zip(self.event_shape, self.tile_shape, strict=True)):
            raise ShapeError(
                "event to be tiled", tuple(self.event_shape), f"{tuple(self.tile_shape)} or larger along spatial axes",
                "Enlarge a smaller event first, or take a prior of its size.",
            )  # fmt: skip
        for asked, side, size in zip(self.overlaps, self.tile_shape[1:], self.event_shape[1:], strict=True):
            if size > side and not 1 <= asked < side:
                raise InputError(f"tiles of side {side} overlap by 1 to {side - 1} entries, got {asked}")

    def __len__(self) -> int:
        return math.prod(len(axis) for axis in self.starts)

    @property
    def overlaps(self) -> tuple[int, ...]:
        """The least overlap along each spatial axis."""
        sides = self.tile_shape[1:]
        if self.overlap is None:
            return tuple(side // 2 for side in sides)
        overlaps = (self.overlap,) * len(sides) if isinstance(self.overlap, int) else tuple(self.overlap)
        if len(overlaps) != len(sides):
            raise InputError(f"an overlap is one number or one for each of {len(sides)} axes, got {self.overlap}")
        return overlaps

    @cached_property
    def starts(self) -> tuple[tuple[int, ...], ...]:
        """Where tiles begin along each spatial axis."""
        starts = []
        for size, side, overlap in zip(self.event_shape[1:], self.tile_shape[1:], self.overlaps, strict=True):
            count = 1 if size == side else math.ceil((size - overlap) / (side - overlap))
            step = (size - side) / max(1, count - 1)
            starts.append(tuple(round(k * step) for k in range(count)))
        return tuple(starts)

    @property
    def index(self) -> Tensor:
        """The entries of the flattened event that each tile covers, int64, (tiles, entries of a tile)."""
        return self.cut(torch.arange(self.event_shape.numel()).reshape(1, *self.event_shape)).flatten(1)

    @cached_property
    def places(self) -> list[tuple[slice, ...]]:
        """Where each tile lies in a batch of large events."""
        every = itertools.product(*self.starts)
        sides = self.tile_shape[1:]
        return [
            (slice(None), slice(None), *(slice(at, at + side) for at, side in zip(start, sides, strict=True)))
            for start in every
        ]

    @cached_property
    def windows(self) -> list[Tensor]:
        """The weights along each spatial axis, float64, (tiles of the axis, side)."""
        return [_windows(starts, side) for starts, side in zip(self.starts, self.tile_shape[1:], strict=True)]

    @property
    def weights(self) -> Tensor:
        """The weight of each tile at its entries, float64, (tiles, entries of a tile); they sum to 1 at every entry."""
        return self.weigh(torch.ones(len(self), *self.tile_shape, dtype=torch.float64)).flatten(1)

    def cut(self, x: Tensor) -> Tensor:
        """The tiles of large events, tile-major; (n, *event_shape) -> (tiles * n, *tile_shape)."""
        return torch.cat([x[place] for place in self.places])

    def weigh(self, tiles: Tensor, power: float = 1.0) -> Tensor:
        """Tiles, tile-major, times their weights to a power; the shape stays."""
        counts = [len(starts) for starts in self.starts]
        shape, axes = tiles.shape, len(counts)
        tiles = tiles.reshape(*counts, -1, *self.tile_shape)
        for axis, window in enumerate(self.windows):
            wide = [1] * tiles.dim()
            wide[axis], wide[axis + axes + 2] = window.shape
            tiles = tiles * window.pow(power).to(tiles).reshape(wide)
        return tiles.reshape(shape)

    def lay(self, tiles: Tensor) -> Tensor:
        """The sum of tiles where they lie, the adjoint of `cut`; (tiles * n, *tile_shape) -> (n, *event_shape)."""
        parts = tiles.reshape(len(self), -1, *self.tile_shape)
        total = tiles.new_zeros(parts.shape[1], *self.event_shape)
        for place, part in zip(self.places, parts.unbind(0), strict=True):
            total[place] += part
        return total

    def blend(self, tiles: Tensor) -> Tensor:
        """The weighted mean of tiles; (tiles * n, *tile_shape) -> (n, *event_shape)."""
        return self.lay(self.weigh(tiles))


def _windows(starts: tuple[int, ...], side: int) -> Tensor:
    """Weights of the tiles of one axis at their own entries, float64, (tiles, side)."""
    count, size = len(starts), starts[-1] + side
    raw = torch.ones(count, side, dtype=torch.float64)
    for k in range(count - 1):
        shared = starts[k] + side - starts[k + 1]
        rise = (0.5 * math.pi * (torch.arange(shared, dtype=torch.float64) + 0.5) / shared).sin().square()
        raw[k + 1, :shared] *= rise
        raw[k, side - shared :] *= rise.flip(0)
    total = torch.zeros(size, dtype=torch.float64)
    for start, window in zip(starts, raw, strict=True):
        total[start : start + side] += window
    return torch.stack([w / total[start : start + side] for start, w in zip(starts, raw, strict=True)])

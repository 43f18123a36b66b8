"""A sheet of pictures to look at while a model learns."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from oneprior.core import replacing

_SMALLEST = 64  # pixels of a tile's longer side; smaller pictures are enlarged by whole factors
_CURVE = 64  # height of a drawn curve


def sheet(x: Tensor, columns: int | None = None) -> np.ndarray:
    """Events side by side as one picture.

    Pictures are shown as they are (one channel grey, three in colour, otherwise the first), volumes and clips by
    their middle slice, one-dimensional signals as curves.

    Args:
        x: (n, channels, *space) in [-1, 1], with 1, 2 or 3 spatial axes.
        columns: tiles in a row; None for a square.

    Returns:
        uint8 of shape (height, width) or (height, width, 3).
    """
    tiles = _tiles(x.detach().float().cpu())
    n, channels, height, width = tiles.shape
    factor = max(1, _SMALLEST // max(height, width))
    tiles = tiles.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    tiles = torch.nn.functional.pad(tiles, (1, 1, 1, 1), value=-1.0)
    columns = columns or math.ceil(math.sqrt(n))
    rows = -(-n // columns)
    blank = tiles.new_full((rows * columns - n, *tiles.shape[1:]), -1.0)
    grid = torch.cat([tiles, blank]).reshape(rows, columns, *tiles.shape[1:])
    picture = grid.permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2)  # (channels, height, width)
    values = ((picture.nan_to_num(0.0).clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).numpy()
    return values[0] if channels == 1 else np.ascontiguousarray(values.transpose(1, 2, 0))


def write_sheet(x: Tensor, path: Path, columns: int | None = None) -> np.ndarray:
    """Writes `sheet(x)` as a PNG, at once, and returns it."""
    from PIL import Image

    values = sheet(x, columns)
    with replacing(path) as temporary:
        Image.fromarray(values).save(temporary, format="PNG")
    return values


def _tiles(x: Tensor) -> Tensor:
    """(n, 1 or 3, height, width) of any events."""
    if x.dim() == 3:
        return _curves(x)
    if x.dim() == 5:
        x = x[:, :, x.shape[2] // 2]
    return x if x.shape[1] == 3 else x[:, :1]


def _curves(x: Tensor) -> Tensor:
    """(n, channels, length) -> (n, 1, _CURVE, length), white on black, each channel a curve."""
    place = ((1 - x.nan_to_num(0.0).clamp(-1, 1)) / 2 * (_CURVE - 1)).round().long()
    drawn = torch.full((x.shape[0], _CURVE, x.shape[2]), -1.0)
    drawn.scatter_(1, place, 1.0)
    return drawn.unsqueeze(1)

"""Tensors become pictures: grids and strips of events, deviation maps with a colour bar, PNG bytes in the end.

An event is shown by its shape: one channel is grey, three are RGB, other numbers stand side by side as grey planes;
a volume is shown by its three middle planes, a clip by frames spread over its time, a signal as a curve. Enlargement is
by whole pixels, so that a pixel of the picture is a pixel of the data. Gaps and margins are transparent and words
are in a middle grey, so that one PNG reads on a light page and on a dark one.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from oneprior.core import ShapeError, replacing

INK = ((76, 120, 168, 255), (228, 121, 58, 255), (84, 162, 75, 255), (178, 121, 162, 255))  # of channels and voices
GREY = (125, 132, 142, 255)  # 4:1 against white and against near-black


@dataclass(frozen=True)
class Picture:
    """A PNG in memory.

    Args:
        png: the bytes of the file.
        width: in pixels.
        height: in pixels.
        words: whether letters stand in it, which no page may enlarge or shrink by whole pixels.
    """

    png: bytes
    width: int
    height: int
    words: bool = False

    def save(self, path: str | Path) -> Path:
        """Write the file, making its folder; returns the path."""
        with replacing(path) as draft:
            draft.write_bytes(self.png)
        return Path(path)


_MOST_CURVES = 16
"""Channels of a signal beyond which it is shown as a picture of its own, a channel a row."""


def tiles(x: Tensor, *, low: float = -1.0, high: float = 1.0, colours: str = "", clip: bool = False) -> np.ndarray:
    """Each event as one small RGBA picture.

    Args:
        x: events, (n, channels, *space), 1 to 3 spatial axes.
        low: the value that is black.
        high: the value that is white.
        colours: a Matplotlib colour map for deviations ("magma"), RGB by its root mean square; empty for grey.
        clip: whether the first spatial axis is time.

    Returns:
        uint8, (n, height, width, 4).

    Raises:
        ShapeError: for events without 1 to 3 spatial axes.
    """
    if not 3 <= x.dim() <= 5:
        raise ShapeError("pictures", tuple(x.shape), "(n, channels, *space)", "events have 1 to 3 spatial axes")
    x = x.detach().float().cpu()
    if colours and x.shape[1] == 3:
        x = x.square().mean(1, keepdim=True).sqrt()
    if x.dim() == 3 and x.shape[1] > _MOST_CURVES:  # sequences of tokens: a token a row
        x = x[:, None]
    if x.dim() == 3:
        return _curves(x.numpy(), low, high)
    if x.dim() == 5:
        x = _frames(x) if clip else _middle_planes(x)
    y = ((x - low) / _span(low, high)).nan_to_num(0.0).clamp(0, 1)
    if y.shape[1] == 3:
        rgb = y.movedim(1, -1)
    else:
        flat = torch.cat(list(y[:, :8].unbind(1)), dim=-1)  # other channels stand side by side
        rgb = torch.from_numpy(_colour(flat.numpy(), colours)) if colours else flat[..., None].expand(*flat.shape, 3)
    alpha = torch.ones_like(rgb[..., :1])
    return (torch.cat([rgb, alpha], -1) * 255 + 0.5).to(torch.uint8).numpy()


def grid(
    x: Tensor,
    *,
    columns: int | None = None,
    pixels: int = 96,
    gap: int = 4,
    low: float = -1.0,
    high: float = 1.0,
    colours: str = "",
    clip: bool = False,
) -> Picture:
    """Events on a grid, row by row.

    Args:
        x: events, (n, channels, *space).
        columns: pictures in a row; a square by default, one row where columns >= n.
        pixels: the least height of one picture after enlargement by a whole factor.
        gap: transparent pixels between pictures.
        low: the value that is black.
        high: the value that is white.
        colours: see `tiles`.
        clip: see `tiles`.
    """
    small = tiles(x, low=low, high=high, colours=colours, clip=clip)
    n, height = small.shape[:2]
    factor = max(1, math.ceil(pixels / height))
    big = small.repeat(factor, 1).repeat(factor, 2)
    return encode(laid_out(big, columns or math.ceil(math.sqrt(n)), gap))


def laid_out(pictures: Sequence[np.ndarray] | np.ndarray, columns: int, gap: int = 0, ground: int = 0) -> np.ndarray:
    """Pictures of one size on a grid, row by row, (height, width, 4).

    Args:
        pictures: uint8, each (h, w, 4).
        columns: in a row, at most.
        gap: pixels between pictures.
        ground: the value of every channel where no picture is.
    """
    columns = max(1, min(columns, len(pictures)))
    lines, (h, w) = math.ceil(len(pictures) / columns), pictures[0].shape[:2]
    sheet = np.full((lines * (h + gap) - gap, columns * (w + gap) - gap, 4), ground, np.uint8)
    for k, picture in enumerate(pictures):
        top, left = (k // columns) * (h + gap), (k % columns) * (w + gap)
        sheet[top : top + h, left : left + w] = picture
    return sheet


def stack(rows: Sequence[tuple[str, Picture]], *, gap: int = 6, size: int = 15) -> Picture:
    """Labelled strips one under another, for pages that are no HTML (a README).

    Args:
        rows: (label, picture) from top to bottom; labels may have several lines.
        gap: transparent pixels between the strips.
        size: of the letters, in pixels.
    """
    from PIL import Image, ImageDraw

    font = lettering(size)
    label = 12 + math.ceil(max(font.getlength(line) for text, _ in rows for line in text.split("\n")))
    width = label + max(p.width for _, p in rows)
    sheet = Image.new("RGBA", (width, sum(p.height + gap for _, p in rows) - gap), (0, 0, 0, 0))
    draw, top = ImageDraw.Draw(sheet), 0
    for text, picture in rows:
        sheet.paste(Image.open(io.BytesIO(picture.png)), (label, top))
        middle = (label - 12, top + picture.height // 2)
        draw.multiline_text(middle, text, font=font, fill=GREY, anchor="rm", align="right")
        top += picture.height + gap
    return encode(np.asarray(sheet), words=True)


def colour_bar(low: float, high: float, label: str = "", *, colours: str = "magma", width: int = 420) -> Picture:
    """The scale of a coloured map, with its ends and its name."""
    from PIL import Image, ImageDraw

    bar = _colour(np.linspace(0, 1, width)[None].repeat(12, 0), colours)
    sheet = Image.new("RGBA", (width, 38), (0, 0, 0, 0))
    sheet.paste(Image.fromarray((bar * 255 + 0.5).astype(np.uint8)), (0, 0))
    draw, font = ImageDraw.Draw(sheet), lettering(14)
    draw.text((0, 32), f"{low:.3g}", font=font, fill=GREY, anchor="ls")
    draw.text((width // 2, 32), label, font=font, fill=GREY, anchor="ms")
    draw.text((width, 32), f"{high:.3g}", font=font, fill=GREY, anchor="rs")
    return encode(np.asarray(sheet), words=True)


def encode(rgba: np.ndarray, words: bool = False) -> Picture:
    """uint8 (height, width, 4) as a PNG; `words` where letters stand in it."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(rgba).save(buffer, "PNG", optimize=True)
    return Picture(buffer.getvalue(), rgba.shape[1], rgba.shape[0], words)


def _span(low: float, high: float) -> float:
    """The width of a range, whatever its units; 1 where all is one value, which is then black."""
    return high - low if high > low else 1.0


def _middle_planes(x: Tensor) -> Tensor:
    """(n, c, d, h, w) -> the three middle planes side by side, (n, c, tallest, sum of widths)."""
    planes = [x.select(axis, x.shape[axis] // 2) for axis in (2, 3, 4)]
    tallest = max(p.shape[-2] for p in planes)
    return torch.cat([_pad_rows(p, tallest) for p in planes], dim=-1)


def _pad_rows(plane: Tensor, height: int) -> Tensor:
    extra = height - plane.shape[-2]
    return torch.nn.functional.pad(plane, (0, 0, extra // 2, extra - extra // 2), value=float(plane.min()))


def _frames(x: Tensor, most: int = 8) -> Tensor:
    """(n, c, time, h, w) -> up to `most` frames side by side."""
    count = min(most, x.shape[2])
    chosen = torch.linspace(0, x.shape[2] - 1, count).round().long()
    return torch.cat(list(x[:, :, chosen].unbind(2)), dim=-1)


def _curves(x: np.ndarray, low: float, high: float, height: int = 96, width: int = 192) -> np.ndarray:
    """(n, channels, length) -> curves, one colour a channel, on a transparent ground."""
    from PIL import Image, ImageDraw

    out = np.zeros((len(x), height, width, 4), np.uint8)
    across = np.linspace(2, width - 3, x.shape[2])
    for k, event in enumerate(x):
        sheet = Image.new("RGBA", (width, height), (125, 132, 142, 28))
        draw = ImageDraw.Draw(sheet)
        for c, curve in enumerate(event):
            up = (height - 3) - np.clip((np.nan_to_num(curve) - low) / _span(low, high), 0, 1) * (height - 6)
            points, colour = list(zip(across.tolist(), up.tolist(), strict=True)), INK[c % len(INK)]
            if (there := np.isfinite(curve)).all():
                draw.line(points, fill=colour, width=2)
                continue
            for (a, b), seen in zip(points, there, strict=True):  # what is missing leaves no line to draw
                if seen:
                    draw.ellipse((a - 1.5, b - 1.5, a + 1.5, b + 1.5), fill=colour)
        out[k] = np.asarray(sheet)
    return out


def _colour(values: np.ndarray, name: str) -> np.ndarray:
    """Values in [0, 1] through a Matplotlib colour map; (..., 3) in [0, 1]."""
    import matplotlib

    return matplotlib.colormaps[name](values)[..., :3].astype(np.float32)


@lru_cache
def lettering(size: int) -> Any:
    """The letters of labels, so many pixels high."""
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", size)

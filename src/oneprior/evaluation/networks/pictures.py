"""Events as the picture networks were measured on: three colours, whole levels from 0 to 255, the network's own size.

The published distances compare picture files. So events in [-1, 1] are rounded to the 256 levels first (halves up,
values beyond the range cut off), and grey is repeated three times. Enlarging comes after rounding, and every reference
has its own way, which moves the numbers (Parmar, Zhang, Zhu 2022, "On aliased resizing"):

- *tensorflow*: bilinear as TensorFlow 1 did it, without the half-pixel offset: output pixel i looks at i h / H. The
  original FID, torch-fidelity and StyleGAN.
- *torch*: bilinear with half-pixel offset, (i + 1/2) h / H - 1/2, not smoothed when it shrinks. pytorch-fid.
- *bicubic*: Pillow's, smoothed when it shrinks (kernel with a = -1/2), rounded to whole levels after each axis. DINOv2
  and CLIP, in dgm-eval (Stein et al. 2023).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from oneprior.core import ShapeError


def levels(x: Tensor, network: str) -> Tensor:
    """Events in [-1, 1] as levels, (n, 1 or 3, height, width) -> (n, 3, height, width), whole floats in [0, 255].

    Args:
        x: pictures; values beyond [-1, 1] become the ends.
        network: who asks, for the message.

    Raises:
        ShapeError: for volumes, series, and other numbers of channels.
    """
    if x.dim() != 4 or x.shape[1] not in (1, 3):
        raise ShapeError(
            f"events for {network}",
            tuple(x.shape),
            "(n, 1 or 3, height, width)",
            "It looks at pictures only: give it slices, or use features of your own for other data (own:FILE, pca:K).",
        )
    return (x.float() * 127.5 + 128).floor().clamp(0, 255).expand(-1, 3, -1, -1)


def bilinear(pictures: Tensor, size: int, way: str) -> Tensor:
    """Bilinear resizing to a square, the way "tensorflow" or "torch", (n, c, h, w) -> (n, c, size, size)."""
    if way == "torch":
        return F.interpolate(pictures, size=(size, size), mode="bilinear", align_corners=False)
    for axis in (-1, -2):
        old = pictures.shape[axis]
        place = torch.arange(size, device=pictures.device, dtype=torch.float32) * (old / size)
        low = place.long()
        weight = (place - low).to(pictures.dtype)
        below = pictures.index_select(axis, low)
        above = pictures.index_select(axis, (low + 1).clamp_max(old - 1))
        pictures = torch.lerp(below, above, weight if axis == -1 else weight[:, None])
    return pictures


def bicubic(pictures: Tensor, size: int) -> Tensor:
    """Pillow's bicubic resizing of levels to a square, (n, c, h, w) -> (n, c, size, size).

    Along rows first, as Pillow did up to version 12; 13 takes columns first for some tall pictures. In float64, which
    rounds as Pillow's fixed point does but for about one value in 10,000.
    """
    height, width = pictures.shape[-2:]
    pictures, kind = pictures.double(), pictures.dtype
    if width != size:
        pictures = _whole(F.interpolate(pictures, size=(height, size), mode="bicubic", antialias=True))
    if height != size:
        pictures = _whole(F.interpolate(pictures, size=(size, size), mode="bicubic", antialias=True))
    return pictures.to(kind)


def normalised(pictures: Tensor, mean: tuple[float, ...], deviation: tuple[float, ...]) -> Tensor:
    """Levels as shares of 255, less a mean and over a standard deviation for each colour."""
    shift, scale = (pictures.new_tensor(values)[:, None, None] for values in (mean, deviation))
    return (pictures / 255 - shift) / scale


def _whole(pictures: Tensor) -> Tensor:
    return (pictures + 0.5).floor().clamp(0, 255)

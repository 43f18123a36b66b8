"""Sizes: how an event comes to the shape a network needs, always because somebody asked for it.

Resizing is separable linear interpolation, widened when it shrinks (a triangle filter over the footprint of the new
sample), so that fine detail is averaged rather than aliased; volumes and signals use the same filter as pictures. It
cannot overshoot the range of the data, as cubic and Lanczos filters do. Sample k of the new axis lies at
(k + 1/2) old/new - 1/2 on the old one; spacing and affine matrices follow that rule.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from oneprior.core import Geometry, InputError, ShapeError

Size = int | tuple[int, ...]
Fit = Literal["resize", "cover", "crop", "pad"]
FITS = ("resize", "cover", "crop", "pad")
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in every picture library


def parse_size(text: str | Size | None) -> Size | None:
    """'32' -> 32 (every axis), '80x96' -> (80, 96), '64x80x64' -> (64, 80, 64)."""
    if text is None:
        return None
    size: tuple[int, ...]
    if isinstance(text, (tuple, list)):
        size = tuple(int(v) for v in text)
    else:
        parts = str(text).lower().replace("×", "x").split("x")
        if not all(part.strip().isdigit() for part in parts):
            raise InputError(f"size {text!r} is not understood; write 32, 80x96 or 64x80x64")
        size = tuple(int(part) for part in parts)
    if not size or min(size) < 1 or len(size) > 3:
        raise InputError(f"size {text!r} needs one to three numbers, each at least 1")
    return size[0] if len(size) == 1 else size


def resolve_size(size: Size | None, space: tuple[int, ...], clip: bool = False) -> tuple[int, ...]:
    """The size of each spatial axis; one number means all of them.

    For a clip, one or two numbers mean height and width, and the number of frames stays.
    """
    if size is None:
        return tuple(space)
    wanted = (size,) * (len(space) - clip) if isinstance(size, int) else tuple(size)
    if clip and len(wanted) == len(space) - 1:
        wanted = (space[0], *wanted)
    if len(wanted) != len(space):
        names = {1: "length", 2: "height x width", 3: "time x height x width" if clip else "three axes"}
        raise ShapeError("size", wanted, space, f"Give one number for each axis ({names.get(len(space), 'axes')})")
    return wanted


def fit_events(events: np.ndarray, size: tuple[int, ...], fit: Fit = "resize") -> np.ndarray:
    """Bring events to a size.

    Args:
        events: (n, channels, *space), any real type; the type is kept (integers are rounded).
        size: one number per spatial axis.
        fit: "resize" stretches each axis; "cover" keeps the aspect ratio, resizes until the size is covered and cuts
            the rest off evenly; "crop" cuts the middle out; "pad" puts the event in the middle of a canvas of its own
            smallest value, cutting an axis that is longer.

    Returns:
        (n, channels, *size).
    """
    space = events.shape[2:]
    if tuple(space) == tuple(size):
        return events
    middle, start = _steps(space, size, fit)
    if middle != space:
        x = resize(torch.from_numpy(np.ascontiguousarray(events, dtype=np.float32)), middle).numpy()
        if events.dtype.kind in "biu":
            x = np.rint(x)
        events = x.astype(events.dtype)
    return _window(events, size, start)


def resize(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """Linear interpolation, antialiased; (n, channels, *space) float -> (n, channels, *size)."""
    n, c, *space = x.shape

    def plane(v: Tensor, shape: tuple[int, int]) -> Tensor:
        return F.interpolate(v, shape, mode="bilinear", align_corners=False, antialias=True)

    if len(space) == 1:
        return plane(x.reshape(n, c, 1, -1), (1, size[0])).reshape(n, c, *size)
    if len(space) == 2:
        return plane(x, (size[0], size[1]))
    x = plane(x.reshape(n, c * space[0], *space[1:]), (size[1], size[2]))
    x = plane(x.reshape(n, c, space[0], -1), (size[0], size[1] * size[2]))
    return x.reshape(n, c, *size)


def fit_geometry(geometry: Geometry, space: tuple[int, ...], size: tuple[int, ...], fit: Fit = "resize") -> Geometry:
    """Spacing and affine after `fit_events`: world coordinates stay where they were."""
    middle, start = _steps(space, size, fit)
    scale = [old / new for old, new in zip(space, middle, strict=True)]
    shift = [s * b + (s - 1) / 2 for s, b in zip(scale, start, strict=True)]
    spacing = geometry.spacing
    if len(spacing) == len(scale):
        spacing = tuple(float(v * s) for v, s in zip(spacing, scale, strict=True))
    affine = geometry.affine
    if affine is not None:
        axes = [a for a in range(3) if a != geometry.axis][: len(scale)]
        matrix = np.asarray(affine, dtype=np.float64)
        matrix[:3, 3] += matrix[:3, axes] @ np.asarray(shift)
        matrix[:3, axes] *= np.asarray(scale)
        affine = tuple(tuple(float(v) for v in row) for row in matrix)
    return replace(geometry, spacing=spacing, affine=affine)


def fit_channels(events: np.ndarray, channels: Literal["grey", "rgb"] | None) -> np.ndarray:
    """Grey from red, green and blue by ITU-R BT.601 luma; colour from grey by repetition; (n, channels, *space)."""
    count = events.shape[1]
    if channels is None or count == {"grey": 1, "rgb": 3}[channels]:
        return events
    if channels == "grey" and count == 3:
        luma = sum(np.float32(w) * events[:, k : k + 1] for k, w in enumerate(_LUMA))
        return (np.rint(luma) if events.dtype.kind in "biu" else luma).astype(events.dtype)  # type: ignore[union-attr]
    if channels == "rgb" and count == 1:
        return np.repeat(events, 3, axis=1)
    raise InputError(
        f"{count} channels cannot become {channels}; leave `channels` out, or choose the channels yourself"
    )


def check_stride(event_shape: tuple[int, ...], stride: int, divisible: bool = True) -> None:
    """Refuse an event that a network cannot halve as often as it wants to.

    Args:
        event_shape: (channels, *space).
        stride: the factor by which the network shrinks every axis, 2 ** (number of halvings).
        divisible: whether every axis must be a multiple of it, or only as large.

    Raises:
        ShapeError: names the nearest sizes that would do.
    """
    space = tuple(event_shape[1:])
    if all(v >= stride and not (divisible and v % stride) for v in space):
        return
    near = "x".join(str(max(stride, stride * round(v / stride))) for v in space)
    needed = f"every axis {'a multiple of' if divisible else 'at least'} {stride}"
    raise ShapeError(
        "events for this network", space, needed, f"Give size={near} with a fit, or a network of less depth"
    )


def _steps(space: tuple[int, ...], size: tuple[int, ...], fit: Fit) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The size after resizing, and the first sample of the window then cut (negative: padding)."""
    space = tuple(space)
    if fit == "resize":
        return tuple(size), (0,) * len(space)
    if fit == "cover":
        factor = max(new / old for old, new in zip(space, size, strict=True))
        middle = tuple(max(new, round(old * factor)) for old, new in zip(space, size, strict=True))
    elif fit == "crop":
        if any(new > old for old, new in zip(space, size, strict=True)):
            raise ShapeError("crop", space, size, "It is smaller than the size; give fit='pad' or 'resize'")
        middle = space
    elif fit == "pad":
        middle = space
    else:
        raise InputError(f"fit {fit!r} is not known; choose one of {', '.join(FITS)}")
    return middle, tuple((old - new) // 2 for old, new in zip(middle, size, strict=True))


def _window(events: np.ndarray, size: tuple[int, ...], start: tuple[int, ...]) -> np.ndarray:
    space = events.shape[2:]
    source = tuple(slice(max(b, 0), min(b + new, old)) for b, new, old in zip(start, size, space, strict=True))
    events = events[(slice(None), slice(None), *source)]
    if events.shape[2:] == tuple(size):
        return np.ascontiguousarray(events)
    low = events.reshape(len(events), -1).min(1)
    canvas = np.empty((*events.shape[:2], *size), events.dtype)
    canvas[:] = low.reshape(-1, *[1] * (canvas.ndim - 1))
    target = tuple(slice(max(-b, 0), max(-b, 0) + old) for b, old in zip(start, events.shape[2:], strict=True))
    canvas[(slice(None), slice(None), *target)] = events
    return canvas

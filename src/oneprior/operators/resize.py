"""A coarser grid by antialiased bicubic interpolation: what photo programs do when they shrink a picture.

Along one axis, output i of `out` lies at c = (i + 1/2) f over the input's entries, f = in / out, and

    y[i] = sum_j w((j + 1/2 - c) / f) x[j] / sum_j w((j + 1/2 - c) / f),

with Keys' cubic w (1981, equation 4, a = -1/2) stretched by the factor, which is what keeps fine detail from folding
into coarse (many codes shrink without: torch's `interpolate` does unless told `antialias=True`). Every row sums to 1,
so constants stay constant, also at the border, where the kernel is cut off and weighed anew, as in Pillow. The axes
are one small matrix each, and the adjoint is by their transposes: exact.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from oneprior.core import InputError
from oneprior.operators.base import Operator
from oneprior.operators.separable import Separable, band
from oneprior.operators.words import Grammar, no_values, spelled


def bicubic(in_shape: torch.Size | tuple[int, ...], factor: float | Sequence[float]) -> Separable:
    """Antialiased bicubic shrinking by any factors >= 1, along 1, 2 or 3 spatial axes.

    Args:
        in_shape: (channels, *space).
        factor: one number >= 1 for all axes, or one for each; the output has round(size / factor) entries, at least
            one, and covers the input exactly.

    Raises:
        InputError: for a factor below 1 or the wrong number of factors.
    """
    shape = torch.Size(in_shape)
    factors = tuple(factor) if isinstance(factor, Sequence) else (factor,) * (len(shape) - 1)
    if not 2 <= len(shape) <= 4 or len(factors) != len(shape) - 1 or not all(1 <= f < float("inf") for f in factors):
        raise InputError(
            f"bicubic takes one factor >= 1 for each of 1 to 3 spatial axes; got {factor} for shape {tuple(shape)}"
        )
    matrices = [shrinking(n, max(1, int(n / f + 0.5))) for n, f in zip(shape[1:], factors, strict=True)]
    words = "x".join(spelled(f) for f in (factors if len(set(factors)) > 1 else factors[:1]))
    return Separable(shape, matrices, f"bicubic:{words}")


def shrinking(size: int, out: int) -> Tensor:
    """The matrix of one axis, (out, size)."""
    factor = size / out
    centre = (torch.arange(out, dtype=torch.float64) + 0.5) * factor
    first = (centre - 2 * factor).floor().long().clamp_min(0)
    place = first[:, None] + torch.arange(int(4 * factor) + 2)
    weights = _cubic((place + 0.5 - centre[:, None]) / factor) * (place < size)
    return band(place, weights / weights.sum(1, keepdim=True), size)


def _cubic(t: Tensor) -> Tensor:
    """Keys' cubic convolution kernel with a = -1/2."""
    t = t.abs()
    near = (1.5 * t - 2.5) * t * t + 1
    far = ((-0.5 * t + 2.5) * t - 4) * t + 2
    return torch.where(t < 1, near, torch.where(t < 2, far, 0.0))


def _parse(values: list[str], options: dict[str, str], in_shape: torch.Size) -> Operator:
    no_values("bicubic", values, 1)
    text = options.get("factor", values[0] if values else "")
    try:
        factors = [float(f) for f in text.split("x")]
    except ValueError:
        raise InputError(
            f"bicubic needs a factor, as in bicubic:4, bicubic:2.5 or bicubic:1x1x4; got {text!r}"
        ) from None
    return bicubic(in_shape, factors[0] if len(factors) == 1 else factors)


WORDS = Grammar(
    "bicubic",
    ("bicubic:FACTOR", "bicubic:FACTORxFACTOR"),
    "Shrinks by antialiased bicubic interpolation, as photo programs do; factors need not be whole.",
    ("bicubic:2", "bicubic:2.5", "bicubic:1x3"),
    _parse,
    ("factor",),
)

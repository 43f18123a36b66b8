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
from oneprior.operators.base import LinearOperator, Operator
from oneprior.operators.words import Grammar

_DENSE = 1 << 22  # entries of a matrix above which only the band that is not zero is kept


class Bicubic(LinearOperator):
    """Antialiased bicubic shrinking by any factors >= 1, along 1, 2 or 3 spatial axes.

    Args:
        in_shape: (channels, *space).
        factor: one number >= 1 for all axes, or one for each; the output has round(size / factor) entries, at least
            one, and covers the input exactly.

    Raises:
        InputError: for a factor below 1 or the wrong number of factors.
    """

    def __init__(self, in_shape: torch.Size | tuple[int, ...], factor: float | Sequence[float]) -> None:
        super().__init__()
        self.in_shape = torch.Size(in_shape)
        axes = len(self.in_shape) - 1
        factors = tuple(factor) if isinstance(factor, Sequence) else (factor,) * axes
        if not 1 <= axes <= 3 or len(factors) != axes or not all(1 <= f < float("inf") for f in factors):
            raise InputError(
                f"bicubic takes one factor >= 1 for each of 1 to 3 spatial axes; got {factor} for "
                f"shape {tuple(self.in_shape)}"
            )
        space = tuple(max(1, int(size / f + 0.5)) for size, f in zip(self.in_shape[1:], factors, strict=True))
        self.out_shape = torch.Size([self.in_shape[0], *space])
        for axis, (size, out) in enumerate(zip(self.in_shape[1:], space, strict=True)):
            self.register_buffer(f"matrix_{axis}", shrinking(size, out))
        words = "x".join(f"{f:g}" for f in (factors if len(set(factors)) > 1 else factors[:1]))
        self.spec = f"bicubic:{words}"

    def apply(self, x: Tensor) -> Tensor:
        for axis in range(len(self.in_shape) - 1):
            x = _along(axis + 2, self.get_buffer(f"matrix_{axis}").to(x), x)
        return x

    def adjoint(self, y: Tensor) -> Tensor:
        for axis in range(len(self.in_shape) - 1):
            y = _along(axis + 2, self.get_buffer(f"matrix_{axis}").to(y).t(), y)
        return y


def shrinking(size: int, out: int) -> Tensor:
    """The matrix of one axis, (out, size), float64; sparse where it is large."""
    factor = size / out
    centre = (torch.arange(out, dtype=torch.float64) + 0.5) * factor
    first = (centre - 2 * factor).floor().long().clamp_min(0)
    place = first[:, None] + torch.arange(int(4 * factor) + 2)
    weights = _cubic((place + 0.5 - centre[:, None]) / factor) * (place < size)
    weights = weights / weights.sum(1, keepdim=True)
    row = torch.arange(out)[:, None].expand_as(place)
    keep = weights != 0
    if out * size <= _DENSE:
        return torch.zeros(out, size, dtype=torch.float64).index_put((row[keep], place[keep]), weights[keep])
    index = torch.stack([row[keep], place[keep]])
    return torch.sparse_coo_tensor(index, weights[keep], (out, size), check_invariants=True).coalesce()


def _cubic(t: Tensor) -> Tensor:
    """Keys' cubic convolution kernel with a = -1/2."""
    t = t.abs()
    near = (1.5 * t - 2.5) * t * t + 1
    far = ((-0.5 * t + 2.5) * t - 4) * t + 2
    return torch.where(t < 1, near, torch.where(t < 2, far, 0.0))


def _along(axis: int, matrix: Tensor, x: Tensor) -> Tensor:
    """The matrix applied along one axis."""
    front = x.movedim(axis, 0)
    y = matrix @ front.reshape(front.shape[0], -1)
    return y.reshape(matrix.shape[0], *front.shape[1:]).movedim(0, axis)


def _parse(values: list[str], options: dict[str, str], in_shape: torch.Size) -> Operator:
    text = options.get("factor", values[0] if values else "")
    try:
        factors = [float(f) for f in text.split("x")]
    except ValueError:
        raise InputError(
            f"bicubic needs a factor, as in bicubic:4, bicubic:2.5 or bicubic:1x1x4; got {text!r}"
        ) from None
    return Bicubic(in_shape, factors[0] if len(factors) == 1 else factors)


WORDS = Grammar(
    "bicubic",
    ("bicubic:FACTOR", "bicubic:FACTORxFACTOR"),
    "Shrinks by antialiased bicubic interpolation, as photo programs do; factors need not be whole.",
    ("bicubic:2", "bicubic:2.5", "bicubic:1x3"),
    _parse,
    ("factor",),
)

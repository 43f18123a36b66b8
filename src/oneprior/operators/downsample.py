"""A coarser grid: every output is the mean of a box of inputs.

Where the factor does not divide the size, the last box along an axis holds what is left and is the mean of that, so a
constant image stays constant at any size. Thick slices of a volume are `downsample:1x1x4`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from oneprior.core import InputError
from oneprior.operators.base import LinearOperator, Operator
from oneprior.operators.words import Grammar, no_values

_POOL = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


class Downsample(LinearOperator):
    """Box average by whole factors, along 1, 2 or 3 spatial axes.

    Args:
        in_shape: (channels, *space).
        factor: one whole number >= 1 for all axes, or one for each.

    Raises:
        InputError: for a factor below 1 or the wrong number of factors.
    """

    disjoint = True

    def __init__(self, in_shape: torch.Size | tuple[int, ...], factor: int | Sequence[int]) -> None:
        super().__init__()
        self.in_shape = torch.Size(in_shape)
        axes = len(self.in_shape) - 1
        factors = (factor,) * axes if isinstance(factor, int) else tuple(factor)
        if axes not in _POOL or len(factors) != axes or min(factors) < 1:
            raise InputError(
                f"downsample takes one whole factor >= 1 for each of 1 to 3 spatial axes; got {factor} for "
                f"shape {tuple(self.in_shape)}"
            )
        self.factors = tuple(min(f, size) for f, size in zip(factors, self.in_shape[1:], strict=True))
        space = (-(-size // f) for f, size in zip(self.factors, self.in_shape[1:], strict=True))
        self.out_shape = torch.Size([self.in_shape[0], *space])
        words = "x".join(map(str, factors)) if len(set(factors)) > 1 else str(factors[0])
        self.spec = f"downsample:{words}"

    def apply(self, x: Tensor) -> Tensor:
        return _POOL[len(self.factors)](x, self.factors, ceil_mode=True, count_include_pad=False)

    def adjoint(self, y: Tensor) -> Tensor:
        return self._spread(y / self._counts(y))

    def pinv(self, y: Tensor) -> Tensor:
        """Every input of a box gets the box's mean."""
        return self._spread(y)

    def _spread(self, y: Tensor) -> Tensor:
        for axis, (factor, size) in enumerate(zip(self.factors, self.in_shape[1:], strict=True), start=2):
            y = y.repeat_interleave(factor, dim=axis).narrow(axis, 0, size)
        return y

    def _counts(self, like: Tensor) -> Tensor:
        """How many inputs each output averages, (*space of y)."""
        counts = torch.ones((), dtype=like.dtype, device=like.device)
        for factor, size, out in zip(self.factors, self.in_shape[1:], self.out_shape[1:], strict=True):
            starts = torch.arange(out, device=like.device) * factor
            counts = counts[..., None] * (size - starts).clamp_max(factor).to(like.dtype)
        return counts


def _parse(values: list[str], options: dict[str, str], in_shape: torch.Size) -> Operator:
    no_values("downsample", values, 1)
    text = options.get("factor", values[0] if values else "")
    try:
        factors = [int(f) for f in text.split("x")]
    except ValueError:
        raise InputError(
            f"downsample needs a whole factor, as in downsample:4 or downsample:2x4; got {text!r}"
        ) from None
    return Downsample(in_shape, factors[0] if len(factors) == 1 else factors)


WORDS = Grammar(
    "downsample",
    ("downsample:FACTOR", "downsample:FACTORxFACTOR"),
    "Means of boxes; the factors need not divide the size.",
    ("downsample:4", "downsample:2x4"),
    _parse,
    ("factor",),
)

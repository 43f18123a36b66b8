"""Several instruments that look at one x: y = (A_1 x, A_2 x, ...) laid end to end, with A' y = sum_k A_k' y_k.

In words the parts are joined by a `+` between blanks, "downsample:4 + blur:gaussian:2"; it binds less than the blank
that applies one operator after another. All parts have the noise level of the measurement: scale a part by the ratio
of levels where they differ. Where a part is complex the stack is, and the parts that are real have imaginary part 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from oneprior.core import InputError, ShapeError
from oneprior.operators.base import LinearOperator, Operator
from oneprior.operators.uncertain import UncertainOperator


def stack(parts: Sequence[Operator]) -> Operator:
    """The instruments side by side; a `LinearOperator` where all are.

    Args:
        parts: operators of one in_shape.

    Raises:
        InputError: for no parts, or one with unknown numbers.
        ShapeError: for parts of different events.
    """
    linear = [part for part in parts if isinstance(part, LinearOperator)]
    return Stack(linear) if len(linear) == len(parts) else NonlinearStack(parts)


class Parts(nn.ModuleList):
    """A list of operators that move together."""

    def __iter__(self) -> Iterator[Operator]:  # type: ignore[override]
        return super().__iter__()  # type: ignore[return-value]


class NonlinearStack(Operator):
    """(A_1(x), A_2(x), ...), some of them not linear; out_shape is (sum of the parts' sizes,).

    Args:
        parts: operators of one in_shape.
    """

    def __init__(self, parts: Sequence[Operator]) -> None:
        super().__init__()
        self.parts = _prepare(self, parts)

    def apply(self, x: Tensor) -> Tensor:
        return _joined(self.parts, x)

    def take(self, index: Tensor) -> Operator:
        parts = [part.take(index) for part in self.parts]
        same = all(a is b for a, b in zip(parts, self.parts, strict=True))
        return self if same else NonlinearStack(parts)


class Stack(LinearOperator):
    """(A_1 x, A_2 x, ...), all linear; out_shape is (sum of the parts' sizes,).

    Args:
        parts: linear operators of one in_shape.
    """

    def __init__(self, parts: Sequence[LinearOperator]) -> None:
        super().__init__()
        self.parts = _prepare(self, parts)
        empty = torch.zeros(1, *self.in_shape)
        self.complex = tuple(part(empty.to(_place(part))).is_complex() for part in parts)

    def apply(self, x: Tensor) -> Tensor:
        return _joined(self.parts, x)

    def adjoint(self, y: Tensor) -> Tensor:
        total: Tensor | float = 0.0
        for part, values, is_complex in zip(self.parts, self.split(y), self.complex, strict=True):
            assert isinstance(part, LinearOperator)
            total = total + part.adjoint(values if is_complex else values.real)
        assert isinstance(total, Tensor)
        return total

    def split(self, y: Tensor) -> list[Tensor]:
        """The measurement of each part in its own shape; (n, m) -> [(n, *out_shape), ...]."""
        shapes = [part.out_shape for part in self.parts]
        pieces = y.split([shape.numel() for shape in shapes], dim=1)
        return [piece.reshape(-1, *shape) for piece, shape in zip(pieces, shapes, strict=True)]


def _prepare(stacked: Stack | NonlinearStack, parts: Sequence[Operator]) -> Parts:
    if not parts:
        raise InputError("a stack needs at least one operator")
    unknown = next((part for part in parts if isinstance(part, UncertainOperator)), None)
    if unknown is not None:
        raise InputError(
            f"{unknown.title} beside another instrument is not inferred: measure with it "
            "alone, or give its numbers (a known blur, bias:...:theta=, operator.at(theta))"
        )
    for part in parts[1:]:
        if part.in_shape != parts[0].in_shape:
            remedy = "All parts of a stack measure the same event."
            raise ShapeError("part of a stack", tuple(part.in_shape), tuple(parts[0].in_shape), remedy)
    stacked.in_shape = parts[0].in_shape
    stacked.out_shape = torch.Size([sum(part.out_shape.numel() for part in parts)])
    stacked.differentiable = all(part.differentiable for part in parts)
    stacked.spec = " + ".join(part.spec for part in parts) if all(part.spec for part in parts) else ""
    return Parts(parts)


def _joined(parts: Parts, x: Tensor) -> Tensor:
    seen = [part(x).flatten(1) for part in parts]
    if any(y.is_complex() for y in seen):
        seen = [y if y.is_complex() else torch.complex(y, torch.zeros_like(y)) for y in seen]
    return torch.cat(seen, dim=1)


def _place(part: Operator) -> torch.device:
    return next(part.buffers(), torch.empty(0)).device

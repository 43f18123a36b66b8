"""Matrices, and linear maps with an offset, as operators: decoders that keep a Gaussian likelihood linear."""

from __future__ import annotations

import torch
from torch import Tensor

from oneprior.core import ShapeError
from oneprior.operators.base import LinearOperator, Operator


class Matrix(LinearOperator):
    """y = W x with a dense matrix W, events flattened.

    Args:
        matrix: (out, in), real or complex.
        in_shape: shape of one x; (in,) by default.
        out_shape: shape of one y; (out,) by default.
    """

    matrix: Tensor

    def __init__(
        self,
        matrix: Tensor,
        in_shape: torch.Size | tuple[int, ...] | None = None,
        out_shape: torch.Size | tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        self.in_shape = torch.Size(matrix.shape[1:] if in_shape is None else in_shape)
        self.out_shape = torch.Size(matrix.shape[:1] if out_shape is None else out_shape)
        if matrix.shape != (self.out_shape.numel(), self.in_shape.numel()):
            raise ShapeError("matrix", tuple(matrix.shape), (self.out_shape.numel(), self.in_shape.numel()))
        self.register_buffer("matrix", matrix)

    def apply(self, x: Tensor) -> Tensor:
        matrix = self.matrix_as(x)
        return (x.flatten(1).to(matrix.dtype) @ matrix.T).reshape(-1, *self.out_shape)

    def adjoint(self, y: Tensor) -> Tensor:
        x = y.flatten(1) @ self.matrix_as(y).conj()
        return (x.real if x.is_complex() else x).reshape(-1, *self.in_shape)

    def matrix_as(self, like: Tensor) -> Tensor:
        """W in the precision of `like`, complex where it is."""
        double = like.dtype in (torch.float64, torch.complex128)
        if self.matrix.is_complex():
            return self.matrix.to(torch.complex128 if double else torch.complex64)
        return self.matrix.to(like.real.dtype).to(like.dtype)


class Affine(Operator):
    """y = A x + offset: not linear, and yet a Gaussian likelihood seen through it stays linear.

    Args:
        part: the linear operator A.
        offset: of shape `part.out_shape`.
    """

    offset: Tensor

    def __init__(self, part: LinearOperator, offset: Tensor) -> None:
        super().__init__()
        if offset.shape != part.out_shape:
            raise ShapeError("offset", tuple(offset.shape), tuple(part.out_shape))
        self.part = part
        self.in_shape, self.out_shape = part.in_shape, part.out_shape
        self.register_buffer("offset", offset)

    def apply(self, x: Tensor) -> Tensor:
        y = self.part(x)
        return y + self.offset.to(y)

"""Instruments: what turns an image into a measurement, y = A(x)."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from oneprior.core import ShapeError


class Operator(nn.Module, ABC):
    """y = A(x), row by row; linear or not, differentiable or not.

    Attributes:
        in_shape: shape of one x.
        out_shape: shape of one y.
        differentiable: whether autograd may go through it.
        spec: the words that make it on the command line ("downsample:4"), or empty.
    """

    in_shape: torch.Size
    out_shape: torch.Size
    differentiable: bool = True
    spec: str = ""

    @abstractmethod
    def apply(self, x: Tensor) -> Tensor:
        """(n, *in_shape) -> (n, *out_shape)."""

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1:] != self.in_shape:
            raise ShapeError(f"{type(self).__name__} input", tuple(x.shape), ("n", *self.in_shape))
        return self.apply(x)

    @property
    def linear(self) -> bool:
        return isinstance(self, LinearOperator)

    def __matmul__(self, first: Operator) -> Operator:
        """(A @ B)(x) = A(B(x))."""
        from oneprior.operators.compose import compose

        return compose(self, first)


class LinearOperator(Operator):
    """y = A x with an exact adjoint: <A x, y> = <x, A' y> (real part, where y is complex)."""

    @abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """A' y; (n, *out_shape) -> (n, *in_shape)."""

    def pinv(self, y: Tensor) -> Tensor:
        """A^+ y, the least-norm least-squares solution; by conjugate gradients where no closed form is given."""
        from oneprior.core import conjugate_gradient

        tolerance = 1e-12 if y.real.dtype == torch.float64 else 1e-6
        return conjugate_gradient(lambda v: self.adjoint(self.apply(v)), self.adjoint(y), tolerance=tolerance)

    def dense(self, dtype: torch.dtype = torch.float64, chunk: int = 256) -> Tensor:
        """The matrix of A, (out, in), rows and columns flattened; made from unit events, chunk at a time."""
        size = self.in_shape.numel()
        columns = []
        for start in range(0, size, chunk):
            n = min(chunk, size - start)
            basis = torch.zeros(n, size, dtype=dtype)
            basis[torch.arange(n), torch.arange(start, start + n)] = 1
            columns.append(self.apply(basis.reshape(n, *self.in_shape)).flatten(1))
        return torch.cat(columns).T

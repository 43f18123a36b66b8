"""A sparse matrix and its transpose, both stored by rows: products with either are exact adjoints of each other.

The two hold the same numbers, so <A x, y> = <x, A' y> to rounding in any precision, and autograd through one uses the
other (a product with a transposed sparse matrix is many times slower than one by rows).
"""

from __future__ import annotations

import warnings
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn


class SparseMap(nn.Module):
    """y = A x on flattened rows, A real and sparse.

    Args:
        row, column: places of the entries, (entries,) integers; a place that is given twice holds the sum.
        value: the entries, (entries,), in the precision in which they are stored.
        shape: (rows, columns) of A.
    """

    def __init__(self, row: Tensor, column: Tensor, value: Tensor, shape: tuple[int, int]) -> None:
        from scipy.sparse import coo_array

        super().__init__()
        self.shape = shape
        forward = coo_array((value.numpy(), (row.int().numpy(), column.int().numpy())), shape=shape).tocsr()
        back = forward.T.tocsr()
        for name, matrix in (("forward", forward), ("back", back)):
            self.register_buffer(f"{name}_start", torch.from_numpy(matrix.indptr), persistent=False)
            self.register_buffer(f"{name}_place", torch.from_numpy(matrix.indices), persistent=False)
            self.register_buffer(f"{name}_value", torch.from_numpy(matrix.data), persistent=False)
        with warnings.catch_warnings():  # torch says once in a process that its sparse matrices are in beta
            warnings.simplefilter("ignore")
            torch.eye(1).to_sparse_csr()

    def shared(self) -> SparseMap:
        """The same numbers under another module, which can be moved to another device alone."""
        twin = copy(self)
        twin._buffers = dict(self._buffers)
        return twin

    def apply_to(self, x: Tensor) -> Tensor:
        """A x; (n, columns) -> (n, rows), real or complex."""
        return self._both_parts(x, "forward")

    def adjoint(self, y: Tensor) -> Tensor:
        """A' y; (n, rows) -> (n, columns), real or complex."""
        return self._both_parts(y, "back")

    def _both_parts(self, x: Tensor, way: str) -> Tensor:
        if not x.is_complex():
            return _Product.apply(x, self, way)
        parts = _Product.apply(torch.cat([x.real, x.imag]), self, way)
        return torch.complex(*parts.chunk(2))

    def product(self, x: Tensor, way: str) -> Tensor:
        """The product itself, which autograd does not see."""
        start, place, value = (getattr(self, f"{way}_{part}") for part in ("start", "place", "value"))
        shape = self.shape if way == "forward" else self.shape[::-1]
        matrix = torch.sparse_csr_tensor(start, place, value.to(x.dtype), shape, check_invariants=False)
        return (matrix @ x.T.contiguous()).T.contiguous()


class _Product(torch.autograd.Function):
    """The gradient of A x is A' times that of y, and the other way round."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: SparseMap, way: str) -> Tensor:  # type: ignore[override]
        ctx.matrix, ctx.way = matrix, way
        return matrix.product(x, way)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        other = "back" if ctx.way == "forward" else "forward"
        return _Product.apply(gradient, ctx.matrix, other), None, None

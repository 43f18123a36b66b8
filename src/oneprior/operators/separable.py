"""One small matrix for each axis, y = (M_1 x M_2 x M_3) x: shrinking and blurring that factorise over the axes.

The adjoint is by the transposes and the pseudo-inverse by theirs: exact both, at the cost of three matrix products.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from oneprior.core import InputError, ShapeError
from oneprior.operators.base import LinearOperator

_DENSE = 1 << 22  # entries of a matrix above which only those that are not zero are kept
_FACTORED = 2048  # entries of an axis up to which its matrix is inverted


class Separable(LinearOperator):
    """A matrix along each spatial axis, the channels apart.

    Args:
        in_shape: (channels, *space).
        matrices: (out, in) for each spatial axis, float64, dense or sparse; see `band`.
        spec: the words that make it, if any.

    Raises:
        InputError: for other than 1 to 3 spatial axes, or another number of matrices.
        ShapeError: for a matrix that does not fit its axis.
    """

    def __init__(self, in_shape: torch.Size | tuple[int, ...], matrices: Sequence[Tensor], spec: str = "") -> None:
        super().__init__()
        self.in_shape, self.spec = torch.Size(in_shape), spec
        if not 2 <= len(self.in_shape) <= 4 or len(matrices) != len(self.in_shape) - 1:
            raise InputError(
                f"{len(matrices)} matrices do not serve events of shape {tuple(in_shape)}: one a space axis"
            )
        for axis, (matrix, size) in enumerate(zip(matrices, self.in_shape[1:], strict=True)):
            if matrix.dim() != 2 or matrix.shape[1] != size:
                raise ShapeError(f"matrix of axis {axis}", tuple(matrix.shape), ("out", size))
            self.register_buffer(f"matrix_{axis}", matrix)
        self.out_shape = torch.Size([self.in_shape[0], *(matrix.shape[0] for matrix in matrices)])

    def matrix(self, axis: int, like: Tensor) -> Tensor:
        """That of one spatial axis, in the type and place of `like`."""
        return self.get_buffer(f"matrix_{axis}").to(like)

    def apply(self, x: Tensor) -> Tensor:
        for axis in range(len(self.in_shape) - 1):
            x = _along(axis + 2, self.matrix(axis, x), x)
        return x

    def adjoint(self, y: Tensor) -> Tensor:
        for axis in range(len(self.in_shape) - 1):
            y = _along(axis + 2, self.matrix(axis, y).t(), y)
        return y

    def pinv(self, y: Tensor) -> Tensor:
        """A^+ y, axis by axis in double precision; by conjugate gradients where an axis is long. Nothing is
        regularised: what a blur has nearly erased comes back with its noise."""
        if max(*self.in_shape[1:], *self.out_shape[1:]) > _FACTORED:
            return super().pinv(y)
        x = y.double()
        for axis in range(len(self.in_shape) - 1):
            matrix = self.matrix(axis, x)
            dense = matrix.to_dense() if matrix.is_sparse else matrix
            x = _along(axis + 2, torch.linalg.pinv(dense, rtol=1e-12), x)
        return x.to(y)


def band(columns: Tensor, weights: Tensor, size: int) -> Tensor:
    """A matrix from the entries of its rows, (rows, size), float64; sparse where it is large.

    Args:
        columns: where they stand, int64, (rows, k); what lies outside 0 .. size - 1 is left out, what falls together
            is added.
        weights: the entries, (rows, k).
        size: number of columns.
    """
    rows = torch.arange(len(columns), device=columns.device)[:, None].expand_as(columns)
    keep = (columns >= 0) & (columns < size) & (weights != 0)
    rows, columns, weights = rows[keep], columns[keep], weights[keep]
    count = len(keep)
    if count * size <= _DENSE:
        return weights.new_zeros(count, size).index_put((rows, columns), weights, accumulate=True)
    index = torch.stack([rows, columns])
    return torch.sparse_coo_tensor(index, weights, (count, size), check_invariants=True).coalesce()


def _along(axis: int, matrix: Tensor, x: Tensor) -> Tensor:
    """The matrix applied along one axis."""
    front = x.movedim(axis, 0)
    y = matrix @ front.reshape(front.shape[0], -1)
    return y.reshape(matrix.shape[0], *front.shape[1:]).movedim(0, axis)

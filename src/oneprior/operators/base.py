"""Instruments: what turns an image into a measurement, y = A(x)."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from oneprior.core import InputError, ShapeError


class Operator(nn.Module, ABC):
    """y = A(x), row by row; linear or not, differentiable or not.

    Attributes:
        in_shape: shape of one x.
        out_shape: shape of one y.
        differentiable: whether autograd may go through it.
        spec: the words that make it on the command line ("downsample:4"), or empty.
        keeps_pixels: whether y is some of the entries of x as they are, so that a picture with holes is a measurement.
    """

    in_shape: torch.Size
    out_shape: torch.Size
    differentiable: bool = True
    spec: str = ""
    keeps_pixels: bool = False

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

    @property
    def title(self) -> str:
        """What people are told of it: its words, without the bits of a mask; or what it is."""
        from oneprior.operators.mask import spoken

        return spoken(self.spec) or type(self).__name__

    def surrogate(self, noise_level: float) -> LinearOperator | None:
        """For an instrument that rounds: the linear S by which S y ~ N(S x, I) stands for y = A(x) + noise; else None.

        Args:
            noise_level: standard deviation of the noise, in the units of y; 0 for none but the rounding.
        """
        return None

    def take(self, index: Tensor) -> Operator:
        """The instrument of the rows `index`, (m,) int64: itself, but where every row has one of its own."""
        return self

    def __matmul__(self, first: Operator) -> Operator:
        """(A @ B)(x) = A(B(x))."""
        from oneprior.operators.compose import compose

        return compose(self, first)


class LinearOperator(Operator):
    """y = A x with an exact adjoint: <A x, y> = <x, A' y> (real part, where y is complex).

    Attributes:
        disjoint: whether no entry of x enters two entries of y (masks, box averages and what they compose to). Then
            A A' is diagonal, and posteriors under a low-rank Gaussian cost the same at any size.
    """

    disjoint: bool = False

    @abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """A' y; (n, *out_shape) -> (n, *in_shape)."""

    def gram(self, like: Tensor) -> Tensor:
        """The diagonal of A A' of a `disjoint` operator, of shape `out_shape`, in the type of `like`."""
        if not self.disjoint:
            raise InputError(f"A A' of {type(self).__name__} is not known to be diagonal")
        return self.apply(self.adjoint(torch.ones(1, *self.out_shape, dtype=like.dtype, device=like.device)))[0]

    def pinv(self, y: Tensor) -> Tensor:
        """A^+ y, the least-norm least-squares solution: A' (A A')^-1 y where A A' is diagonal, else by conjugate
        gradients."""
        from oneprior.core import conjugate_gradient

        if self.disjoint:
            gram = self.gram(y)
            return self.adjoint(torch.where(gram > 0, y / gram.clamp_min(torch.finfo(y.dtype).tiny), 0.0))

        tolerance = 1e-12 if y.real.dtype == torch.float64 else 1e-6
        return conjugate_gradient(lambda v: self.adjoint(self.apply(v)), self.adjoint(y), tolerance=tolerance)

    def dense(self, dtype: torch.dtype = torch.float64, chunk: int = 256, device: torch.device | str = "cpu") -> Tensor:
        """The matrix of A, (out, in), rows and columns flattened; made from unit events, chunk at a time."""
        size = self.in_shape.numel()
        columns = []
        for start in range(0, size, chunk):
            n = min(chunk, size - start)
            basis = torch.zeros(n, size, dtype=dtype, device=device)
            basis[torch.arange(n), torch.arange(start, start + n)] = 1
            columns.append(self.apply(basis.reshape(n, *self.in_shape)).flatten(1))
        return torch.cat(columns).T

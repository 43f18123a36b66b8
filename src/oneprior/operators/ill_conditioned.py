"""Operators whose singular values fall over many orders: coils that see nearly alike, few or narrow views.

Conjugate gradients find their pseudo-inverse only in the limit; stopped early they leave the small singular values at
zero, which is what one wants of a baseline of noisy data (Hanke 1995; CG-SENSE: Pruessmann et al. 2001), and no law
can be tested on. So the exact pseudo-inverse is made of the matrix where that is small, and iterations serve above.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from oneprior.operators.base import LinearOperator

_SMALL = 1 << 18  # entries of a matrix that is decomposed
_CUT = 1e-10  # of the largest singular value: below it is rounding


class IllConditioned(LinearOperator):
    """A linear operator with an exact `pinv` while it is small."""

    def pinv(self, y: Tensor) -> Tensor:
        """A^+ y; exact for matrices of up to 2^18 entries, else 200 conjugate gradient steps on A'A at most."""
        reals = self.out_shape.numel() * (2 if y.is_complex() else 1)
        if self.disjoint or reals * self.in_shape.numel() > _SMALL:
            return super().pinv(y)
        flat = torch.view_as_real(y).flatten(1) if y.is_complex() else y.flatten(1)
        x = flat.double() @ self._inverse.T.to(y.device)
        return x.reshape(-1, *self.in_shape).to(y.real.dtype)

    @cached_property
    def _inverse(self) -> Tensor:
        """A^+ of y as reals, (in, out), float64."""
        dense = self.dense(device=next(self.buffers(), torch.empty(0)).device)
        if dense.is_complex():
            dense = torch.view_as_real(dense.contiguous()).permute(0, 2, 1).flatten(0, 1)
        return torch.linalg.pinv(dense, rtol=_CUT)

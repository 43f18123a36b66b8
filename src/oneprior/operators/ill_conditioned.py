"""Operators whose singular values fall over many orders: coils that see nearly alike, few or narrow views.

Their pseudo-inverse makes noise large, and conjugate gradients find it only in the limit. So there are two inverses:

- `pinv`, what it says: made of the matrix where that is small, else by up to 200 conjugate gradient steps.
- `stopped`, the baseline of noisy data: the same iteration, which fits the large singular values first, stopped as
  soon as the residual is what the noise explains, |y - A x| <= sigma sqrt(m). The discrepancy principle: Morozov 1966;
  for conjugate gradients Hanke 1995; CG-SENSE (Pruessmann et al. 2001) is this iteration.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from oneprior.core import inner, per_row
from oneprior.operators.base import LinearOperator

_SMALL = 1 << 18  # entries of a matrix that is decomposed
_CUT = 1e-10  # of the largest singular value: below it is rounding


class IllConditioned(LinearOperator):
    """A linear operator with an exact `pinv` while it is small, and a `stopped` inverse for noisy data."""

    def pinv(self, y: Tensor) -> Tensor:
        """A^+ y; exact for matrices of up to 2^18 entries, else 200 conjugate gradient steps on A'A at most."""
        reals = self.out_shape.numel() * (2 if y.is_complex() else 1)
        if self.disjoint or reals * self.in_shape.numel() > _SMALL:
            return super().pinv(y)
        flat = torch.view_as_real(y).flatten(1) if y.is_complex() else y.flatten(1)
        x = flat.double() @ self._inverse.T.to(y.device)
        return x.reshape(-1, *self.in_shape).to(y.real.dtype)

    def stopped(self, y: Tensor, noise_level: Tensor | float, max_steps: int = 30) -> Tensor:
        """The first x of conjugate gradients from 0 that explains y to its noise, each row on its own.

        Args:
            y: (n, *out_shape).
            noise_level: sigma of each real number of y, one or one a row (n,).
            max_steps: where the noise level is never met.
        """
        numbers = self.out_shape.numel() * (2 if y.is_complex() else 1)
        goal = torch.as_tensor(noise_level, dtype=y.real.dtype, device=y.device).square() * numbers
        r, s = y, self.adjoint(y)
        x, p, gamma = torch.zeros_like(s), s, inner(s, s)
        tiny = torch.finfo(gamma.dtype).tiny
        for _ in range(max_steps):
            active = (inner(r, r) > goal) & (gamma > tiny)
            if not bool(active.any()):
                break
            q = self.apply(p)
            step = torch.where(active, gamma / inner(q, q).clamp_min(tiny), 0.0)
            x = x + per_row(step, x) * p
            r = r - per_row(step, r) * q
            s = self.adjoint(r)
            before, gamma = gamma, torch.where(active, inner(s, s), gamma)
            p = s + per_row(gamma / before.clamp_min(tiny), s) * p
        return x

    @cached_property
    def _inverse(self) -> Tensor:
        """A^+ of y as reals, (in, out), float64."""
        dense = self.dense(device=next(self.buffers(), torch.empty(0)).device)
        if dense.is_complex():
            dense = torch.view_as_real(dense.contiguous()).permute(0, 2, 1).flatten(0, 1)
        return torch.linalg.pinv(dense, rtol=_CUT)

"""Some entries of x are known exactly: a plan's start and goal, the pixels that must stay."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from oneprior.core import ShapeError
from oneprior.likelihoods.base import Likelihood
from oneprior.likelihoods.gaussian import GaussianLikelihood
from oneprior.operators.mask import Mask


class Fixed(Likelihood):
    """L(x) = 1 where x agrees with `value` on `mask`, and 0 elsewhere: a constraint, with no gradient.

    `gaussian` gives the same evidence as a measurement of those entries, which closed-form and guided methods take.

    Args:
        mask: bool, of the shape of one event: which entries are fixed.
        value: the events that they are taken from, (n, *event_shape), or (*event_shape) for any number of rows.
        tolerance: the largest difference that counts as agreement.
        through: applied before the comparison; the identity by default.
    """

    differentiable = False

    def __init__(
        self,
        mask: Tensor,
        value: Tensor,
        *,
        tolerance: float = 1e-5,
        through: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        if tuple(value.shape[-mask.dim() :]) != tuple(mask.shape) or value.dim() not in (mask.dim(), mask.dim() + 1):
            raise ShapeError("fixed values", tuple(value.shape), f"(n, *{tuple(mask.shape)}) or {tuple(mask.shape)}")
        self.mask, self.value, self.tolerance, self.through = mask.bool(), value, tolerance, through

    @property
    def rows(self) -> int | None:
        return None if self.value.dim() == self.mask.dim() else self.value.shape[0]

    def log_prob(self, x: Tensor) -> Tensor:
        x = x if self.through is None else self.through(x)
        apart = ((x - self.value).abs() * self.mask).flatten(1).amax(1)
        return torch.where(apart <= self.tolerance, 0.0, -torch.inf).to(x.dtype)

    def project(self, x: Tensor) -> Tensor:
        """x with the fixed entries put in; (n, *event_shape) -> (n, *event_shape)."""
        return torch.where(self.mask, self.value.to(x), x)

    def gaussian(self, n: int | None = None, noise_level: float = 0.0) -> GaussianLikelihood:
        """The same evidence as a masked measurement.

        Args:
            n: number of rows, where the values serve any number.
            noise_level: 0 for the constraint itself.
        """
        value = self.value.expand(n or 1, *self.mask.shape) if self.rows is None else self.value
        operator = Mask(self.mask, self.mask.shape)
        return GaussianLikelihood(operator(value), operator, noise_level, through=self.through)

    def pullback(self, f: Callable[[Tensor], Tensor]) -> Fixed:
        inner = self.through
        chained = f if inner is None else lambda z: inner(f(z))
        return Fixed(self.mask, self.value, tolerance=self.tolerance, through=chained)

    def take(self, index: Tensor) -> Fixed:
        if self.rows is None:
            return self
        return Fixed(self.mask, self.value[index], tolerance=self.tolerance, through=self.through)

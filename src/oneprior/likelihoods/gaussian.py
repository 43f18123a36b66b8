"""Gaussian noise: y = A(x) + sigma noise, the likelihood that keeps its structure.

A linear measurement of x = B z + c is again a linear measurement, of z: A' = A B, y' = y - A c. So `pullback` through
an affine map gives a linear Gaussian likelihood back, and exact posteriors stay exact in other units and behind linear
decoders. Through any other map the noise stays Gaussian and the operator becomes nonlinear.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from oneprior.core import InputError
from oneprior.likelihoods.measured import MeasuredLikelihood, checked_level, level_like, numbers, numbers_of_level
from oneprior.operators.base import Operator


class GaussianLikelihood(MeasuredLikelihood):
    """log N(y; A(f(x)), sigma^2 I), one measurement a row, with its constant.

    Where y is complex each of its two parts has deviation sigma. A noise level of 0 is a constraint, A(x) = y: it has
    no density, and only methods that say so serve it.

    Args:
        y: measurements, (n, *operator.out_shape).
        operator: the instrument A.
        noise_level: sigma >= 0 in the units of y: one number, one for each row (n,), or one for each entry
            (n, *operator.out_shape), which only methods that need no more than a density serve (`white` is False).
        through: f, applied before the operator; the identity by default. A decoder with bound conditions takes rows in
            draw-major order (row i has condition i % n), which is the order of `repeat`.
        log_scale: a constant added to the density of every row (the volume of a change of units).

    Raises:
        ShapeError: where y does not fit the operator.
        InputError: for a negative or non-finite noise level, or non-finite y.
    """

    additive: ClassVar[bool] = True
    levels: ClassVar[tuple[str, ...]] = ("noise_level",)

    def __init__(
        self,
        y: Tensor,
        operator: Operator,
        noise_level: Tensor | float,
        *,
        through: Callable[[Tensor], Tensor] | None = None,
        log_scale: float = 0.0,
    ) -> None:
        super().__init__(y, operator, through=through, log_scale=log_scale)
        self.noise_level = checked_level(self.y, noise_level, zero=True, entries=True)

    @property
    def constraint(self) -> bool:
        """Whether some row has noise level 0, so that there is no density."""
        return bool((self.noise_level == 0).any())

    @property
    def white(self) -> bool:
        """Whether all entries of a row have the same noise level."""
        return self.noise_level.dim() <= 1

    def density(self, clean: Tensor) -> Tensor:
        if self.constraint:
            raise InputError("noise level 0 is a constraint and has no density: use a closed-form or guided method")
        parts = numbers(self.y - clean)
        sigma = numbers_of_level(self.noise_level, self.y)
        quadratic = (parts / sigma).square().sum(1)
        constant = sigma.log() + 0.5 * math.log(2 * math.pi)
        constant = parts.shape[1] * constant[:, 0] if self.white else constant.sum(1)
        return -0.5 * quadratic - constant

    def standardised(self, clean: Tensor) -> tuple[Tensor, Tensor]:
        """(y - A x) / sigma; the smallest number stands for a level of 0."""
        sigma = numbers_of_level(self.noise_level, self.y).clamp_min(torch.finfo(self.noise_level.dtype).tiny)
        z = numbers(self.y - clean) / sigma
        return z, z.new_zeros(())

    def noise(self, like: Tensor) -> Tensor:
        """sigma shaped to broadcast against (n, ...)."""
        return level_like(self.noise_level, like).to(like.real)

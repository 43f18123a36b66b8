"""Laplace noise: heavy tails in every entry, and the median in place of the mean.

    p(r) = exp(-|r| / b) / (2 b),    standard deviation sigma = sqrt(2) b,

for each real number r of the residual y - A x. The level is told as sigma, so that 5 % means the same spread as for
Gaussian noise. log p has a kink at r = 0: its gradient is sign(r) / b and 0 at r = 0 itself.

It is a Gaussian of random variance, s^2 ~ Exponential of mean 2 b^2 (Andrews and Mallows 1974), and given r the
precision 1 / s^2 is inverse Gaussian with mean 1 / (b |r|) and shape 1 / b^2 (Park and Casella 2008, section 2), drawn
here by the transformation of Michael, Schucany and Haas (1976).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from oneprior.core import InputError, Rows
from oneprior.likelihoods.measured import checked_level, level_like, numbers, numbers_of_level
from oneprior.likelihoods.scale_mixture import ScaleMixture
from oneprior.operators.base import Operator


class LaplaceLikelihood(ScaleMixture):
    """log of the product of exp(-|y - A x| / b) / (2 b), with its constant.

    Where y is complex each of its two parts has a Laplace law of its own.

    Args:
        y: measurements, (n, *operator.out_shape).
        operator: the instrument A.
        noise_level: sigma = sqrt(2) b > 0, the standard deviation in the units of y; one number or one a row (n,).
        through: see `MeasuredLikelihood`.
        log_scale: see `MeasuredLikelihood`.
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
        self.noise_level = checked_level(self.y, noise_level)

    def density(self, clean: Tensor) -> Tensor:
        b = numbers_of_level(self.noise_level, self.y) / math.sqrt(2)
        return -(numbers(self.y - clean).abs() / b + (2 * b).log()).sum(1)

    def standardised(self, clean: Tensor) -> tuple[Tensor, Tensor]:
        """(y - A x) / sigma, of excess kurtosis 3."""
        z = numbers(self.y - clean) / numbers_of_level(self.noise_level, self.y)
        return z, z.new_tensor(3.0)

    def scale_given(self, clean: Tensor, rows: Rows) -> Tensor:
        """s of each entry, (n, *out_shape).

        Raises:
            InputError: for complex y, whose two parts have scales of their own.
        """
        if self.y.is_complex():
            raise InputError("the two parts of complex Laplace noise have scales of their own, and cannot share one")
        b = level_like(self.noise_level, self.y).double() / math.sqrt(2)
        shape = self.operator.out_shape
        normal, chance = rows.normal(*shape, dtype=torch.float64), rows.uniform(*shape, dtype=torch.float64)
        mean = 1 / ((self.y - clean).double().abs() / b).clamp_min(1e-12)  # of b^2 / s^2, whose shape is then 1
        a = 0.5 * mean * normal.square()
        low = mean / (1 + a + (a * (a + 2)).sqrt())  # the smaller root, without cancellation
        precision = torch.where(chance * (mean + low) <= mean, low, mean.square() / low)
        return (b / precision.sqrt()).to(self.y)

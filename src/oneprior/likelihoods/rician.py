"""Rician noise: the magnitude of a complex signal with Gaussian noise, as MRI scanners store it.

    y = |A(x) + sigma (e1 + i e2)|,
    log p(y | x) = log(y / sigma^2) - (y^2 + nu^2) / (2 sigma^2) + log I0(y nu / sigma^2),    nu = |A(x)|

(Rice 1944; Gudbjartsson and Patz 1995, equation 2). With the scaled Bessel function I0e(z) = exp(-z) I0(z) it is
log(y / sigma^2) - (y - nu)^2 / (2 sigma^2) + log I0e(y nu / sigma^2), which never overflows. Where the signal is
strong it is Gaussian; where there is none it is Rayleigh, of mean 1.25 sigma: dark regions of a magnitude image are
not dark, and a Gaussian likelihood would paint that haze into x.

The sign (phase) of A(x) leaves no trace in y; the prior decides it. A recorded magnitude of exactly 0, which rounding
makes of small ones, has no density: the smallest positive number stands for it in the constant.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from oneprior.core import InputError
from oneprior.likelihoods.measured import MeasuredLikelihood, checked_level, level_like
from oneprior.operators.base import Operator


class RicianLikelihood(MeasuredLikelihood):
    """log of the Rician density of magnitudes y around |A(x)|, with its constant.

    Args:
        y: magnitudes, real and >= 0, (n, *operator.out_shape).
        operator: the instrument A; its output may be complex.
        noise_level: sigma > 0 of the real and of the imaginary part, in the units of y; one number or one a row (n,).
        through: see `MeasuredLikelihood`.
        log_scale: see `MeasuredLikelihood`.
    """

    additive: ClassVar[bool] = False
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
        if y.is_complex() or bool((y < 0).any()):
            what = "complex numbers" if y.is_complex() else f"{float(y.min()):g} among them"
            raise InputError(
                f"Rician noise is of magnitudes >= 0, got {what}: take their absolute value, or Gaussian noise"
            )
        self.noise_level = checked_level(y, noise_level)

    def density(self, clean: Tensor) -> Tensor:
        sigma, nu, y = level_like(self.noise_level, self.y), clean.abs(), self.y
        constant = y.clamp_min(torch.finfo(y.dtype).tiny).log() - 2 * sigma.log()
        bessel = torch.special.i0e(y / sigma * (nu / sigma)).log()
        return (constant - 0.5 * ((y - nu) / sigma).square() + bessel).flatten(1).sum(1)

    def standardised(self, clean: Tensor) -> tuple[Tensor, Tensor]:
        """(y^2 - nu^2 - 2 sigma^2) / (2 sigma sqrt(nu^2 + sigma^2)), about (y - nu) / sigma for strong signals.

        (y / sigma)^2 is noncentral chi-square of 2 degrees of freedom, from which the moments come.
        """
        sigma = level_like(self.noise_level, self.y)
        power, square = (clean.abs() / sigma).square(), (self.y / sigma).square()
        z = (square - power - 2) / (2 * (1 + power).sqrt())
        return z.flatten(1), (6 * (1 + 2 * power) / (1 + power).square()).flatten(1)

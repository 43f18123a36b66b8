"""Does a restoration explain its measurement? The chi-square of y given A x.

With noise of deviation s the residuals of the truth, (y - A x) / s, are standard normal, and their squares summed over
m measured numbers follow a chi-square law with m degrees of freedom: m on average, give or take sqrt(2 m). Draws of the
posterior fit about as well, and its mean better (it has used the noise as well). Far above, the restoration
contradicts the measurement, or the noise level or the operator is wrong; far below, the noise was fitted.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from oneprior.core import InputError, ShapeError


@dataclass(frozen=True)
class Consistency:
    """Row by row, (n,) float64 each.

    Args:
        chi_square: sum of ((y - A x) / s)^2; complex numbers count as two.
        degrees: how many numbers were measured.
        reduced: chi_square / degrees, 1 on average for the truth.
        p_value: chance of so large a value or a larger one for the truth.
    """

    chi_square: Tensor
    degrees: int
    reduced: Tensor
    p_value: Tensor


def data_consistency(y: Tensor, predicted: Tensor, noise_level: Tensor | float) -> Consistency:
    """Chi-square of each row.

    Args:
        y: measurements, (n, *out_shape), real or complex.
        predicted: A x, same shape.
        noise_level: s, of each real number (of a complex one: of its real and its imaginary part); one, or (n,).

    Raises:
        ShapeError: if the shapes differ.
        InputError: for a noise level that is not positive.
    """
    if y.shape != predicted.shape:
        raise ShapeError("A x", tuple(predicted.shape), tuple(y.shape), "Apply the operator of the measurement.")
    level = torch.as_tensor(noise_level, dtype=torch.float64, device=y.device)
    if not bool((level > 0).all()):
        raise InputError("a chi-square needs a noise level above 0; without noise A x equals y, or does not")
    apart = y - predicted
    apart = torch.view_as_real(apart) if apart.is_complex() else apart
    z = apart.double().flatten(1) / level.reshape(-1, 1)
    chi_square, degrees = z.square().sum(1), z.shape[1]
    half = torch.tensor(degrees / 2, dtype=torch.float64, device=y.device)
    p = torch.special.gammaincc(half.expand_as(chi_square), chi_square / 2)
    return Consistency(chi_square, degrees, chi_square / degrees, p)

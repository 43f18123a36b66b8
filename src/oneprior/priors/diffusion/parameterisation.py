"""What a denoising network may predict, and the exact way from one to another.

With x_t = alpha x + sigma eps, every usual target is a linear function of x_t and x, so that each is turned into
x0 = p x_t + q output with two numbers, and the five are one family:

| name | output | p | q |
|---|---|---|---|
| "x0" | x | 0 | 1 |
| "eps" | eps (Ho et al. 2020) | 1 / alpha | -sigma / alpha |
| "v" | alpha eps - sigma x (Salimans and Ho 2022) | alpha / (alpha^2 + sigma^2) | -sigma / (alpha^2 + sigma^2) |
| "velocity" | eps - x (rectified flow: d x_t / d t) | 1 / (alpha + sigma) | -sigma / (alpha + sigma) |
| "F" | EDM's raw network (Karras et al. 2022, equation 7) | alpha d^2 / (sigma^2 + alpha^2 d^2) | sigma d / sqrt(...) |

d is sigma_data. For d = 1 and alpha^2 + sigma^2 = 1, F is -v: the default of OnePrior, written as v so that the
network can be handed to any program that knows v-prediction.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from oneprior.core import InputError

Parameterisation = Literal["x0", "eps", "v", "velocity", "F"]


def coefficients(
    kind: Parameterisation, alpha: Tensor, sigma: Tensor, sigma_data: float = 1.0
) -> tuple[Tensor | float, Tensor | float]:
    """The (p, q) with x0 = p x_t + q output.

    Args:
        kind: what the network predicts.
        alpha: factor of x in x_t, any shape.
        sigma: deviation of the noise in x_t, the same shape.
        sigma_data: of EDM's F.
    """
    if kind == "x0":
        return 0.0, 1.0
    if kind == "eps":
        return 1 / alpha, -sigma / alpha
    if kind == "v":
        power = alpha * alpha + sigma * sigma
        return alpha / power, -sigma / power
    if kind == "velocity":
        return 1 / (alpha + sigma), -sigma / (alpha + sigma)
    if kind == "F":
        power = sigma * sigma + (alpha * sigma_data) ** 2
        return alpha * sigma_data**2 / power, sigma * sigma_data * power**-0.5
    raise InputError(f"parameterisation {kind!r} is not known; known are x0, eps, v, velocity and F")


def to_x0(
    kind: Parameterisation, output: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor, sigma_data: float = 1.0
) -> Tensor:
    """E[x | x_t] from what the network says; alpha and sigma broadcast against x_t."""
    p, q = coefficients(kind, alpha, sigma, sigma_data)
    return p * x_t + q * output


def from_x0(
    kind: Parameterisation, x0: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor, sigma_data: float = 1.0
) -> Tensor:
    """What the network should say where the clean event is x0: the inverse of `to_x0`; sigma > 0."""
    p, q = coefficients(kind, alpha, sigma, sigma_data)
    return (x0 - p * x_t) / q


def convert(
    output: Tensor,
    source: Parameterisation,
    target: Parameterisation,
    x_t: Tensor,
    alpha: Tensor,
    sigma: Tensor,
    sigma_data: float = 1.0,
) -> Tensor:
    """The same prediction in another parameterisation."""
    if source == target:
        return output
    x0 = to_x0(source, output, x_t, alpha, sigma, sigma_data)
    return from_x0(target, x0, x_t, alpha, sigma, sigma_data)

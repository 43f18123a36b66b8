"""Poisson noise: counts of photons, events, cells.

    y ~ Poisson(rate),    rate = gain A(x) + background,    log p(y | x) = y log rate - rate - log y!

A rate must be positive, and decoders, blurs and half-converged chains do not ask. Below `least` counts (0.01) the rate
is continued by least exp(rate / least - 1), which is positive, joins with the same value and slope, and has log rate
linear in x: log p stays finite with a finite gradient that points back. At rates of `least` and above nothing is
changed, and the law is normalised everywhere.

log p is summed as y log(rate / y) - (rate - y), whose terms stay small where the fit is good, so that single precision
serves a million counts. Counts that are not whole (a camera's gain is seldom known exactly) are taken with y! =
Gamma(y + 1).

**Draws** invert the distribution function: the count is the smallest k with P(K <= k) >= u, one uniform number an
entry. The search starts from the normal quantile, corrected for skewness (Cornish and Fisher 1938), and walks to the
answer, which is unique; so a row's counts depend on nothing beside it, and grow with the rate for a given u.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from oneprior.core import InputError, Rows, ShapeError
from oneprior.likelihoods.measured import MeasuredLikelihood, checked_level, level_like
from oneprior.operators.base import Operator

_DARK = 0.25  # counts


class PoissonLikelihood(MeasuredLikelihood):
    """log of the probability of counts y ~ Poisson(gain A(x) + background), with its constant.

    Args:
        y: counts, real and >= 0, (n, *operator.out_shape).
        operator: the instrument A, whose output is real.
        gain: counts for each unit of A(x), > 0; one number or one a row (n,).
        background: counts that do not come from x: one number, or (1 or n, *out_shape). Negative where a reading of 0
            counts is A of something else than 0.
        least: rates below this are continued smoothly, in counts.
        through: see `MeasuredLikelihood`.
        log_scale: see `MeasuredLikelihood`.
    """

    additive: ClassVar[bool] = False
    levels: ClassVar[tuple[str, ...]] = ("gain", "background")

    def __init__(
        self,
        y: Tensor,
        operator: Operator,
        gain: Tensor | float = 1.0,
        background: Tensor | float = 0.0,
        *,
        least: float = 1e-2,
        through: Callable[[Tensor], Tensor] | None = None,
        log_scale: float = 0.0,
    ) -> None:
        super().__init__(y, operator, through=through, log_scale=log_scale)
        if y.is_complex() or bool((y < 0).any()):
            what = "complex numbers" if y.is_complex() else f"{float(y.min()):g} among them"
            raise InputError(
                f"Poisson noise is of counts >= 0, got {what}: give another noise, or the counts themselves"
            )
        self.gain, self.least = checked_level(y, gain), least
        dark = torch.as_tensor(background, dtype=y.dtype, device=y.device)
        if dark.dim() and (dark.shape[1:] != y.shape[1:] or dark.shape[0] not in (1, len(y))):
            raise ShapeError("background", tuple(dark.shape), f"() or (n, *{tuple(y.shape[1:])})")
        self.background = dark.expand_as(y) if dark.dim() else dark

    def rate(self, clean: Tensor) -> Tensor:
        """gain A(x) + background in counts, before it is made positive; (n, *out_shape)."""
        return level_like(self.gain, clean) * clean + self.background

    def density(self, clean: Tensor) -> Tensor:
        rate, y = self.rate(clean), self.y
        some = torch.where(y > 0, y, torch.ones_like(y))
        above, below = rate.clamp_min(self.least), rate.clamp_max(self.least) / self.least - 1
        inside = rate > self.least
        log_ratio = torch.where(inside, torch.log1p((above - some) / some), math.log(self.least) + below - some.log())
        positive = torch.where(inside, above, self.least * below.exp())
        constant = (torch.xlogy(y.double(), y.double()) - y.double() - (y.double() + 1).lgamma()).to(y.dtype)
        return (y * log_ratio - (positive - y) + constant).flatten(1).sum(1)

    def standardised(self, clean: Tensor) -> tuple[Tensor, Tensor]:
        """(y - rate) / sqrt(rate), of excess kurtosis 1 / rate; rates of a quarter count at least, below which a
        single count would be told for a misfit of any size."""
        rate = self.rate(clean).clamp_min(max(self.least, _DARK))
        return ((self.y - rate) / rate.sqrt()).flatten(1), (1 / rate).flatten(1)


def draw_counts(rate: Tensor, rows: Rows) -> Tensor:
    """Poisson counts of the given rates, one uniform number each.

    Args:
        rate: >= 0, (n, *shape).
        rows: the n rows.

    Returns:
        Whole numbers, (n, *shape), float64.
    """
    u = rows.uniform(*rate.shape[1:], dtype=torch.float64).to(rate.device).flatten()
    mean = rate.double().flatten()
    z = torch.special.ndtri(u)
    k = (mean + mean.sqrt() * z + (z.square() - 1) / 6).floor().clamp_min(0.0) * (mean > 0)
    below = torch.special.gammaincc(k + 1, mean)  # P(K <= k)
    mass = (torch.xlogy(k, mean) - mean - (k + 1).lgamma()).exp()  # P(K = k)
    (active,) = torch.nonzero(below < u, as_tuple=True)
    (high,) = torch.nonzero(below - mass >= u, as_tuple=True)
    while active.numel():
        k[active] += 1
        mass[active] *= mean[active] / k[active]
        below[active] += mass[active]
        active = active[(below[active] < u[active]) & (mass[active] > 0)]
    while high.numel():
        below[high] -= mass[high]
        mass[high] *= k[high] / mean[high]
        k[high] -= 1
        high = high[(below[high] - mass[high] >= u[high]) & (k[high] > 0)]
    return k.reshape(rate.shape)

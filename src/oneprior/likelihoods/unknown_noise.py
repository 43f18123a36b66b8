"""Gaussian noise of a level that nobody told: sigma is inferred with the image.

A priori log sigma is uniform over [low, high] (0.1 % to 100 % of the value range unless told otherwise): Jeffreys'
prior of a scale, made proper by the range. Here sigma takes one of G values, equally spaced in log sigma and equally
probable, and given |y - A x|^2 = Q over d numbers

    p(y | x) = (1 / G) sum_i (2 pi sigma_i^2)^(-d/2) exp(-Q / (2 sigma_i^2)),

a normalised density. log sigma is known to about 1 / sqrt(2 d) a posteriori and the spacing is half of that at most, so
the sum is the integral (a truncated inverse-gamma mixture) up to the ends of the range: the trapezoid rule of a peak
converges like exp(-2 pi^2 (width / spacing)^2). Draws of sigma are exact for the sum as it stands. Only 81 values
around the peak are summed, 20 posterior deviations on each side: the work does not grow with d.

One sigma a row. Given sigma the likelihood is Gaussian (`given`), and given x `posterior_sigma` draws it: methods that
know only Gaussian noise serve it by Gibbs sampling. What it cannot know: a wrong image looks like much noise. Its
`misfit` is about 1 by construction unless even the largest sigma is too small; look at `level` and `whiteness`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from oneprior.core import InputError, Rows
from oneprior.likelihoods.measured import checked_level, numbers
from oneprior.likelihoods.scale_mixture import ScaleMixture
from oneprior.operators.base import Operator

_REACH = 40  # grid values summed on each side of the peak


class UnknownNoiseLikelihood(ScaleMixture):
    """log of the integral of N(y; A x, sigma^2 I) over a log-uniform sigma, with its constant.

    Args:
        y: measurements, (n, *operator.out_shape).
        operator: the instrument A.
        low: the least sigma, > 0, in the units of y; one number or one a row (n,).
        high: the largest, > low.
        through: see `MeasuredLikelihood`.
        log_scale: see `MeasuredLikelihood`.
    """

    additive: ClassVar[bool] = True
    levels: ClassVar[tuple[str, ...]] = ("low", "high")

    def __init__(
        self,
        y: Tensor,
        operator: Operator,
        low: Tensor | float,
        high: Tensor | float,
        *,
        through: Callable[[Tensor], Tensor] | None = None,
        log_scale: float = 0.0,
    ) -> None:
        super().__init__(y, operator, through=through, log_scale=log_scale)
        self.low, self.high = checked_level(self.y, low), checked_level(self.y, high)
        if not bool((self.high > self.low).all()):
            raise InputError(f"the range of an unknown noise level is low < high, got {low} and {high}")

    def density(self, clean: Tensor) -> Tensor:
        _, terms, size = self._grid(clean)
        total = terms.logsumexp(1) - size.log()
        return (total - 0.5 * math.log(2 * math.pi) * self._count).to(self.y.real.dtype)

    def posterior_sigma(self, x: Tensor, rows: Rows) -> Tensor:
        """One draw of sigma from p(sigma | y, x), (n,), in the units of this likelihood's y."""
        return self.draw_scale(x, rows)

    def level(self, x: Tensor) -> Tensor:
        """E[sigma | y, x], (n,), in the units of this likelihood's y."""
        return self._mean(self.predict(x))

    def _mean(self, clean: Tensor) -> Tensor:
        log_sigma, terms, _ = self._grid(clean)
        return (terms.softmax(1) * log_sigma.exp()).sum(1).to(self.y.real.dtype)

    def standardised(self, clean: Tensor) -> tuple[Tensor, Tensor]:
        """(y - A x) / E[sigma | y, x]."""
        z = numbers(self.y - clean) / self._mean(clean)[:, None]
        return z, z.new_zeros(())

    def scale_given(self, clean: Tensor, rows: Rows) -> Tensor:
        log_sigma, terms, _ = self._grid(clean)
        chosen = rows.categorical(terms)
        return log_sigma.gather(1, chosen[:, None])[:, 0].exp().to(self.y.real.dtype)

    @property
    def _count(self) -> int:
        """d, the real numbers of a row."""
        return self.operator.out_shape.numel() * (2 if self.y.is_complex() else 1)

    def _grid(self, clean: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """log sigma_i around the peak, (n, m); -d log sigma_i - Q / (2 sigma_i^2), -inf beyond the range; G, (n,)."""
        d = self._count
        square = numbers(self.y - clean).double().square().sum(1)
        low, high = (level.double().log().expand(len(square)) for level in (self.low, self.high))
        size = 1 + ((high - low) * 2 * math.sqrt(2 * d)).ceil().clamp_min(32)
        spacing = (high - low) / (size - 1)
        peak = 0.5 * (square.detach() / d).clamp_min(1e-300).log()
        centre = ((peak - low) / spacing).round().clamp_min(0).minimum(size - 1)
        place = centre[:, None] + torch.arange(-_REACH, _REACH + 1, device=square.device)
        log_sigma = low[:, None] + place * spacing[:, None]
        terms = -d * log_sigma - 0.5 * square[:, None] * (-2 * log_sigma).exp()
        return log_sigma, terms.masked_fill((place < 0) | (place > size[:, None] - 1), -torch.inf), size

"""Gaussian noise, of which a share of the entries is far off: dead pixels, scratches, spikes, wrong matches.

    p(r) = (1 - share) N(r; 0, sigma^2) + share N(r; 0, spread^2),    spread >> sigma

(the contaminated normal of Tukey 1960). A residual far beyond sigma costs about r^2 / (2 spread^2), next to nothing, so
that a few bad entries do not pull the image; each is judged from its own residual, and none must be named beforehand.
Where y is complex an entry is off as a whole, in both of its parts.

Its variance says little of most entries, so the standardised residual is the normal score of the residual's own tail
probability, z = Phi^-1(P(|R| > |r|) / 2): exactly normal when x is right, and moved little by any number of outliers
that the law foresees.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from oneprior.core import InputError, Rows
from oneprior.likelihoods.measured import checked_level, level_like
from oneprior.likelihoods.scale_mixture import ScaleMixture
from oneprior.operators.base import Operator


class OutlierLikelihood(ScaleMixture):
    """log of (1 - share) N(y; A x, sigma^2) + share N(y; A x, spread^2), entry by entry, with its constant.

    Args:
        y: measurements, (n, *operator.out_shape).
        operator: the instrument A.
        noise_level: sigma > 0 of the good entries, in the units of y; one number or one a row (n,).
        share: of bad entries, between 0 and 1.
        spread: standard deviation of the bad entries, larger than sigma; one number or one a row (n,).
        through: see `MeasuredLikelihood`.
        log_scale: see `MeasuredLikelihood`.
    """

    additive: ClassVar[bool] = True
    levels: ClassVar[tuple[str, ...]] = ("noise_level", "spread")

    def __init__(
        self,
        y: Tensor,
        operator: Operator,
        noise_level: Tensor | float,
        share: float,
        spread: Tensor | float,
        *,
        through: Callable[[Tensor], Tensor] | None = None,
        log_scale: float = 0.0,
    ) -> None:
        super().__init__(y, operator, through=through, log_scale=log_scale)
        if not 0 < share < 1:
            raise InputError(f"the share of outliers lies between 0 and 1, got {share}")
        self.noise_level, self.spread = checked_level(self.y, noise_level), checked_level(self.y, spread)
        self.share = share
        if not bool((self.spread > self.noise_level).all()):
            raise InputError(f"outliers are wider than the noise: got spread {spread} and noise {noise_level}")

    def density(self, clean: Tensor) -> Tensor:
        good, bad = self._parts(clean)
        # logaddexp, in a form whose second derivative is finite where one of the two is negligible
        return (bad + torch.nn.functional.softplus(good - bad, threshold=50.0)).flatten(1).sum(1)

    def _parts(self, clean: Tensor) -> tuple[Tensor, Tensor]:
        """log of the two terms of each entry, (n, *out_shape) each."""
        residual = self.y - clean
        square = residual.real.square() + residual.imag.square() if residual.is_complex() else residual.square()
        count = 2 if residual.is_complex() else 1

        def term(share: float, scale: Tensor) -> Tensor:
            scale = level_like(scale, square)
            return math.log(share) - count * (scale.log() + 0.5 * math.log(2 * math.pi)) - 0.5 * square / scale.square()

        return term(1 - self.share, self.noise_level), term(self.share, self.spread)

    def standardised(self, clean: Tensor) -> tuple[Tensor, Tensor]:
        """Normal scores of |y - A x|, one an entry, (n, entries), with the sign of the residual (of its real part)."""
        residual = self.y - clean
        size = residual.abs().double()

        def beyond(scale: Tensor) -> Tensor:
            z = size / level_like(scale, size).double()
            return torch.exp(-0.5 * z.square()) if self.y.is_complex() else torch.erfc(z / math.sqrt(2))

        chance = (1 - self.share) * beyond(self.noise_level) + self.share * beyond(self.spread)
        z = -torch.special.ndtri(0.5 * chance.clamp_min(1e-300))
        z = z.to(self.y.real) * residual.real.sign()
        return z.flatten(1), z.new_zeros(())

    def scale_given(self, clean: Tensor, rows: Rows) -> Tensor:
        """sigma or spread for each entry, (n, *out_shape)."""
        good, bad = self._parts(clean)
        off = rows.uniform(*self.operator.out_shape, dtype=torch.float64) < torch.sigmoid((bad - good).double())
        return torch.where(off, level_like(self.spread, good), level_like(self.noise_level, good))

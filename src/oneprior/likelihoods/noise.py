"""Laws of noise: what stands between A(x) and the numbers y that were recorded.

Each law makes the likelihood of a measurement and simulates one from the same numbers, row by row. It is told in the
units of y. `spec` gives words that make it again, whatever the range of values, so that a file can carry its noise.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from oneprior.core import InputError, Rows, per_row
from oneprior.likelihoods.gaussian import GaussianLikelihood
from oneprior.likelihoods.laplace import LaplaceLikelihood
from oneprior.likelihoods.measured import MeasuredLikelihood
from oneprior.likelihoods.outliers import OutlierLikelihood
from oneprior.likelihoods.poisson import PoissonLikelihood, draw_counts
from oneprior.likelihoods.rician import RicianLikelihood
from oneprior.likelihoods.unknown_noise import UnknownNoiseLikelihood
from oneprior.operators.base import Operator


class Noise(ABC):
    """A law of noise, in the units of y.

    Attributes:
        name: of the law, as it is written.
    """

    name: ClassVar[str]

    @property
    @abstractmethod
    def spec(self) -> str:
        """Words that make it again."""

    @abstractmethod
    def likelihood(self, y: Tensor, operator: Operator) -> MeasuredLikelihood:
        """log p(y | x), x in the user's units; y is (n, *operator.out_shape)."""

    @abstractmethod
    def simulate(self, clean: Tensor, operator: Operator, rows: Rows) -> Tensor:
        """y for a clean measurement A(x), (n, *out_shape); `rows` are its n rows."""

    @property
    @abstractmethod
    def noise_level(self) -> Tensor | float | None:
        """sigma in the units of y, one number or one a row; None where the law has no such number."""

    @abstractmethod
    def take(self, index: Tensor | slice) -> Self:
        """Of some of the rows."""

    @property
    def exact(self) -> bool:
        """Whether some row is measured without noise, so that y is a constraint and has no density."""
        return self.noise_level is not None and not bool((torch.as_tensor(self.noise_level) > 0).all())


@dataclass(frozen=True)
class LevelledNoise(Noise):
    """A law with one standard deviation.

    Args:
        sigma: > 0 in the units of y, one number or one a row (n,).
    """

    sigma: Tensor | float

    @property
    def noise_level(self) -> Tensor | float:
        return self.sigma

    @property
    def spec(self) -> str:
        """Words; of levels that differ by row, those of their root mean square."""
        return f"{self.name}:{_common(self.sigma)!r}"

    def take(self, index: Tensor | slice) -> Self:
        return replace(self, sigma=_taken(self.sigma, index))

    def with_level(self, sigma: Tensor | float) -> Self:
        """The same law with another level, or one a row."""
        return replace(self, sigma=sigma)


@dataclass(frozen=True)
class GaussianNoise(LevelledNoise):
    """y = A(x) + sigma e; sigma = 0 is a constraint. Complex y: each part has deviation sigma."""

    name: ClassVar[str] = "gaussian"

    def likelihood(self, y: Tensor, operator: Operator) -> GaussianLikelihood:
        return GaussianLikelihood(y, operator, self.sigma)

    def simulate(self, clean: Tensor, operator: Operator, rows: Rows) -> Tensor:
        return clean + per_row(self.sigma, clean) * _white(clean, rows)


@dataclass(frozen=True)
class RicianNoise(LevelledNoise):
    """y = |A(x) + sigma (e1 + i e2)|."""

    name: ClassVar[str] = "rician"

    def likelihood(self, y: Tensor, operator: Operator) -> RicianLikelihood:
        return RicianLikelihood(y, operator, self.sigma)

    def simulate(self, clean: Tensor, operator: Operator, rows: Rows) -> Tensor:
        white = torch.view_as_complex(rows.normal(*clean.shape[1:], 2, dtype=clean.real.dtype))
        return (clean + per_row(self.sigma, clean) * white).abs()


@dataclass(frozen=True)
class LaplaceNoise(LevelledNoise):
    """y = A(x) + Laplace noise of standard deviation sigma."""

    name: ClassVar[str] = "laplace"

    def likelihood(self, y: Tensor, operator: Operator) -> LaplaceLikelihood:
        return LaplaceLikelihood(y, operator, self.sigma)

    def simulate(self, clean: Tensor, operator: Operator, rows: Rows) -> Tensor:
        parts = (2,) if clean.is_complex() else ()
        u = 2 * rows.uniform(*clean.shape[1:], *parts, dtype=torch.float64) - 1
        white = (-u.sign() * torch.log1p(-u.abs()) / math.sqrt(2)).to(clean.real.dtype)
        white = torch.view_as_complex(white) if clean.is_complex() else white
        return clean + per_row(self.sigma, clean) * white


@dataclass(frozen=True)
class OutlierNoise(LevelledNoise):
    """Gaussian noise of which a share of the entries has a much larger deviation.

    Args:
        sigma: of the good entries.
        share: of the bad ones.
        spread: standard deviation of the bad ones, in the units of y.
    """

    name: ClassVar[str] = "outliers"
    share: float
    spread: float

    @property
    def spec(self) -> str:
        return f"{self.name}:{_common(self.sigma)!r}:share={self.share!r}:spread={self.spread!r}"

    def likelihood(self, y: Tensor, operator: Operator) -> OutlierLikelihood:
        return OutlierLikelihood(y, operator, self.sigma, self.share, self.spread)

    def simulate(self, clean: Tensor, operator: Operator, rows: Rows) -> Tensor:
        white = _white(clean, rows)
        off = rows.uniform(*clean.shape[1:], dtype=torch.float64) < self.share
        level = per_row(self.sigma, clean) * torch.ones_like(clean.real)
        return clean + torch.where(off, torch.full_like(level, self.spread), level) * white


@dataclass(frozen=True)
class UnknownNoise(Noise):
    """Gaussian noise of a level that is inferred with x, one a row; simulated, it is drawn from its prior.

    Args:
        low: the least sigma thought of, in the units of y.
        high: the largest.
    """

    name: ClassVar[str] = "unknown"
    low: float
    high: float

    @property
    def spec(self) -> str:
        return f"{self.name}:{self.low!r}:{self.high!r}"

    @property
    def noise_level(self) -> None:
        return None

    def take(self, index: Tensor | slice) -> Self:
        return self

    def likelihood(self, y: Tensor, operator: Operator) -> UnknownNoiseLikelihood:
        return UnknownNoiseLikelihood(y, operator, self.low, self.high)

    def simulate(self, clean: Tensor, operator: Operator, rows: Rows) -> Tensor:
        sigma = self.low * (self.high / self.low) ** rows.uniform(dtype=torch.float64)
        return clean + per_row(sigma, clean) * _white(clean, rows)


@dataclass(frozen=True)
class PoissonNoise(Noise):
    """y = A(black) + Poisson(gain (A(x) - A(black))) / gain: `gain` counts for each unit of y above black.

    Args:
        gain: counts for one unit of y, > 0; 1 where y is counts.
        black: the value of x that sends no counts.
    """

    name: ClassVar[str] = "poisson"
    gain: float = 1.0
    black: float = 0.0

    @property
    def spec(self) -> str:
        return f"{self.name}:gain={self.gain!r}:black={self.black!r}"

    @property
    def noise_level(self) -> None:
        return None

    def take(self, index: Tensor | slice) -> Self:
        return self

    def likelihood(self, y: Tensor, operator: Operator) -> PoissonLikelihood:
        """The likelihood of the counts; those less than half a count below 0, by rounding or an offset, are 0.

        Raises:
            InputError: for complex y, and counts that are negative.
        """
        if y.is_complex():
            raise InputError("Poisson noise is of real counts, and this instrument measures complex numbers")
        dark = self._dark(operator, y)
        counts = self.gain * (y - dark)
        if bool((counts < -0.5).any()):
            raise InputError(
                f"Poisson noise is of counts >= 0, and this measurement reaches {float(y.min()):g}, below the black of "
                f"{self.black:g}: give the value range that it was recorded in, or another noise"
            )
        return PoissonLikelihood(counts.clamp_min(0.0), operator, self.gain, -self.gain * dark)

    def simulate(self, clean: Tensor, operator: Operator, rows: Rows) -> Tensor:
        if clean.is_complex():
            raise InputError("Poisson noise is of real counts, and this instrument measures complex numbers")
        dark = self._dark(operator, clean)
        counts = draw_counts((self.gain * (clean - dark)).clamp_min(0.0), rows)
        return (counts / self.gain).to(clean.dtype) + dark

    def _dark(self, operator: Operator, like: Tensor) -> Tensor:
        """A(black), (n, *out_shape): rows may have instruments of their own."""
        return operator(torch.full((len(like), *operator.in_shape), self.black).to(like)).to(like)


def _white(clean: Tensor, rows: Rows) -> Tensor:
    """Standard normal numbers like `clean`; complex ones have deviation 1 in each part."""
    parts = (2,) if clean.is_complex() else ()
    white = rows.normal(*clean.shape[1:], *parts, dtype=clean.real.dtype)
    return torch.view_as_complex(white) if clean.is_complex() else white


def _common(level: Tensor | float) -> float:
    return float(level.double().square().mean().sqrt()) if isinstance(level, Tensor) else level


def _taken(level: Tensor | float, index: Tensor | slice) -> Tensor | float:
    return level[index] if isinstance(level, Tensor) and level.dim() else level

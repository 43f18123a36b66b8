"""What all measurements have in common: an instrument A, numbers y, and a law of the noise between them.

    log p(y | x) = log p(y | A(f(x))),

with f whatever stands between the space of inference and the user's units (a decoder, a change of units). A law of
noise is a density of y given the clean measurement A(f(x)): that is all that a kind of noise has to say, and everything
else (rows, pull-backs, residuals, how far the data lie from what x predicts) follows from it here.

Where the noise is additive, y = A x + c + noise, an offset c moves into y and a change of units x = s z + o divides
y and the noise by s; so the measurement stays linear, and exact and guided methods keep their structure. Poisson and
Rician noise depend on A x itself, and there f is composed and nothing moves.

**Misfit.** Each law gives standardised residuals: numbers of mean 0 and variance 1 when x is what was measured. Their
root mean square is about 1 then, whatever the noise. Their sum of squares S over d numbers has mean d and variance
V = sum(2 + excess kurtosis); `misfit_p` is the upper tail of the Gamma law of these two moments, which for Gaussian
noise is chi-square with d degrees of freedom itself. Noise of unknown level fits by construction; then, and always,
`whiteness` asks whether neighbouring residuals resemble each other, as what is left of an image does and noise does not
(the lag-one test of Moran 1950, of known mean and variance).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from copy import copy
from typing import ClassVar, Self

import torch
from torch import Tensor

from oneprior.core import AffineMap, InputError, ShapeError
from oneprior.likelihoods.base import Likelihood
from oneprior.operators.affine import Affine
from oneprior.operators.base import LinearOperator, Operator
from oneprior.operators.compose import compose


class MeasuredLikelihood(Likelihood):
    """log p(y | A(f(x))), one measurement a row.

    Args:
        y: measurements, (n, *operator.out_shape).
        operator: the instrument A.
        through: f, applied before the operator; the identity by default. A decoder with bound conditions takes rows in
            draw-major order (row i has condition i % n), which is the order of `repeat`.
        log_scale: a constant added to the density of every row (the volume of a change of units).

    Attributes:
        additive: whether y - A x is noise that does not depend on A x.
        levels: names of the attributes that say how strong the noise is: tensors (), (n,) or (n, *out_shape), in the
            units of y where the noise is additive.

    Raises:
        ShapeError: where y does not fit the operator.
        InputError: for non-finite y.
    """

    additive: ClassVar[bool]
    levels: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        y: Tensor,
        operator: Operator,
        *,
        through: Callable[[Tensor], Tensor] | None = None,
        log_scale: float = 0.0,
    ) -> None:
        if y.shape[1:] != operator.out_shape:
            raise ShapeError("measurement y", tuple(y.shape), ("n", *operator.out_shape))
        if not bool(torch.isfinite(torch.view_as_real(y) if y.is_complex() else y).all()):
            raise InputError("the measurement holds NaN or infinite values; mask them out or mend the file")
        if self.additive and isinstance(operator, Affine) and through is None:
            y, operator = y - operator.offset.to(y), operator.part
        self.y, self.operator = y, operator
        self.through, self.log_scale = through, log_scale

    @abstractmethod
    def density(self, clean: Tensor) -> Tensor:
        """log p(y | clean measurement), (n, *out_shape) -> (n,), with its constant."""

    @abstractmethod
    def standardised(self, clean: Tensor) -> tuple[Tensor, Tensor]:
        """Residuals of mean 0 and variance 1, (n, d), and their excess kurtosis, broadcastable to them."""

    @property
    def rows(self) -> int:
        return self.y.shape[0]

    @property
    def linear(self) -> bool:
        """Whether the clean measurement is a linear map of x."""
        return self.through is None and isinstance(self.operator, LinearOperator)

    @property
    def linear_operator(self) -> LinearOperator:
        """The operator, known to be linear.

        Raises:
            InputError: where it is not.
        """
        if self.through is None and isinstance(self.operator, LinearOperator):
            return self.operator
        raise InputError(f"{type(self.operator).__name__} of this likelihood is not linear")

    @property
    def differentiable(self) -> bool:  # type: ignore[override]
        return self.operator.differentiable

    def predict(self, x: Tensor) -> Tensor:
        """A(f(x)), the measurement without its noise; (n, *event_shape) -> (n, *out_shape)."""
        return self.operator(x if self.through is None else self.through(x))

    def residual(self, x: Tensor) -> Tensor:
        """y - A(f(x)); (n, *event_shape) -> (n, *out_shape)."""
        return self.y - self.predict(x)

    def log_prob(self, x: Tensor) -> Tensor:
        return self.density(self.predict(x)) + self.log_scale

    def misfit(self, x: Tensor) -> Tensor:
        """Root mean square of the standardised residuals, (n,): about 1 where x is what was measured."""
        z, _ = self.standardised(self.predict(x))
        return z.square().mean(1).sqrt()

    def misfit_p(self, x: Tensor) -> Tensor:
        """The chance of a misfit at least this large, were x what was measured; (n,), float64.

        For a *given* x, such as the truth: a restored x has been fitted to y and fits better than chance.
        """
        z, kurtosis = self.standardised(self.predict(x))
        spread = (2 + kurtosis.double()).expand_as(z).mean(1)
        mean = z.double().square().mean(1)
        shape = z.shape[1] / spread
        return torch.special.gammaincc(shape, shape * mean)

    def whiteness(self, x: Tensor) -> Tensor:
        """How alike neighbouring residuals are, (n,): standard normal where x is what was measured.

        s / sqrt(N), s the sum of z_i z_j over the N pairs of neighbours along the axes of y (but the channels). Some
        standard deviations from 0: structure is left in the residual, from another image or another operator.
        """
        z, _ = self.standardised(self.predict(x))
        shape = self.y.shape[1:]
        z = z.reshape(len(z), *shape, -1)  # complex entries may have two
        total, pairs = z.new_zeros(len(z)), 0
        for axis in range(2 if len(shape) > 1 else 1, 1 + len(shape)):
            size = z.shape[axis] - 1
            product = z.narrow(axis, 0, size) * z.narrow(axis, 1, size)
            total, pairs = total + product.flatten(1).sum(1), pairs + product[0].numel()
        return total / max(pairs, 1) ** 0.5

    def pullback(self, f: Callable[[Tensor], Tensor] | AffineMap) -> Self:
        """z -> L(f(z)); linear again for a `LinearOperator`, and where the noise is additive for an `Affine` and an
        `AffineMap` (units)."""
        if isinstance(f, AffineMap):
            return self._in_units(f)
        if self.additive and self.linear and isinstance(f, Affine):
            operator = self.linear_operator
            offset = operator(f.offset.to(self.y.real)[None])
            return self._changed(y=self.y - offset, operator=compose(operator, f.part))
        if self.through is None and isinstance(f, LinearOperator):
            return self._changed(operator=compose(self.operator, f))
        inner = self.through
        return self._changed(through=f if inner is None else lambda z: inner(f(z)))

    def behind(self, decoder: Callable[[Tensor], Tensor]) -> Self:
        """The same law with another decoder in place of `through`."""
        return self._changed(through=decoder)

    def _in_units(self, units: AffineMap) -> Self:
        """y = A (scale x + offset) + noise is (y - A offset) / scale = A x + noise / scale, for a linear A."""
        if not (self.additive and self.linear):
            inner = self.through or (lambda x: x)
            return self._changed(through=lambda z: inner(units.to_units(z)))
        operator = self.linear_operator
        offset = operator(torch.full((1, *operator.in_shape), units.offset).to(self.y.real))
        numbers = self.y[0].numel() * (2 if self.y.is_complex() else 1) if self.rows else 0
        return self._changed(
            y=(self.y - offset) / units.scale,
            log_scale=self.log_scale - numbers * math.log(units.scale),
            **{name: getattr(self, name) / units.scale for name in self.levels},
        )

    def take(self, index: Tensor) -> Self:
        levels = {name: getattr(self, name) for name in self.levels}
        return self._changed(
            y=self.y[index],
            operator=self.operator.take(index),
            **{name: level[index] if level.dim() else level for name, level in levels.items()},
        )

    def _changed(self, **attributes: object) -> Self:
        """The same law with other attributes, all of which come from checked ones."""
        again = copy(self)
        for name, value in attributes.items():
            setattr(again, name, value)
        return again


def checked_level(y: Tensor, level: Tensor | float, *, zero: bool = False, entries: bool = False) -> Tensor:
    """A standard deviation in the type of y and beside it.

    Args:
        y: the measurements, (n, *out_shape).
        level: one number, or one a row (n,).
        zero: whether 0, a constraint, is allowed.
        entries: whether one an entry, (n, *out_shape), is allowed.

    Raises:
        ShapeError: for another shape.
        InputError: for a negative or non-finite level, or 0 where that has no density.
    """
    found = torch.as_tensor(level, dtype=y.real.dtype, device=y.device)
    shapes = ((), y.shape[:1], y.shape) if entries else ((), y.shape[:1])
    if tuple(found.shape) not in map(tuple, shapes):
        raise ShapeError("noise_level", tuple(found.shape), f"() or ({y.shape[0]},)")
    if not bool((((found >= 0) if zero else (found > 0)) & torch.isfinite(found)).all()):
        raise InputError(f"the noise level is a standard deviation {'>=' if zero else '>'} 0, got {level}")
    return found


def numbers(v: Tensor) -> Tensor:
    """The real numbers of each row, (n, *shape) -> (n, d); a complex one counts as two, side by side."""
    return (torch.view_as_real(v) if v.is_complex() else v).flatten(1)


def numbers_of_level(level: Tensor, y: Tensor) -> Tensor:
    """A level shaped to broadcast against `numbers(y)`: (n, 1), or (n, d) where each entry has its own."""
    if level.dim() <= 1:
        return level.expand(y.shape[0])[:, None]
    return level.flatten(1).repeat_interleave(2, 1) if y.is_complex() else level.flatten(1)


def level_like(level: Tensor, y: Tensor) -> Tensor:
    """A level (), (n,) or (n, *out_shape), shaped to broadcast against y (n, *out_shape)."""
    return level.reshape(-1, *[1] * (y.dim() - 1)) if level.dim() == 1 else level

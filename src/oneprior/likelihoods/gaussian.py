"""Gaussian noise: y = A(x) + sigma noise, the likelihood that keeps its structure.

A linear measurement of x = B z + c is again a linear measurement, of z: A' = A B, y' = y - A c. So `pullback` through
an affine map gives a linear Gaussian likelihood back, and exact posteriors stay exact in other units and behind linear
decoders. Through any other map the noise stays Gaussian and the operator becomes nonlinear.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from oneprior.core import AffineMap, InputError, ShapeError, per_row
from oneprior.likelihoods.base import Likelihood
from oneprior.operators.affine import Affine
from oneprior.operators.base import LinearOperator, Operator
from oneprior.operators.compose import compose


class GaussianLikelihood(Likelihood):
    """log N(y; A(f(x)), sigma^2 I), one measurement a row, with its constant.

    Where y is complex each of its two parts has deviation sigma. A noise level of 0 is a constraint, A(x) = y: it has
    no density, and only methods that say so serve it.

    Args:
        y: measurements, (n, *operator.out_shape).
        operator: the instrument A.
        noise_level: sigma >= 0 in the units of y, one number or one for each row (n,).
        through: f, applied before the operator; the identity by default. A decoder with bound conditions takes rows in
            draw-major order (row i has condition i % n), which is the order of `repeat`.
        log_scale: a constant added to the density of every row (the volume of a change of units).

    Raises:
        ShapeError: where y does not fit the operator.
        InputError: for a negative or non-finite noise level, or non-finite y.
    """

    def __init__(
        self,
        y: Tensor,
        operator: Operator,
        noise_level: Tensor | float,
        *,
        through: Callable[[Tensor], Tensor] | None = None,
        log_scale: float = 0.0,
    ) -> None:
        if y.shape[1:] != operator.out_shape:
            raise ShapeError("measurement y", tuple(y.shape), ("n", *operator.out_shape))
        level = torch.as_tensor(noise_level, dtype=y.real.dtype, device=y.device)
        if level.dim() > 1 or (level.dim() == 1 and level.shape[0] != y.shape[0]):
            raise ShapeError("noise_level", tuple(level.shape), f"() or ({y.shape[0]},)")
        if not bool(((level >= 0) & torch.isfinite(level)).all()):
            raise InputError(f"the noise level is a standard deviation >= 0, got {noise_level}")
        if not bool(torch.isfinite(torch.view_as_real(y) if y.is_complex() else y).all()):
            raise InputError("the measurement holds NaN or infinite values; mask them out or mend the file")
        if isinstance(operator, Affine) and through is None:
            y, operator = y - operator.offset.to(y), operator.part
        self.y, self.operator, self.noise_level = y, operator, level
        self.through, self.log_scale = through, log_scale

    @property
    def rows(self) -> int:
        return self.y.shape[0]

    @property
    def linear(self) -> bool:
        """Whether the mean of y is a linear map of x."""
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

    @property
    def constraint(self) -> bool:
        """Whether some row has noise level 0, so that there is no density."""
        return bool((self.noise_level == 0).any())

    def predict(self, x: Tensor) -> Tensor:
        """A(f(x)), the measurement without its noise; (n, *event_shape) -> (n, *out_shape)."""
        return self.operator(x if self.through is None else self.through(x))

    def residual(self, x: Tensor) -> Tensor:
        """y - A(f(x)); (n, *event_shape) -> (n, *out_shape)."""
        return self.y - self.predict(x)

    def log_prob(self, x: Tensor) -> Tensor:
        if self.constraint:
            raise InputError("noise level 0 is a constraint and has no density: use a closed-form or guided method")
        residual = self.residual(x)
        parts = torch.view_as_real(residual) if residual.is_complex() else residual
        parts = parts.flatten(1)
        sigma = self.noise_level.expand(self.rows)
        quadratic = (parts / sigma[:, None]).square().sum(1)
        constant = parts.shape[1] * (sigma.log() + 0.5 * math.log(2 * math.pi))
        return -0.5 * quadratic - constant + self.log_scale

    def pullback(self, f: Callable[[Tensor], Tensor] | AffineMap) -> GaussianLikelihood:
        """z -> L(f(z)); linear again for an `AffineMap` (units), an `Affine` or a `LinearOperator`."""
        if isinstance(f, AffineMap):
            return self._change_units(f)
        if self.linear and isinstance(f, Affine):
            operator = self.linear_operator
            offset = operator(f.offset.to(self.y.real)[None])
            return self._with(self.y - offset, compose(operator, f.part))
        if self.through is None and isinstance(f, LinearOperator):
            return self._with(self.y, compose(self.operator, f))
        inner = self.through
        chained = f if inner is None else lambda z: inner(f(z))
        return GaussianLikelihood(
            self.y, self.operator, self.noise_level, through=chained, log_scale=self.log_scale
        )  # fmt: skip

    def _change_units(self, units: AffineMap) -> GaussianLikelihood:
        """y = A (scale x + offset) + noise is (y - A offset) / scale = A x + noise / scale, for a linear A."""
        if not self.linear:
            inner = self.through or (lambda x: x)
            return GaussianLikelihood(
                self.y,
                self.operator,
                self.noise_level,
                through=lambda z: inner(units.to_units(z)),
                log_scale=self.log_scale,
            )
        operator = self.linear_operator
        offset = operator(torch.full((1, *operator.in_shape), units.offset).to(self.y.real))
        numbers = self.y[0].numel() * (2 if self.y.is_complex() else 1) if self.rows else 0
        return GaussianLikelihood(
            (self.y - offset) / units.scale,
            operator,
            self.noise_level / units.scale,
            log_scale=self.log_scale - numbers * math.log(units.scale),
        )

    def _with(self, y: Tensor, operator: Operator) -> GaussianLikelihood:
        return GaussianLikelihood(y, operator, self.noise_level, log_scale=self.log_scale)

    def take(self, index: Tensor) -> GaussianLikelihood:
        level = self.noise_level if self.noise_level.dim() == 0 else self.noise_level[index]
        return GaussianLikelihood(
            self.y[index], self.operator, level, through=self.through, log_scale=self.log_scale
        )  # fmt: skip

    def noise(self, like: Tensor) -> Tensor:
        """sigma shaped to broadcast against (n, ...)."""
        return per_row(self.noise_level, like)

"""Noise that is Gaussian once its scale is known: p(y | x) = integral of N(y; A x, s^2) p(s) ds.

Laplace noise (s^2 exponential; Andrews and Mallows 1974), contaminated noise (s one of two values) and noise of unknown
level (s one number for all entries of a row) are such mixtures. A method that knows only Gaussian noise serves them by
Gibbs sampling: draw the scale given x, then x given the scale, again and again.
"""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from oneprior.core import Rows
from oneprior.likelihoods.gaussian import GaussianLikelihood
from oneprior.likelihoods.measured import MeasuredLikelihood


class ScaleMixture(MeasuredLikelihood):
    """Additive noise with a scale that is drawn first."""

    @abstractmethod
    def scale_given(self, clean: Tensor, rows: Rows) -> Tensor:
        """One draw of s from p(s | y, clean measurement): (n,), or (n, *out_shape) where each entry has its own."""

    def draw_scale(self, x: Tensor, rows: Rows) -> Tensor:
        """One draw of s from p(s | y, x), in the units of this likelihood's y; `rows` are its n rows."""
        return self.scale_given(self.predict(x), rows)

    def given(self, scale: Tensor | float) -> GaussianLikelihood:
        """The Gaussian likelihood of x, with the scale known."""
        return GaussianLikelihood(self.y, self.operator, scale, through=self.through, log_scale=self.log_scale)

"""The proximal step of a measurement: the event nearest to a guess, weighed against its misfit.

    prox(x0) = argmin_x |y - A x|^2 / (2 sigma^2) + |x - x0|^2 / (2 v)
             = x0 + A' (A A' + (sigma^2 / v) I)^-1 (y - A x0),

which is also the mean of x under x ~ N(x0, v I) and y. With sigma = 0 it is the projection onto A x = y, so that a mask
keeps its pixels as they are. Solved in closed form where A A' is diagonal or small, by conjugate gradients else.
"""

from __future__ import annotations

import torch
from torch import Tensor

from oneprior.likelihoods.gaussian import GaussianLikelihood
from oneprior.priors.linear_gaussian import Instrument


class Proximal:
    """The step of the rows of one linear Gaussian likelihood, prepared once.

    Args:
        likelihood: rows of measurements.
        like: an event, for type and device.
    """

    def __init__(self, likelihood: GaussianLikelihood, like: Tensor) -> None:
        self.likelihood = likelihood
        self.instrument = Instrument(like.new_zeros(like.numel(), 0), likelihood.linear_operator, likelihood.y)
        self.y = self.instrument.vector(likelihood.y)

    def __call__(self, x0: Tensor, variance: float) -> Tensor:
        """prox of all rows in order, (n, *event_shape), with v = `variance`."""
        instrument = self.instrument
        none, one = x0.new_zeros(0), x0.new_ones(())
        ratio = self.likelihood.noise_level.square() / variance
        innovation = instrument.innovation(none, one, ratio.to(x0))
        row = torch.arange(len(x0), device=x0.device)
        solved = innovation.solve(self.y - instrument.forward(x0.flatten(1)), row)
        return x0 + instrument.adjoint(solved).reshape(x0.shape)

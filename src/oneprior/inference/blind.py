"""Blind inference: the image and what is not known of its instrument, drawn together.

    p(x, theta | y)  ~  p(x) N(theta; 0, I) p(y | A(x, theta))

On the noise road nothing is new: (x, theta) is a map of white noise (`priors.joint`), the measurement a likelihood of
the pair, and any sampler of the noise road draws from the joint posterior; it is exact where the sampler is. Maximising
over both instead, the classical recipe of blind deconvolution, prefers the sharp kernel and the blurred image
(Levin, Weiss, Durand, Freeman 2009); draws do not, since they keep the volume of all images that a kernel allows.

The draws of x are those of its marginal: the unknown instrument is part of their spread. theta itself and what it means
are in the diagnostics, each physical quantity as mean and deviation of every row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from oneprior.core import IncompatiblePrior, Rows
from oneprior.inference.noise.elliptical_slice import EllipticalSlice
from oneprior.inference.noise.hmc import HMC
from oneprior.inference.posterior import Draws, Needs, Posterior, Sampler
from oneprior.likelihoods.base import Likelihood
from oneprior.likelihoods.measured import MeasuredLikelihood
from oneprior.likelihoods.product import Product
from oneprior.operators.uncertain import Joined, UncertainOperator
from oneprior.priors.base import NoisePrior
from oneprior.priors.joint import JointPrior, joint


@dataclass(frozen=True)
class Blind(Sampler):
    """A sampler of the noise road on the joint posterior of image and instrument.

    Args:
        inner: the sampler; by default HMC in the metric of the curvature at a mode (an image and its blur are tied
            tightly: on 8x8 digits with unknown blur R-hat was 12 without and 1.3 with it), elliptical slice sampling
            where gradients are not to be had.
    """

    name: ClassVar[str] = "blind"
    needs: ClassVar[Needs] = Needs(prior=NoisePrior, density=True)
    inner: Sampler | None = None

    def iterate(self, posterior: Posterior, draws: int, rows: Rows) -> Iterator[Draws]:
        operator = uncertain_operator(posterior)
        assert isinstance(posterior.prior, NoisePrior)
        law = joint(posterior.prior, operator.theta_shape)
        together = _joined(posterior, law)
        inner = self.inner or (HMC(metric="laplace") if together.likelihood.differentiable else EllipticalSlice())
        size = posterior.event_shape.numel()

        def image(event: Tensor | None) -> Tensor | None:
            return None if event is None else event[..., :size].unflatten(-1, posterior.event_shape)

        for state in inner.run(together, draws, rows):
            theta = state.x[..., size:].unflatten(-1, operator.theta_shape)
            yield replace(
                state,
                x=state.x[..., :size].unflatten(-1, posterior.event_shape),
                method=f"blind {inner.name}",
                centre=image(state.centre),
                spread=image(state.spread),
                diagnostics={**state.diagnostics, **instrument_found(operator, theta)},
            )


def uncertain_operator(posterior: Posterior) -> UncertainOperator:
    """The uncertain instrument of a posterior.

    Raises:
        IncompatiblePrior: where there is none, or more than one.
    """
    found = [
        factor.operator
        for factor in _factors(posterior.likelihood)
        if isinstance(factor, MeasuredLikelihood) and isinstance(factor.operator, UncertainOperator)
    ]
    if len(found) != 1:
        raise IncompatiblePrior(
            f"blind methods infer one uncertain instrument (unknown-blur, unknown-bias, ...), and {len(found)} are here"
        )
    return found[0]


def instrument_found(operator: UncertainOperator, theta: Tensor) -> dict[str, Any]:
    """What draws of theta say of the instrument.

    Args:
        operator: the uncertain instrument.
        theta: draws, (draws, n, *theta_shape).

    Returns:
        "theta", and for each physical quantity its mean and its deviation for every row, (n, ...).
    """
    found: dict[str, Any] = {"theta": theta}
    for name, value in operator.physical(theta.flatten(0, 1)).items():
        value = value.unflatten(0, theta.shape[:2])
        found[name] = value.mean(0)
        found[f"{name}, deviation"] = value.std(0) if len(value) > 1 else torch.zeros_like(value[0])
    return found


def _joined(posterior: Posterior, law: JointPrior) -> Posterior:
    """The posterior of (x, theta), of which nothing but the prior and the likelihood know that there are two."""

    def decode(event: Tensor) -> Tensor:
        x, theta = law.parts(event)
        return torch.cat([posterior.decode(x).flatten(1), theta.flatten(1)], 1)

    size = posterior.event_shape.numel() + law.theta_shape.numel()
    likelihood = _likelihood(posterior.likelihood, law)
    return Posterior(law, likelihood, (decode,), torch.Size([size]), posterior.n)


def _likelihood(likelihood: Likelihood, law: JointPrior) -> Likelihood:
    """(x, theta) -> L."""
    if isinstance(likelihood, Product):
        return Product(tuple(_likelihood(factor, law) for factor in likelihood.factors))
    if isinstance(likelihood, MeasuredLikelihood) and isinstance(likelihood.operator, UncertainOperator):
        return with_instrument(likelihood, Joined(likelihood.operator), _beside(likelihood.through, law))
    return likelihood.pullback(lambda event: law.parts(event)[0])


def with_instrument(
    likelihood: MeasuredLikelihood, operator: Joined, through: Callable[[Tensor], Tensor] | None
) -> MeasuredLikelihood:
    """The same numbers under the same law of noise, measured by another operator."""
    again = copy(likelihood)
    again.operator, again.through = operator, through
    return again


def _beside(through: Callable[[Tensor], Tensor] | None, law: JointPrior) -> Callable[[Tensor], Tensor] | None:
    """x's own way to the instrument, past which theta is carried."""
    if through is None:
        return None

    def carry(event: Tensor) -> Tensor:
        x, theta = law.parts(event)
        return torch.cat([through(x).flatten(1), theta.flatten(1)], 1)

    return carry


def _factors(likelihood: Likelihood) -> tuple[Likelihood, ...]:
    return likelihood.factors if isinstance(likelihood, Product) else (likelihood,)

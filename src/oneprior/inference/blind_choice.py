"""Which blind method infers an unknown instrument: a table over what the prior is and what the measurement is in x.

| prior | measurement, theta given | method |
|---|---|---|
| Gaussian, mixture, or a denoiser made of one | affine, Gaussian noise, small | `BlindGaussian` |
| denoiser that carries a Gaussian of its data | affine, Gaussian noise | `BlindDAPS` |
| map of Gaussian noise | any, with noise | `Blind` |

A denoiser under any other measurement takes its noise road, `Blind` on `prior.flow(...)`.
"""

from __future__ import annotations

from oneprior.core import IncompatiblePrior
from oneprior.inference.affine_rows import affine_in_image
from oneprior.inference.blind import Blind, uncertain_operator
from oneprior.inference.blind_gaussian import BlindGaussian
from oneprior.inference.guidance.blind_daps import BlindDAPS
from oneprior.inference.posterior import Posterior, Sampler
from oneprior.likelihoods.gaussian import GaussianLikelihood
from oneprior.priors.base import NoisePrior
from oneprior.priors.diffusion.schedule import DenoisingPrior


def choose_blind(posterior: Posterior) -> Sampler:
    """The method of the table.

    Raises:
        IncompatiblePrior: where the operator is not uncertain, or no method serves the pair.
    """
    operator, prior, likelihood = uncertain_operator(posterior), posterior.prior, posterior.likelihood
    if isinstance(likelihood, GaussianLikelihood) and affine_in_image(likelihood, prior.event_shape):
        whole = BlindGaussian()
        size = max(prior.event_shape.numel(), operator.out_shape.numel() * (2 if likelihood.y.is_complex() else 1))
        if isinstance(prior, whole.needs.prior) and size <= whole.most:
            return whole
        if isinstance(prior, DenoisingPrior) and prior.moments is not None:
            return BlindDAPS()
    if isinstance(prior, NoisePrior):
        return Blind()
    raise IncompatiblePrior(
        f"no blind method serves a {type(prior).__name__} under {operator.title}; a denoiser "
        "takes its noise road, prior.flow(steps)"
    )

"""The native road: inference through a denoiser. A conditioned denoiser is a denoiser."""

from collections.abc import Callable

from oneprior.inference.guidance.beliefs import (
    Beliefs,
    Covariance,
    DataCovariance,
    IsotropicCovariance,
    JacobianCovariance,
    MixtureCovariance,
    covariance_of,
)
from oneprior.inference.guidance.daps import DAPS
from oneprior.inference.guidance.mmps import MMPS, Guided, GuidedDenoiser
from oneprior.inference.guidance.tiled import TiledCovariance
from oneprior.likelihoods.base import Likelihood
from oneprior.priors.diffusion.schedule import DenoisingPrior

Guidance = Callable[[DenoisingPrior, Likelihood], DenoisingPrior]

__all__ = [
    "DAPS",
    "MMPS",
    "Beliefs",
    "Covariance",
    "DataCovariance",
    "Guidance",
    "Guided",
    "GuidedDenoiser",
    "IsotropicCovariance",
    "JacobianCovariance",
    "MixtureCovariance",
    "TiledCovariance",
    "covariance_of",
]

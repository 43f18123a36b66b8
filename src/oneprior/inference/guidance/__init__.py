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
from oneprior.inference.guidance.ddnm import DDNM
from oneprior.inference.guidance.diffpir import DiffPIR
from oneprior.inference.guidance.dps import DPS
from oneprior.inference.guidance.langevin import Langevin, LangevinDAPS
from oneprior.inference.guidance.latent_daps import LatentDAPS
from oneprior.inference.guidance.mmps import MMPS, Guided, GuidedDenoiser
from oneprior.inference.guidance.red_diff import REDDiff
from oneprior.inference.guidance.resample import ReSample
from oneprior.inference.guidance.sampled_beliefs import SampledBeliefs
from oneprior.inference.guidance.tiled import TiledCovariance
from oneprior.likelihoods.base import Likelihood
from oneprior.priors.diffusion.schedule import DenoisingPrior

Guidance = Callable[[DenoisingPrior, Likelihood], DenoisingPrior]

__all__ = [
    "DAPS",
    "DDNM",
    "DPS",
    "MMPS",
    "Beliefs",
    "Covariance",
    "DataCovariance",
    "DiffPIR",
    "Guidance",
    "Guided",
    "GuidedDenoiser",
    "IsotropicCovariance",
    "JacobianCovariance",
    "Langevin",
    "LangevinDAPS",
    "LatentDAPS",
    "MixtureCovariance",
    "REDDiff",
    "ReSample",
    "SampledBeliefs",
    "TiledCovariance",
    "covariance_of",
]

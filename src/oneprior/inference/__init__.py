"""Bayes: a prior and a likelihood become a posterior, and methods draw from it."""

from oneprior.inference.blind import Blind
from oneprior.inference.blind_gaussian import BlindGaussian
from oneprior.inference.closed_form import ClosedForm, exact_posterior
from oneprior.inference.guidance import (
    DAPS,
    MMPS,
    DataCovariance,
    Guidance,
    Guided,
    IsotropicCovariance,
    JacobianCovariance,
    MixtureCovariance,
    TiledCovariance,
    covariance_of,
)
from oneprior.inference.guidance.blind_daps import BlindDAPS
from oneprior.inference.noise import HMC, EllipticalSlice
from oneprior.inference.posterior import Draws, Needs, Posterior, Sampler, bayes
from oneprior.inference.search import Resampling

__all__ = [
    "DAPS",
    "HMC",
    "MMPS",
    "Blind",
    "BlindDAPS",
    "BlindGaussian",
    "ClosedForm",
    "DataCovariance",
    "Draws",
    "EllipticalSlice",
    "Guidance",
    "Guided",
    "IsotropicCovariance",
    "JacobianCovariance",
    "MixtureCovariance",
    "Needs",
    "Posterior",
    "Resampling",
    "Sampler",
    "TiledCovariance",
    "bayes",
    "covariance_of",
    "exact_posterior",
]

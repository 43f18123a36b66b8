"""Bayes: a prior and a likelihood become a posterior, and methods draw from it."""

from oneprior.inference.blind import Blind
from oneprior.inference.blind_choice import choose_blind
from oneprior.inference.blind_gaussian import BlindGaussian
from oneprior.inference.closed_form import ClosedForm, exact_posterior
from oneprior.inference.guidance import (
    DAPS,
    DDNM,
    DPS,
    MMPS,
    DataCovariance,
    DiffPIR,
    Guidance,
    Guided,
    IsotropicCovariance,
    JacobianCovariance,
    LangevinDAPS,
    LatentDAPS,
    MixtureCovariance,
    REDDiff,
    ReSample,
    TiledCovariance,
    covariance_of,
)
from oneprior.inference.guidance.blind_daps import BlindDAPS
from oneprior.inference.noise import HMC, MAP, AnnealedSMC, EllipticalSlice, Laplace, RandomiseThenOptimise, Variational
from oneprior.inference.posterior import Draws, Needs, Posterior, Sampler, bayes
from oneprior.inference.search import Resampling

__all__ = [
    "DAPS",
    "DDNM",
    "DPS",
    "HMC",
    "MAP",
    "MMPS",
    "AnnealedSMC",
    "Blind",
    "BlindDAPS",
    "BlindGaussian",
    "ClosedForm",
    "DataCovariance",
    "DiffPIR",
    "Draws",
    "EllipticalSlice",
    "Guidance",
    "Guided",
    "IsotropicCovariance",
    "JacobianCovariance",
    "LangevinDAPS",
    "Laplace",
    "LatentDAPS",
    "MixtureCovariance",
    "Needs",
    "Posterior",
    "REDDiff",
    "RandomiseThenOptimise",
    "ReSample",
    "Resampling",
    "Sampler",
    "TiledCovariance",
    "Variational",
    "bayes",
    "choose_blind",
    "covariance_of",
    "exact_posterior",
]
